"""A session as the files that the agent keeps of it."""

from __future__ import annotations

from ..files.layout import transcript_path
from ..files.staging import StagedFiles
from ..files.transcript_writer import TranscriptWriter
from ..reading.listings import SessionListing
from ..store import BeanieSessionStore
from .report import Progress


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
        transcript = TranscriptWriter(files, path, subpath)
        async for entry in store.stream(listing.key(subpath)):
            if size := transcript.add(entry):
                progress.moved(size, 1)
        if size := transcript.finish():
            progress.moved(size, 1)
