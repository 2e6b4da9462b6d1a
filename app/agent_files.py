"""A session as the files that the agent keeps of it."""

from __future__ import annotations

from typing import Any

from .jsonl import json_line
from .layout import sidecar_of, transcript_path
from .reader import SessionListing
from .staging import StagedFiles
from .store import BeanieSessionStore
from .transfer import Progress

_METADATA = "agent_metadata"


async def write_agent_files(
    store: BeanieSessionStore, listing: SessionListing, files: StagedFiles, progress: Progress
) -> None:
    """Write the transcripts of a session, and what the agent keeps beside those of subagents.

    Raises:
        TransferError: a name has no place on disk.
        OSError: a file cannot be written.
        SessionStoreError: as for :meth:`BeanieSessionStore.stream`.
    """
    # The main transcript last: where the agent finds one, the session is whole.
    subpaths = [*sorted(await store.list_subkeys(listing.subkeys_key)), ""]
    paths = {
        subpath: transcript_path(listing.project_key, listing.session_id, subpath)
        for subpath in subpaths
    }
    for subpath, path in paths.items():
        lines = None
        metadata: dict[str, Any] | None = None
        async for entry in store.stream(listing.key(subpath)):
            # As the SDK has it where it resumes a session: of these the last one counts.
            if subpath and entry.get("type") == _METADATA:
                metadata = entry
                continue
            lines = lines or files.create(path)
            progress.moved(lines.write(json_line(entry) + b"\n"), 1)
        if metadata is not None:
            content = {name: each for name, each in metadata.items() if name != "type"}
            sidecar = files.create(sidecar_of(path))
            progress.moved(sidecar.write(json_line(content)), 1)
