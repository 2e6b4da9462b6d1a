"""The order of one process's own writes to a session."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from .key import TranscriptKey


class Turns:
    """Lets the writes of one store to one session through one by one, in the order of the calls.

    Correctness among writers needs no lock: the compare-and-swap gives it. But the calls of one
    store would otherwise beat each other, and be stored in another order than they were made in.
    """

    def __init__(self) -> None:
        self._locks: dict[TranscriptKey, tuple[asyncio.Lock, int]] = {}

    @asynccontextmanager
    async def turn(self, key: TranscriptKey) -> AsyncGenerator[None]:
        """Wait for the turn of this call for the key's session, and hold it."""
        session = key.session
        lock, waiting = self._locks.get(session) or (asyncio.Lock(), 0)
        self._locks[session] = (lock, waiting + 1)
        try:
            async with lock:
                yield
        finally:
            lock, waiting = self._locks[session]
            if waiting == 1:
                del self._locks[session]
            else:
                self._locks[session] = (lock, waiting - 1)
