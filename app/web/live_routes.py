"""What changes while one looks, as server-sent events.

However many look, one change stream follows the database, and what many wait for at one place is
read and rendered once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine, Hashable, Sequence
from datetime import datetime, timezone
from http import HTTPStatus
from typing import Any

from claude_agent_sdk import SessionKey
from starlette.responses import Response

from ...models import SessionSummary
from ..concurrency.cancellation import cancel_and_wait
from ..database.deadlines import started_without_deadline
from ..errors import SessionStoreError, StandaloneError
from ..feed.changes import SessionChange
from ..feed.feed import Feed
from .event_stream import EventStream, event, last_event
from .list_filters import ListFilters
from .live_pieces import live_fragments
from .refusals import Refused, no_such_session
from .session_rows import anchor_of, row_html
from .viewer import PageRoute, Viewer

_logger = logging.getLogger("beanie_session_store.web")

# For those who come to the same place a little later.
_SHARED_SECONDS = 5.0

# Rows of a list change together, and so often at most.
_ROWS_SECONDS = 1.0
_ROWS_AT_ONCE = 50

Fragments = Sequence[tuple[int, str]]


async def session_live(viewer: Viewer) -> Response:
    """What comes to a session, from a position on; the id of an event is a position."""
    key = viewer.session_key
    seen = last_event(viewer.request.headers)
    position = _position(seen or viewer.request.query_params.get("after", "0"))
    if seen is None and await viewer.store.summary(key) is None:
        raise no_such_session()
    return EventStream(_ended_in_words(_of_session(viewer, key, position)))


async def list_live(viewer: Viewer) -> Response:
    """The rows of sessions that change, of those that meet the list's conditions."""
    wanted = ListFilters.of(viewer).without()
    return EventStream(_ended_in_words(_of_list(viewer, wanted)))


