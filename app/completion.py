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
    loop = asyncio.get_running_loop()
    # Unlike a shielded task it wakes the caller at once, without a turn of the loop in between.
    outcome: asyncio.Future[T] = loop.create_future()
    task = loop.create_task(_settle(outcome, work))
    # The loop itself holds tasks weakly.
    _unfinished.add(task)
    task.add_done_callback(_unfinished.discard)
    return await outcome


async def _settle(outcome: asyncio.Future[T], work: Coroutine[Any, Any, T]) -> None:
    try:
        result = await work
    except asyncio.CancelledError:
        outcome.cancel()
        raise
    except BaseException as error:
        # After a cancellation nobody looks at it any more.
        if not outcome.cancelled():
            outcome.set_exception(error)
        if not isinstance(error, Exception):
            raise
    else:
        if not outcome.cancelled():
            outcome.set_result(result)
