"""Files that appear together and whole, or not at all, and nowhere but in their folder."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import BinaryIO

from .errors import TransferError

_UNFINISHED = ".partial"


class StagedFiles:
    """Files under other names until :meth:`publish`; what was not published is gone at exit.

    Args:
        root: the folder that no file leaves; it must be there.
        overwrite: replace files that are there.
    """

    def __init__(self, root: Path, *, overwrite: bool) -> None:
        self._root = root
        self._overwrite = overwrite
        self._open: list[BinaryIO] = []
        self._paths: dict[Path, Path] = {}

    def create(self, path: PurePosixPath) -> BinaryIO:
        """A new file, which only its owner may read, as the agent's own are.

        Raises:
            TransferError: a file of that name is there, or the folder leads elsewhere.
            OSError: it cannot be made.
        """
        final = self._root / path
        final.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A link that somebody put there would lead out of the folder.
        if not final.parent.resolve().is_relative_to(self._root.resolve()):
            raise TransferError(f"{final.parent} is a link out of {self._root}; not written")
        if not self._overwrite and final.exists():
            raise TransferError(f"{final} is there already; not written")
        partial = final.with_name(final.name + _UNFINISHED)
        partial.unlink(missing_ok=True)
        handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        file = os.fdopen(handle, "wb", buffering=256 * 1024)
        self._open.append(file)
        self._paths[partial] = final
        return file

    def publish(self, mtime: int | None) -> list[Path]:
        """Give the files their names, the last one created last, and return their paths.

        ``mtime`` is the time of the last one, epoch milliseconds.
        """
        for file in self._open:
            file.close()
        self._open.clear()
        published = list(self._paths.items())
        for partial, final in published:
            if mtime is not None and final is published[-1][1]:
                os.utime(partial, ns=(mtime * 1_000_000, mtime * 1_000_000))
            partial.replace(final)
            del self._paths[partial]
        return [final for _, final in published]

    def __enter__(self) -> StagedFiles:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for file in self._open:
            # A full disk says so once more at the flush of what is thrown away.
            with contextlib.suppress(OSError):
                file.close()
        for partial in self._paths:
            partial.unlink(missing_ok=True)
