"""Outlines of sessions, made once for all who look, and continued as sessions grow."""

from __future__ import annotations

import asyncio
from typing import Final

from ...models import SessionSummary
from ..database.deadlines import started_without_deadline
from ..reading.glimpses import SessionReader
from ..transcripts.outline import Outline
from ..transcripts.outline_fields import OUTLINE_FIELDS, outline_fields
from .kept import Kept

AT_ONCE: Final = 2_000
"""Of a session of no more entries the outline is waited for; of a longer one it is made beside."""

_MAX_ENTRIES = 300_000
_KEPT_SECONDS = 300
_ROWS_AT_ONCE = 500
# The page that is answered without it is to be on its way first.
_AFTER_SECONDS = 0.3

_Key = tuple[str, str, str, str, int]


class Outlines:
    """The outlines of one process: those looked at last, for some hundred thousand entries."""

    def __init__(self) -> None:
        self._known = Kept[_Key, Outline](_KEPT_SECONDS, _MAX_ENTRIES, _entries_of)
        self._making: dict[_Key, asyncio.Task[Outline]] = {}

    async def of(
        self, reader: SessionReader, summary: SessionSummary, *, is_awaited: bool = False
    ) -> Outline | None:
        """The outline of a session as it is now; ``None`` while that of a long one is made.

        Args:
            reader: of the session.
            summary: of the same.
            is_awaited: wait for it however long the session is.

        Raises:
            SessionStoreError: as for the store.
        """
        loop = asyncio.get_running_loop()
        # Of another loop there may be a task that never ends; a session made anew is another one.
        key = (*reader.key[:3], str(summary.id), id(loop))
        until = summary.next_seq - 1
        known = self._known.get(key)
        if known is not None and known.until >= until:
            return known
        task = self._making.get(key)
        behind = until - (known.until if known is not None else summary.first_seq - 1)
        is_awaited = is_awaited or behind <= AT_ONCE
        if task is None:
            wait = 0 if is_awaited else _AFTER_SECONDS
            work = self._made(key, reader, known or Outline(), until, wait)
            task = started_without_deadline(work)
            self._making[key] = task
            task.add_done_callback(lambda done: self._has_ended(key, done))
        return await asyncio.shield(task) if is_awaited else None

    def forget(self) -> None:
        """Know none any more, as a process that has just begun."""
        self._known.clear()

    async def _made(
        self, key: _Key, reader: SessionReader, outline: Outline, until: int, wait: float
    ) -> Outline:
        await asyncio.sleep(wait)
        count = 0
        rows = reader.rows(
            OUTLINE_FIELDS,
            after=outline.until,
            until=until,
            batch=_ROWS_AT_ONCE,
            of_entry=outline_fields,
        )
        async for row in rows:
            outline.add(row)
            count += 1
            if count % _ROWS_AT_ONCE == 0:
                # Others are served meanwhile.
                await asyncio.sleep(0)
        # A position that nothing is stored at any more is not looked for again.
        outline.until = max(outline.until, until)
        self._known.put(key, outline)
        return outline

    def _has_ended(self, key: _Key, task: asyncio.Task[Outline]) -> None:
        self._making.pop(key, None)
        if not task.cancelled() and task.exception() is not None:
            # One that was continued half may know entries twice; whoever asks next begins anew.
            self._known.drop(key)


def _entries_of(outline: Outline) -> int:
    return outline.entries
