"""A lease while it is held: renewed in the background, and lost or given back in the end."""

from __future__ import annotations

import asyncio
import inspect
import logging
import random
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from time import monotonic
from typing import Any

import pymongo
from bson import ObjectId
from pymongo.errors import PyMongoError

from ..concurrency.cancellation import completed, ended
from ..database.abandoned import end_abandoned
from ..database.deadlines import started_without_deadline
from ..database.driver import ClientSession
from ..database.failures import NOT_KNOWN, reported
from ..database.server import steady_seconds
from ..database.transactions import DoneInPartError, TransientFailureError
from ..errors import LeaseLostError, SessionBusyError, SessionStoreError
from ..instruments.operations import counted
from ..storage.codec import EncodedEntry
from ..storage.connection import Connection
from ..text import line
from ..transcript_key import TranscriptKey
from ..writing.summary_update import SummaryUpdate
from ..writing.write_policy import WritePolicy
from ..writing.write_turns import WriteTurns
from .grants import Grant, Holder, fence_of, give_back, holder_of, renew, take
from .lease import Lease, WantedLease

logger = logging.getLogger("beanie_session_store.leases")

_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 1.0
# A renewal that failed is tried again while the lease lasts.
_RETRY_SECONDS = 0.25
_LONGEST_RENEWAL_SECONDS = 30.0
# A lease that cannot be given back ends by itself.
_GIVE_BACK_SECONDS = 5.0


class HeldLease(WritePolicy):
    """What is written under it is written as long as it holds, and not after.

    Its end is judged by the server, in each claim of an append; by this process's own clock it is
    over a little earlier, so what was frozen hears of it before it asks.
    """

    def __init__(
        self, connection: Connection, key: TranscriptKey, wanted: WantedLease, grant: ObjectId
    ) -> None:
        self.fence: Mapping[str, Any] = fence_of(grant)
        self.lost = asyncio.Event()
        self._connection = connection
        self._key = key
        self._wanted = wanted
        self._id = grant
        self._grant: Grant | None = None
        self._is_given_up = False
        self._reason = ""
        """Why nothing may be written any more, once that is so."""
        self._telling: asyncio.Task[None] | None = None

    @property
    def lease(self) -> Lease:
        """It, as it was taken or renewed last."""
        assert self._grant is not None
        return self._grant.lease

    def require(self) -> None:
        """Refuse to go on under a lease that has ended.

        Raises:
            LeaseLostError: it has.
        """
        if not self._reason and self._is_over():
            self._lose(_NOT_RENEWED)
        if self._reason:
            raise LeaseLostError(
                f"Nothing is written to {self._key} under the lease of {line(self._wanted.owner)} "
                f"any more: {self._reason}. What was appended before is stored. Take a new lease, "
                "and load the session anew before you go on."
            )

    async def confirm(self, connection: Connection, key: TranscriptKey) -> None:
        """As of every policy: lost where the session has another lease by now, or none."""
        self.require()
        holder = await holder_of(connection, key)
        if holder is None or holder.grant != self._id:
            self._lose(_reason(holder))
            self.require()

    def begin(
        self, connection: Connection, batch: Sequence[EncodedEntry], update: SummaryUpdate
    ) -> Connection:
        """As of every policy: nothing is begun under a lease that has ended."""
        self.require()
        return connection

    async def stored(
        self,
        connection: Connection,
        key: TranscriptKey,
        batch: Sequence[EncodedEntry],
        update: SummaryUpdate,
        session: ClientSession | None,
    ) -> None:
        """As of every policy: what was frozen since its claim is not committed."""
        if session is not None:
            self.require()

    async def take(self) -> Lease | None:
        """Take it, or say who has the session. Where the caller is cancelled, it is given back."""
        try:
            doing = ("take the lease of", self._key)
            return await completed(self._take(), *doing)
        except asyncio.CancelledError:
            self._is_given_up = True
            if self._grant is not None:
                await completed(self._give_back(), "give back the lease of", self._key)
            raise

    async def _take(self) -> Lease | None:
        wanted = self._wanted
        taken = await take(self._connection, self._key, self._id, wanted.owner, wanted.ttl)
        if isinstance(taken, Lease):
            return taken
        if self._is_given_up:
            await self._give_back()
        self._grant = taken
        return None

    async def keep(self) -> None:
        """Renew it again and again, and return when it is lost."""
        pause = period = self._wanted.ttl.total_seconds() / 3
        # However long a server takes to answer: another one may be asked in time.
        limit = min(period, _LONGEST_RENEWAL_SECONDS)
        while True:
            await asyncio.sleep(pause)
            if self._is_over():
                return self._lose(_NOT_RENEWED)
            try:
                with pymongo.timeout(limit):
                    renewed = await renew(self._connection, self._key, self._id, self._wanted.ttl)
            except Exception as error:
                # An election, say. As long as it lasts, there is time to try again.
                logger.info("Could not renew the lease of %s: %s", self._key, type(error).__name__)
                pause = min(_RETRY_SECONDS, period)
                continue
            if renewed is None:
                return self._lose(_reason(await self._next_holder()))
            self._grant = renewed
            pause = period

    async def end(self, turns: WriteTurns, keeping: asyncio.Task[None]) -> None:
        """Give it back, unless it is lost, behind what is under way; nothing of it goes on."""
        # An append whose caller was cancelled may still need it.
        async with turns.turn(self._key):
            keeping.cancel()
            if not self._reason:
                self._reason = _GIVEN_BACK
                await self._give_back()
        if self._telling is not None:
            await ended({self._telling: ("tell of the lost lease of", self._key)})

    async def _give_back(self) -> None:
        await started_without_deadline(self._try_to_give_back())

    async def _try_to_give_back(self) -> None:
        try:
            with pymongo.timeout(_GIVE_BACK_SECONDS):
                await give_back(self._connection, self._key, self._id)
        except (PyMongoError, SessionStoreError, TransientFailureError, DoneInPartError) as error:
            logger.info(
                "Could not give back the lease of %s, which ends by itself: %s",
                self._key,
                type(error).__name__,
            )

    def _is_over(self) -> bool:
        return self._grant is not None and steady_seconds() >= self._grant.ends_at

    def _lose(self, reason: str) -> None:
        """Say once that it is lost."""
        if self._reason:
            return
        self._reason = reason
        self.lost.set()
        counted("leases.lost")
        logger.warning("The lease of %s was lost: %s.", self._key, reason)
        if self._wanted.on_lost is not None:
            # By itself: it may wait for the agent, which may wait for the append that fails.
            self._telling = started_without_deadline(self._tell())

    async def _tell(self) -> None:
        on_lost = self._wanted.on_lost
        assert on_lost is not None
        try:
            outcome = on_lost()
            if inspect.isawaitable(outcome):
                await outcome
        except Exception:
            logger.exception("The on_lost function of a lease of %s failed.", self._key)

    async def _next_holder(self) -> Holder | None:
        """Who has it now, for what is said; not worth an error."""
        try:
            with pymongo.timeout(_GIVE_BACK_SECONDS):
                return await holder_of(self._connection, self._key)
        except Exception:
            return None


