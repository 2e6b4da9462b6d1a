"""How long, and at what pace, one operation is tried again."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from pymongo import _csot
from pymongo.errors import PyMongoError

from ..instruments.operations import count_retry
from .overload import is_refused

T = TypeVar("T")

# More than an election takes. The last try may wait another 30 s for a server, and the SDK drops
# a batch without trying again when a call takes 60 s.
_SECONDS = 25.0
_FIRST_PAUSE_SECONDS = 0.002
_LONGEST_PAUSE_SECONDS = 0.2
# For a server that has said that it has too much to do.
_FIRST_LONG_PAUSE_SECONDS = 0.1
_LONGEST_LONG_PAUSE_SECONDS = 1.6

STEADY_SECONDS = 5.0
"""What fails after this long is new trouble, with the whole time to get over it."""


class Attempts:
    """The time budget of one operation, with growing, jittered pauses between its tries."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._seconds = _SECONDS
        self._longest = _FIRST_PAUSE_SECONDS
        self._limit = _LONGEST_PAUSE_SECONDS

    @property
    def elapsed(self) -> float:
        """Seconds since the operation began."""
        return time.monotonic() - self._start

    def heed(self, error: BaseException) -> None:
        """Take longer pauses from now on if a try failed because a server has too much to do."""
        if is_refused(error):
            self._longest = max(self._longest, _FIRST_LONG_PAUSE_SECONDS)
            self._limit = _LONGEST_LONG_PAUSE_SECONDS

    async def pause(self, error: BaseException | None = None) -> bool:
        """Wait a little and return ``True``, or return ``False`` once the time is used up.

        ``error`` is what the last try failed with, if it says anything of the server.
        """
        if error is not None:
            self.heed(error)
        left = callers_seconds()
        if self.elapsed >= self._seconds or (left is not None and left <= 0):
            return False
        # Writers that collided once would otherwise collide again at the same pace.
        await asyncio.sleep(random.uniform(0, self._longest))
        self._longest = min(self._longest * 2, self._limit)
        count_retry()
        return True


def callers_seconds() -> float | None:
    """What is left of the time that the caller gave by ``pymongo.timeout``, if it gave any.

    The driver offers it to nobody. Once it is used up, every command fails without being sent.
    """
    return _csot.remaining()


async def unless_refused(write: Callable[[], Awaitable[T]]) -> T:
    """Run one write outside of transactions, again where it :func:`.overload.is_refused`.

    Raises:
        PyMongoError: it failed otherwise, or was refused until the time was used up.
    """
    attempts = Attempts()
    while True:
        try:
            return await write()
        except PyMongoError as error:
            if not is_refused(error) or not await attempts.pause(error):
                raise
