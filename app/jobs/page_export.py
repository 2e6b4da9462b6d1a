"""A session as one page, written while it is read."""

from __future__ import annotations

from collections.abc import AsyncIterator

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
    """Write the page of a session to its place.

    Raises:
        TransferError: a name has no place on disk.
        OSError: a file cannot be written.
        SessionStoreError: as for :meth:`BeanieSessionStore.stream`.
    """
    file = files.create(main_path(listing.project_key, listing.session_id, page.ending))
    async for text, entries in page_texts(page, store, listing):
        progress.moved(file.write(text.encode()), entries)


async def page_texts(
    page: Page, store: BeanieSessionStore, listing: SessionListing
) -> AsyncIterator[tuple[str, int]]:
    """The page of a session part by part, each with how many entries are in it.

    It is the main transcript, and below it those of the subagents, each in its order.

    Raises:
        SessionStoreError: as for :meth:`BeanieSessionStore.stream`.
    """
    yield page.head(listing.title or listing.session_id, _facts(store, listing)), 0
    journals: list[str] = []
    for subpath in ["", *sorted(await store.list_subkeys(listing.subkeys_key))]:
        if is_journal(subpath):
            journals.append(subpath)
            continue
        pieces = Pieces(is_subagent=bool(subpath))
        if subpath:
            metadata = await store.agent_metadata(listing.key(subpath)) or {}
            yield page.subagent(subagent_title(subpath, metadata)), 0
        async for entry in store.stream(listing.key(subpath)):
            yield "".join(map(page.piece, pieces.of(entry))), 1
        yield "".join(map(page.piece, pieces.rest())), 0
    if journals:
        entries = 0
        for subpath in journals:
            async for _ in store.stream(listing.key(subpath)):
                entries += 1
        yield page.piece(journals_left_out(len(journals), entries)), entries
    yield page.foot(), 0


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
