"""One transcript as the files that the agent keeps of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, BinaryIO

from .jsonl import json_line
from .layout import sidecar_of
from .staging import StagedFiles

_METADATA = "agent_metadata"


class TranscriptWriter:
    """The lines of a transcript, and what the agent knows of a subagent beside them.

    Both are made when there is something for them, so nothing is made of an empty transcript.
    """

    def __init__(self, files: StagedFiles, path: PurePosixPath, subpath: str) -> None:
        self._files = files
        self._path = path
        self._subpath = subpath
        self._lines: BinaryIO | None = None
        self._metadata: Mapping[str, Any] | None = None

    def add(self, entry: Mapping[str, Any]) -> int:
        """Write an entry, and return how many bytes that took now.

        Raises:
            OSError, TransferError: as :meth:`StagedFiles.create` raises them.
        """
        # As the SDK has it where it resumes a session: of these the last one counts.
        if self._subpath and entry.get("type") == _METADATA:
            self._metadata = entry
            return 0
        if self._lines is None:
            self._lines = self._files.create(self._path)
        return self._lines.write(json_line(entry) + b"\n")

    def finish(self) -> int:
        """Write what goes beside the lines, and return how many bytes that took; 0 for nothing."""
        if self._metadata is None:
            return 0
        content = {name: each for name, each in self._metadata.items() if name != "type"}
        return self._files.create(sidecar_of(self._path)).write(json_line(content))