_NOT_RENEWED = (
    "it could not be renewed before its end, for this process stood still, or no server answered"
)
_GIVEN_BACK = "its block has ended, and it was given back"


def _reason(holder: Holder | None) -> str:
    if holder is None:
        return (
            "it was ended before its time, by an operator or because the session was deleted or "
            "has expired, or it was not renewed in time"
        )
    return f"{line(holder.lease.owner)} has held the session since {_stamp(holder.lease.since)}"


@asynccontextmanager
async def held_lease(
    connection: Connection, key: TranscriptKey, wanted: WantedLease, turns: WriteTurns
) -> AsyncGenerator[HeldLease]:
    """Take a lease and keep it inside.

    Raises:
        SessionBusyError: somebody else has it, until the time to wait was over.
        SessionStoreError: it could not be taken.
    """
    held = HeldLease(connection, key, wanted, ObjectId())
    with reported(connection.client, "take the lease of", key, unanswered=NOT_KNOWN):
        await _wait_for(held, connection, key, wanted.wait)
    keeping = started_without_deadline(held.keep())
    try:
        yield held
    finally:
        await completed(held.end(turns, keeping), "give back the lease of", key)


async def _wait_for(
    held: HeldLease, connection: Connection, key: TranscriptKey, wait: timedelta | None
) -> None:
    began = monotonic()
    end = began + (0 if wait is None else wait.total_seconds())
    longest = _FIRST_PAUSE_SECONDS
    most = timedelta(0)
    while True:
        lease = await held.take()
        if lease is None:
            return
        left = end - monotonic()
        if left <= 0:
            raise SessionBusyError(
                f"The {key} is held by {line(lease.owner)} until {_stamp(lease.until)}, or longer "
                "if that one renews it; no lease was taken. Wait for it with "
                "wait=timedelta(...), or try again later; if its holder is gone for good, "
                "'session-store lease break' ends it.",
                owner=lease.owner,
                until=lease.until,
            )
        rest = lease.until - connection.server.now()
        most = max(most, rest)
        if rest < most / 2:
            # It was not renewed when it should have been. The transaction of a dead holder has to
            # stand still for some time before it can be ended, which begins now.
            await end_abandoned(connection.client, monotonic() - began)
        # Those who wait for one session would else ask all at once.
        await asyncio.sleep(min(left, random.uniform(longest / 2, longest)))
        longest = min(longest * 2, _LONGEST_PAUSE_SECONDS)


def _stamp(moment: Any) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