async def _ended_in_words(events: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    try:
        async for each in events:
            yield each
    except Refused:
        # It was deleted while it was read.
        yield event("gone", "deleted")
    except StandaloneError:
        yield event("off", "This server does not tell of changes.")
    except SessionStoreError as error:
        # The browser asks again, and says meanwhile that it is not connected.
        _logger.warning("Live events ended: %s", error)
    finally:
        await events.aclose()


async def _of_session(viewer: Viewer, key: SessionKey, position: int) -> AsyncGenerator[bytes]:
    async with viewer.store.feed(key) as feed:
        # Whatever was written before the feed began is stored now.
        summary = await viewer.store.summary(key)
        if summary is None or 0 < position < summary.first_seq or position >= summary.next_seq:
            yield event("gone", "deleted")
            return
        until = summary.next_seq - 1
        # One of the same key that was made anew meanwhile is another one.
        yield event("live", {"position": until, "session": str(summary.id)})
        while True:
            while until > position:
                came = await _shared_fragments(viewer, summary, feed, position, until)
                for place, html in came:
                    yield event("entry", html, place)
                position = came[-1][0] if came else until
            change = await anext(feed)
            if change.kind != "changed":
                # It may be told only now of what came before we looked.
                found = await viewer.store.summary(key)
                if found is None or found.id != summary.id:
                    yield event("gone", "deleted")
                    return
            until = max(until, (change.next_seq or 1) - 1)


async def _shared_fragments(
    viewer: Viewer, summary: SessionSummary, feed: Feed, position: int, until: int
) -> Fragments:
    # One of the same key that was made anew is another one, and what was read stays with its own.
    name = (
        *("entries", feed.source, viewer.store.tenant, summary.id),
        *(viewer.links.mount, viewer.who, position, until),
    )

    async def fragments() -> Fragments:
        came = await live_fragments(viewer, summary.key(), position)
        now = await viewer.store.summary(summary.key())
        if now is None or now.id != summary.id:
            raise no_such_session()
        return came

    return await _once(name, fragments)


async def _of_list(viewer: Viewer, wanted: ListFilters) -> AsyncGenerator[bytes]:
    async with viewer.store.feed() as feed:
        yield event("live", {"session": "all"})
        while True:
            changed = await _changed_together(feed)
            gone = [anchor_of(key) for key, kind in changed if kind == "deleted"]
            if gone:
                yield event("gone", gone)
            there = [(key, kind) for key, kind in changed if kind != "deleted"]
            for at in range(0, len(there), _ROWS_AT_ONCE):
                rows = await _shared_rows(viewer, wanted, feed, there[at : at + _ROWS_AT_ONCE])
                if rows:
                    yield event("rows", rows)


Changed = Sequence[tuple[SessionKey, str]]


async def _changed_together(feed: Feed) -> Changed:
    """The next change and those that come soon, the latest of each session."""
    found: dict[tuple[str, str], tuple[SessionChange, bool]] = {}
    loop = asyncio.get_running_loop()
    end = None
    while True:
        left = None if end is None else end - loop.time()
        if left is not None and left <= 0:
            break
        coming = asyncio.ensure_future(anext(feed))
        try:
            await asyncio.wait([coming], timeout=left)
        finally:
            if not coming.done():
                await cancel_and_wait(coming)
        if coming.cancelled():
            break
        change = coming.result()
        name = (change.project_key, change.session_id)
        is_new = change.kind == "created" or (name in found and found[name][1])
        found[name] = change, is_new
        if end is None:
            # All lists at the same moments, so that they need the same rows.
            end = (loop.time() // _ROWS_SECONDS + 1) * _ROWS_SECONDS
    return [
        (change.key(), "created" if is_new and change.kind != "deleted" else change.kind)
        for change, is_new in found.values()
    ]


async def _shared_rows(
    viewer: Viewer, wanted: ListFilters, feed: Feed, changed: Changed
) -> list[dict[str, Any]]:
    names = tuple(sorted((key["project_key"], key["session_id"]) for key, _ in changed))
    name = (
        *("rows", feed.source, viewer.store.tenant, viewer.access.contents, viewer.who),
        *(viewer.links.mount, tuple(wanted.query), names),
    )
    new = {anchor_of(key) for key, kind in changed if kind == "created"}

    async def rows() -> list[dict[str, Any]]:
        now = datetime.now(timezone.utc)
        of_these = {"session_id": {"$in": [session for _, session in names]}}
        found = await viewer.store.sessions(
            *wanted.criteria(),
            of_these,
            **wanted.arguments(now),
            limit=_ROWS_AT_ONCE,
            figures_only=not viewer.access.contents,
        )
        return [
            {"at": at, "html": row_html(viewer, each, now)}
            for each in found.sessions
            for at in [anchor_of(each.key())]
        ]

    return [{**row, "new": row["at"] in new} for row in await _once(name, rows)]


_under_way: dict[Hashable, asyncio.Future[Any]] = {}


async def _once(name: tuple[Hashable, ...], work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """What somebody else has asked for at the same time, or just now, asked for once."""
    loop = asyncio.get_running_loop()
    name = (loop, *name)
    if name not in _under_way:
        task = _under_way[name] = started_without_deadline(work())
        task.add_done_callback(lambda _: loop.call_later(_SHARED_SECONDS, _forget, name))
    # Whoever leaves does not end it for the others.
    return await asyncio.shield(_under_way[name])


def _forget(name: Hashable) -> None:
    found = _under_way.pop(name, None)
    if found is not None and not found.cancelled():
        # Looked at, for all who waited may have left.
        found.exception()


def _position(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise Refused(
            HTTPStatus.BAD_REQUEST,
            "This cannot be followed",
            "after must be the position of an entry, a number from 0 on.",
        )
    return int(text)


routes: list[PageRoute] = [
    PageRoute("/live", list_live, reads_contents=False),
    PageRoute("/s/{project}/{session}/live", session_live),
]
