"""The order of one process's own writes to a session."""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType

from .key import TranscriptKey

_Waiting = dict[TranscriptKey, deque[asyncio.Future[None]]]


class Turns:
    """Lets the writes of one store to one session through one by one, in the order of the calls.

    Correctness among writers needs no lock: the compare-and-swap gives it. But the calls of one
    store would otherwise beat each other, and be stored in another order than they were made in.
    """

    def __init__(self) -> None:
        self._waiting: _Waiting = {}
        """Who waits for its turn, by the sessions that are being written to."""

    def turn(self, key: TranscriptKey) -> Turn:
        """``async with`` waits for the turn of this call for the key's session, and holds it."""
        return Turn(self._waiting, key.session)


class Turn:
    """One call's turn.

    Every append takes one, nearly always at once, so it is neither a generator nor a lock: these
    took a twentieth of an append's processor time.
    """

    __slots__ = ("_session", "_waiting")

    def __init__(self, waiting: _Waiting, session: TranscriptKey) -> None:
        self._waiting = waiting
        self._session = session

    async def __aenter__(self) -> None:
        before = self._waiting.get(self._session)
        if before is None:
            self._waiting[self._session] = deque()
            return
        turn = asyncio.get_running_loop().create_future()
        before.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            # It may have come together with the turn.
            if not turn.cancelled():
                self._pass_on()
            raise

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
