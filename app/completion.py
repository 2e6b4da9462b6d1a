"""What becomes of an operation whose caller is cancelled: it goes on to its end, or surely ends."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

# Long enough to close what is open, for a second cancellation would cut that off.
_AGAIN_SECONDS = 2.0

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
    task = _started(loop, _settle(outcome, work))
    try:
        return await outcome
    finally:
        if not task.done():
            # The loop itself holds tasks weakly.
            _unfinished.add(task)
            task.add_done_callback(_unfinished.discard)


def _started(
    loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, None]
) -> asyncio.Task[None]:
    """A task that is at work already, where Python can: a turn of the loop less."""
    if sys.version_info >= (3, 12) and loop.get_task_factory() is None:
        return asyncio.eager_task_factory(loop, work)
    return loop.create_task(work)


async def ended_with_caller(work: Awaitable[T]) -> T:
    """Await ``work``; if the caller is cancelled meanwhile, so is ``work``, until it has ended.

    Once may not be enough: before Python 3.12 ``asyncio.wait_for``, with which PyMongo sends,
    forgets a cancellation that comes with the answer. What never ends by itself would go on.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await completed(_end(task))
        raise


async def settled() -> None:
    """Wait for what goes on without its caller, of all that runs in this event loop."""
    loop = asyncio.get_running_loop()
    tasks = [task for task in _unfinished if task.get_loop() is loop]
    await asyncio.gather(*tasks, return_exceptions=True)


async def _end(task: asyncio.Future[Any]) -> None:
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=_AGAIN_SECONDS)
    # Looked at, so that nobody misses it.
    await asyncio.gather(task, return_exceptions=True)


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
