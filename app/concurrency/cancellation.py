"""What becomes of an operation whose caller is cancelled: it goes on to its end, or surely ends."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Coroutine, Mapping
from typing import Any, TypeVar

T = TypeVar("T")

SETTLE_SECONDS = 10.0
"""How long ends wait for what is under way: what orchestrators grant a process is not much more."""

# Long enough to close what is open, for a second cancellation would cut that off.
_AGAIN_SECONDS = 2.0

Work = Mapping["asyncio.Task[None]", tuple[object, ...]]
"""Operations under way, each with what it does in words."""

_under_way: dict[asyncio.Task[None], tuple[object, ...]] = {}


async def completed(work: Coroutine[Any, Any, T], *doing: object) -> T:
    """Await ``work``; if the caller is cancelled meanwhile, ``work`` goes on without it.

    A write that is cut off in the middle leaves an open transaction, which blocks the session's
    other writers; and a cancel scope goes on cancelling whatever its task awaits, so that the
    write itself could not even roll back. ``doing`` says in words what it is, such as
    ``"append to", key``.
    """
    loop = asyncio.get_running_loop()
    # Unlike a shielded task it wakes the caller at once, without a turn of the loop in between.
    outcome: asyncio.Future[T] = loop.create_future()
    task = _started(loop, _settle(outcome, work))
    # It also keeps the task, which the loop itself holds weakly.
    _under_way[task] = doing
    try:
        return await outcome
    finally:
        if task.done():
            del _under_way[task]
        else:
            task.add_done_callback(_under_way.pop)


def _started(
    loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, None]
) -> asyncio.Task[None]:
    """A task that is at work already, where Python can: a turn of the loop less."""
    if sys.version_info >= (3, 12) and loop.get_task_factory() is None:
        return asyncio.eager_task_factory(loop, work)
    return loop.create_task(work)


async def ended_with_caller(work: Awaitable[T]) -> T:
    """Await ``work``; if the caller is cancelled meanwhile, so is ``work``, until it has ended."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await completed(cancel_and_wait(task), "end a read")
        raise


async def cancel_and_wait(*tasks: asyncio.Future[Any]) -> list[Any]:
    """Cancel tasks until all have ended; what each returned or raised.

    Once may not be enough: before Python 3.12 ``asyncio.wait_for``, with which PyMongo sends,
    forgets a cancellation that comes with the answer. What never ends by itself would go on.
    """
    while pending := [task for task in tasks if not task.done()]:
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=_AGAIN_SECONDS)
    return await asyncio.gather(*tasks, return_exceptions=True)


async def settled(timeout: float = SETTLE_SECONDS) -> list[str]:
    """Wait until the stores have ended what they do in this event loop, before its client closes.

    A cancelled ``append`` goes on without its caller, and so may any other write. Call this when
    an application ends, before it closes the client that its stores use; ``connect`` does so
    itself. Nothing is cancelled: what is begun meanwhile is waited for too.

    Args:
        timeout: seconds to wait at most.

    Returns:
        What was still under way when time ran out, such as ``"append to session s1 of ..."``;
        nothing is left of it unless it is committed before the client closes.

    Raises:
        ValueError: the timeout is no number of seconds.
    """
    # Booleans and NaN are none either.
    if type(timeout) not in (int, float) or not timeout >= 0:
        raise ValueError(f"timeout must be a number of seconds from 0 on, not {timeout!r:.60}.")
    end = time.monotonic() + timeout
    while work := under_way():
        left = end - time.monotonic()
        _, pending = await asyncio.wait(work, timeout=max(left, 0))
        if pending and left <= 0:
            return [" ".join(map(str, work[task])) for task in pending]
    return []


def under_way() -> Work:
    """What goes on in this event loop, with or without its caller."""
    loop = asyncio.get_running_loop()
    return {task: doing for task, doing in list(_under_way.items()) if task.get_loop() is loop}


async def ended(work: Work, timeout: float = SETTLE_SECONDS) -> None:
    """Wait for work to end; what has not ended in time is cut off, and rolls back."""
    if not work:
        return
    try:
        await asyncio.wait(work, timeout=timeout)
    finally:
        pending = [task for task in work if not task.done()]
        for task in pending:
            task.cancel()
        if pending:
            await asyncio.wait(pending, timeout=_AGAIN_SECONDS)


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
