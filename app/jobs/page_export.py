"""A session as one page, written while it is read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from ..files.layout import main_path
from ..files.staging import StagedFiles
from ..reading.listings import SessionListing
from ..rendering.pieces import Page, Pieces, journals_left_out, subagent_title
from ..store import BeanieSessionStore
from ..stored_times import moment_of_ms
from ..transcripts.workflows import is_journal
from .report import Progress

# So many entries are rendered in a thread at a time: others are served meanwhile.
_ENTRIES_AT_ONCE = 20


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
        waiting: list[Mapping[str, Any]] = []
        async for entry in store.stream(listing.key(subpath)):
            waiting.append(entry)
            if len(waiting) == _ENTRIES_AT_ONCE:
                yield await asyncio.to_thread(_rendered, page, pieces, waiting), len(waiting)
                waiting = []
        yield await asyncio.to_thread(_rendered, page, pieces, waiting), len(waiting)
        yield "".join(map(page.piece, pieces.rest())), 0
    if journals:
        entries = 0
        for subpath in journals:
            async for _ in store.stream(listing.key(subpath)):
                entries += 1
        yield page.piece(journals_left_out(len(journals), entries)), entries
    yield page.foot(), 0


def _rendered(page: Page, pieces: Pieces, entries: Sequence[Mapping[str, Any]]) -> str:
    return "".join(page.piece(piece) for entry in entries for piece in pieces.of(entry))


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
