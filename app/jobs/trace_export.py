"""A session as the spans of a trace, made while it is read."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

from ..files.layout import main_path
from ..files.staging import StagedFiles
from ..reading.listings import SessionListing
from ..store import BeanieSessionStore
from ..traces.otlp_json import otlp_line
from ..traces.response_ledger import ResponseLedger
from ..traces.session_spans import SessionSpans
from ..traces.spans import SessionSpan, nanoseconds_of
from .report import Progress

ENDING = ".otlp.jsonl"

SPANS_AT_ONCE = 256
"""How many go in one export."""


async def write_trace(
    store: BeanieSessionStore,
    listing: SessionListing,
    files: StagedFiles,
    progress: Progress,
    *,
    with_content: bool = False,
) -> None:
    """Write the spans of a session to its place, as lines of OTLP's JSON.

    Raises:
        TransferError: a name has no place on disk.
        OSError: the file cannot be written.
        SessionStoreError: as for :meth:`BeanieSessionStore.stream`.
    """
    file = files.create(main_path(listing.project_key, listing.session_id, ENDING))
    async for spans, entries in session_trace(store, listing, with_content=with_content):
        progress.moved(file.write(otlp_line(spans)) if spans else 0, entries)


async def session_trace(
    store: BeanieSessionStore, listing: SessionListing, *, with_content: bool
) -> AsyncIterator[tuple[list[SessionSpan], int]]:
    """All spans of a session, some at once, each time with how many entries they took.

    It reads the session twice: what a response took is known at its last entry, which may come
    much later. It remembers some hundred bytes of each response and call, and no content.

    Raises:
        SessionStoreError: as for :meth:`BeanieSessionStore.stream`.
    """
    key = listing.key()
    summary = await store.summary(key)
    if summary is None:
        return
    copied_until = summary.totals.copied_until or 0
    ledger = ResponseLedger(copied_until)
    last = 0
    async with aclosing(store.stream(key, with_subagents=True)) as entries:
        async for entry in entries:
            last = entry.seq
            ledger.add(entry, entry.subpath, entry.seq)
    taken = ledger.taken()
    del ledger
    spans = SessionSpans(
        listing.session_id,
        begun_ns=nanoseconds_of(summary.created_at),
        copied_until=copied_until,
        with_content=with_content,
        taken=taken,
    )
    ready: list[SessionSpan] = []
    read = 0
    async with aclosing(store.stream(key, with_subagents=True)) as entries:
        async for entry in entries:
            # What came since was not counted.
            if entry.seq > last:
                break
            read += 1
            ready.extend(spans.add(entry, entry.subpath, entry.seq))
            if len(ready) >= SPANS_AT_ONCE:
                yield ready, read
                ready, read = [], 0
    ready.extend(spans.ended())
    for begin in range(0, max(len(ready), 1), SPANS_AT_ONCE):
        yield ready[begin : begin + SPANS_AT_ONCE], read
        read = 0
