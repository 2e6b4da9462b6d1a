"""How long, and at what pace, one operation is tried again."""

from __future__ import annotations

import asyncio
import random
import time

# More than an election takes. The last try may wait another 30 s for a server, and the SDK drops
# a batch without trying again when a call takes 60 s.
_SECONDS = 25.0
_FIRST_PAUSE_SECONDS = 0.002
_LONGEST_PAUSE_SECONDS = 0.2

STEADY_SECONDS = 5.0
"""What fails after this long is new trouble, with the whole time to get over it."""


class Attempts:
    """The time budget of one operation, with growing, jittered pauses between its tries."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._seconds = _SECONDS
        self._longest = _FIRST_PAUSE_SECONDS

    @property
    def elapsed(self) -> float:
        """Seconds since the operation began."""
        return time.monotonic() - self._start

    async def pause(self) -> bool:
        """Wait a little and return ``True``, or return ``False`` once the time is used up."""
        if self.elapsed >= self._seconds:
            return False
        # Writers that collided once would otherwise collide again at the same pace.
        await asyncio.sleep(random.uniform(0, self._longest))
        self._longest = min(self._longest * 2, _LONGEST_PAUSE_SECONDS)
        return True
