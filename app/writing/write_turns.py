"""The order of one process's own writes to a session."""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType

from ..concurrency import forks
from ..errors import EventLoopError
from ..transcript_key import TranscriptKey

_Waiting = dict[TranscriptKey, deque[asyncio.Future[None]]]


class WriteTurns:
    """Lets the writes of one store to one session through one by one, in the order of the calls.

    Correctness among writers needs no lock: the compare-and-swap gives it. But the calls of one
    store would otherwise beat each other, and be stored in another order than they were made in.
    """

    def __init__(self) -> None:
        self._waiting: _Waiting = {}
        """Who waits for its turn, by the sessions that are being written to."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._forks = 0

    def turn(self, key: TranscriptKey) -> Slot:
        """``async with`` waits for the turn of this call for the key's session, and holds it.

        It enters with whether the turn came without waiting.

        Raises:
            EventLoopError: the store is used by another event loop.
        """
        loop = asyncio.get_running_loop()
        # A fork may run the loop of its parent, whose writes never end here.
        if loop is not self._loop or self._forks != forks.count:
            self._move(loop)
        return Slot(self._waiting, key.session)

    def _move(self, loop: asyncio.AbstractEventLoop) -> None:
        before = self._loop
        if (
            before is not None
            and not before.is_closed()
            and self._forks == forks.count
            # Whoever waited would never be woken: that takes the loop that gave the turn before.
            and (before.is_running() or self._waiting)
        ):
            raise EventLoopError(
                "The session store is used by another event loop, in another thread or of another "
                "run_until_complete(); nothing was read or written. Make a store for each event "
                "loop, on a client of its own."
            )
        # What a closed loop or a parent left is never taken up again.
        self._waiting = {}
        self._loop, self._forks = loop, forks.count


class Slot:
    """One call's turn.

    Every append takes one, nearly always at once, so it is neither a generator nor a lock: these
    took a twentieth of an append's processor time.
    """

    __slots__ = ("_session", "_waiting")

    def __init__(self, waiting: _Waiting, session: TranscriptKey) -> None:
        self._waiting = waiting
        self._session = session

    async def __aenter__(self) -> bool:
        before = self._waiting.get(self._session)
        if before is None:
            self._waiting[self._session] = deque()
            return True
        turn = asyncio.get_running_loop().create_future()
        before.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            # It may have come together with the turn.
            if not turn.cancelled():
                self._pass_on()
            raise
        return False

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._pass_on()

    def _pass_on(self) -> None:
        waiting = self._waiting[self._session]
        while waiting:
            turn = waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        del self._waiting[self._session]
