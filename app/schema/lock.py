"""One migrator at a time: a lock in the database that a crashed one cannot keep."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError, PyMongoError

from ...migrations._log import log_of
from ...models.retention import SERVER_NOW
from ..concurrency.cancellation import cancel_and_wait, completed
from ..database.deadlines import started_without_deadline
from ..database.driver import Database
from ..errors import MigrationLockLostError

LOCK_ID = "lock"
LEASE_SECONDS = 15.0
"""How long a migrator that crashed keeps the others waiting. A live one renews its lease."""

_POLL_SECONDS = 0.25


class MigrationLock:
    """The right to run scripts on a database, as long as its lease is renewed in time.

    All of it is judged by the server's clock, for those of two hosts may differ by more than a
    lease.
    """

    def __init__(self, database: Database, lease: float) -> None:
        self._log = log_of(database)
        self._lease = lease
        self._owner = uuid.uuid4().hex

    @asynccontextmanager
    async def held(self, announce: Callable[[str], None]) -> AsyncGenerator[None]:
        """Wait until no other migrator holds the lock, and hold it inside.

        ``announce`` is told whom it waits for.
        """
        await self._take(announce)
        renewing = asyncio.create_task(self._keep_renewing())
        try:
            yield
        finally:
            await cancel_and_wait(renewing)
            # Else the next one waits the lease out. That also happens if this fails.
            with contextlib.suppress(PyMongoError):
                await completed(self._release(), "release the lock of migrations")

    async def confirm(self) -> None:
        """Renew the lease now.

        Raises:
            MigrationLockLostError: it ran out before, and another migrator took over.
        """
        if not await self._renew():
            holder = await self._log.find_one({"_id": LOCK_ID})
            raise MigrationLockLostError(
                "Another process took over the migration"
                + (f" ({_named(holder)})" if holder else "")
                + f", for this one was silent for longer than its lease of {self._lease:g} s (a "
                "paused machine, or a server out of reach). What it did so far is kept, and it "
                "stopped before the next step. Check with 'session-store schema status' that "
                "the other one finished; running the upgrade again is safe."
            )

    async def _take(self, announce: Callable[[str], None]) -> None:
        said = ""
        while True:
            holder = await self._try_to_take()
            if holder is not None and holder["owner"] == self._owner:
                return
            if holder is not None and _named(holder) != said:
                said = _named(holder)
                announce(f"waiting for the migration that {said} runs")
            await asyncio.sleep(_POLL_SECONDS)

    async def _try_to_take(self) -> dict[str, Any] | None:
        """Take the lock if it is free; return it as it is then, whoever holds it."""
        mine = {
            "_id": LOCK_ID,
            "owner": self._owner,
            "host": {"$literal": socket.gethostname()},
            "pid": os.getpid(),
            "since": "$$NOW",
            "expires_at": self._lease_end(),
        }
        # A missing date is before every other. (The server takes no $expr in an upsert's query,
        # so the condition is part of the update.)
        is_free = {"$lte": ["$expires_at", SERVER_NOW]}
        take = [{"$replaceWith": {"$cond": [is_free, mine, "$$ROOT"]}}]
        try:
            return await self._log.find_one_and_update(
                {"_id": LOCK_ID}, take, upsert=True, return_document=ReturnDocument.AFTER
            )
        except DuplicateKeyError:
            # Two found no lock at once, and the other made it.
            return None

    async def _renew(self) -> bool:
        renewed = await self._log.update_one(
            {"_id": LOCK_ID, "owner": self._owner}, [{"$set": {"expires_at": self._lease_end()}}]
        )
        return renewed.matched_count == 1

    async def _keep_renewing(self) -> None:
        # What is lost in the end is noticed by confirm(), before the next step.
        while True:
            started = monotonic()
            with contextlib.suppress(PyMongoError):
                if not await self._renew():
                    return
            await asyncio.sleep(max(0.0, self._lease / 3 - (monotonic() - started)))

    async def _release(self) -> None:
        await started_without_deadline(self._let_go())

    async def _let_go(self) -> None:
        await self._log.delete_one({"_id": LOCK_ID, "owner": self._owner})

    def _lease_end(self) -> dict[str, Any]:
        return {"$add": ["$$NOW", int(self._lease * 1000)]}


def _named(holder: dict[str, Any]) -> str:
    return f"process {holder.get('pid')} on {holder.get('host')}"
