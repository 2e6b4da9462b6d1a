"""A session as one page, written while it is read."""

from __future__ import annotations

from ..files.layout import main_path
from ..files.staging import StagedFiles
from ..reading.listings import SessionListing
from ..rendering.pieces import Page, Pieces, journals_left_out, subagent_title
from ..store import BeanieSessionStore
from ..stored_times import moment_of_ms
from ..transcripts.workflows import is_journal
from .report import Progress


async def write_page(
    page: Page,
    store: BeanieSessionStore,
    listing: SessionListing,
    files: StagedFiles,
    progress: Progress,
) -> None:
    """Write the main transcript, and below it those of the subagents, each in its order.

    Raises:
        TransferError: a name has no place on disk.
        OSError: a file cannot be written.
        SessionStoreError: as for :meth:`BeanieSessionStore.stream`.
    """
    file = files.create(main_path(listing.project_key, listing.session_id, page.ending))

    def write(text: str, entries: int = 0) -> None:
        progress.moved(file.write(text.encode()), entries)

    write(page.head(listing.title or listing.session_id, _facts(store, listing)))
    journals: list[str] = []
    for subpath in ["", *sorted(await store.list_subkeys(listing.subkeys_key))]:
        if is_journal(subpath):
            journals.append(subpath)
            continue
        pieces = Pieces(is_subagent=bool(subpath))
        if subpath:
            metadata = await store.agent_metadata(listing.key(subpath)) or {}
            write(page.subagent(subagent_title(subpath, metadata)))
        async for entry in store.stream(listing.key(subpath)):
            write("".join(map(page.piece, pieces.of(entry))), 1)
        write("".join(map(page.piece, pieces.rest())))
    if journals:
        entries = 0
        for subpath in journals:
            async for _ in store.stream(listing.key(subpath)):
                entries += 1
        write(page.piece(journals_left_out(len(journals), entries)), entries)
    write(page.foot())


def _facts(store: BeanieSessionStore, listing: SessionListing) -> dict[str, str]:
    facts = {
        "Session": listing.session_id,
        "Project": listing.project_key,
        "Tenant": store.tenant,
    }
    changed = moment_of_ms(listing.mtime)
    if changed is not None:
        facts["Last change"] = f"{changed:%Y-%m-%d %H:%M:%S} UTC"
    return facts
