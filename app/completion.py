"""Operations that go on to their end though their caller is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_unfinished: set[asyncio.Task[Any]] = set()


async def completed(work: Coroutine[Any, Any, T]) -> T:
    """Await ``work``; if the caller is cancelled meanwhile, ``work`` goes on without it.

    A write that is cut off in the middle leaves an open transaction, which blocks the session's
    other writers for a minute; and a cancel scope goes on cancelling whatever its task awaits,
    so that the write itself could not even roll back.
    """
    task = asyncio.create_task(work)
    # The loop itself holds tasks weakly.
    _unfinished.add(task)
    task.add_done_callback(_retire)
    return await asyncio.shield(task)


def _retire(task: asyncio.Task[Any]) -> None:
    _unfinished.discard(task)
    if not task.cancelled():
        # Marks it as seen: after a cancellation nobody else will look at it.
        task.exception()
