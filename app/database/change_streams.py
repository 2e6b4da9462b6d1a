"""Change streams of either driver, of which nothing stays open."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any

from pymongo.asynchronous.change_stream import AsyncChangeStream

from ..concurrency.cancellation import completed
from .driver import IS_MOTOR, Collection, Record, awaited

MOTOR_WAIT_MS = 1_000
"""How long Motor's thread waits for a change, which whoever leaves has to wait for too."""


class Changes:
    """What a change stream tells, from the entry to the exit of ``async with``.

    However it is left, nothing of it stays open at the server.
    """

    def __init__(self, opening: Awaitable[AsyncChangeStream[Record]]) -> None:
        self._opening = asyncio.ensure_future(opening)
        self._asked: asyncio.Future[Record | None] | None = None

    @property
    def alive(self) -> bool:
        """Whether there may be more; not so once the collection was dropped."""
        return self._opening.result().alive

    async def next(self) -> Record | None:
        """The next change, or ``None`` if there was none for a second."""
        self._asked = asyncio.ensure_future(self._opening.result().try_next())
        return await asyncio.shield(self._asked)

    async def __aenter__(self) -> Changes:
        try:
            await asyncio.shield(self._opening)
        except asyncio.CancelledError:
            # The server may have opened it already, and nobody else will ever close it.
            await completed(self._close(), "close a change stream")
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await completed(self._close(), "close a change stream")

    async def _close(self) -> None:
        if self._asked is not None:
            # Motor's thread goes on, and would open anew what is closed under it.
            if not IS_MOTOR:
                self._asked.cancel()
            await asyncio.gather(self._asked, return_exceptions=True)
        (stream,) = await asyncio.gather(self._opening, return_exceptions=True)
        if not isinstance(stream, BaseException):
            await stream.close()


def open_change_stream(
    collection: Collection, pipeline: Sequence[Mapping[str, Any]], **options: Any
) -> Changes:
    """Start to watch a collection; on Motor, at the first look at what has come."""
    if IS_MOTOR:
        options["max_await_time_ms"] = MOTOR_WAIT_MS
    return Changes(awaited(collection.watch(pipeline, **options)))
