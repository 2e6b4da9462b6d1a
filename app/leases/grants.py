"""Leases in the database: each is one grant, which stands in the summary of its session.

All times are of the server's clock, by which alone it is judged whether a lease has ended. A grant
has an id of its own, so a lease that was lost is never taken for a later one of the same owner.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from typing import Any, NamedTuple

from bson import ObjectId
from bson.int64 import Int64
from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError, ExecutionTimeout

from ...models.retention import NOT_EXPIRED
from ..database.abandoned import end_abandoned
from ..database.attempts import Attempts
from ..database.documents import Row, joined
from ..database.driver import Record
from ..database.reads import retried
from ..database.server import steady_seconds
from ..errors import ContentionError
from ..storage.connection import Connection
from ..storage.criteria import DELETED, EXPIRED, LEASED
from ..transcript_key import TranscriptKey
from ..writing.dating import DatedRow
from ..writing.deletion import delete_session
from ..writing.sound_state import sound_state
from .lease import Lease

# How long the server may try, where a transaction has the summary, before it is looked whether that
# is a dead writer's.
_FIRST_MS = 1000
_LONGEST_MS = 2000


class Grant(NamedTuple):
    """A lease that is held, as this process knows it."""

    lease: Lease
    ends_at: float
    """Up to when it holds for sure, by the steady clock: it was asked for so long before."""


class Holder(NamedTuple):
    """A lease that is held, as the database knows it."""

    grant: object
    lease: Lease


class _LeaseRow(Row):
    lease: Any = None


def fence_of(grant: ObjectId) -> dict[str, Any]:
    """What the summary of a session meets as long as a grant holds."""
    return {"lease.grant": grant, **LEASED}


async def take(
    connection: Connection, key: TranscriptKey, grant: ObjectId, owner: str, ttl: timedelta
) -> Grant | Lease:
    """Take the lease of a session, or say who has it; the same ``grant`` may come again.

    A session that is not there gets a mark, as a deleted one has while it is swept: readers take
    it for gone, and whoever writes first begins behind it. One that only lost its summary gets it
    back first.

    Raises:
        ContentionError: a transaction had the summary all the time.
        UnsoundSessionError: there are entries without a summary, and whether they were deleted
            cannot be told; nothing was changed.
    """
    attempts = Attempts()
    limit_ms = _FIRST_MS
    sent = 0.0

    async def attempt(next_seq: int | None = None) -> Record | None:
        nonlocal sent
        sent = steady_seconds()
        # The driver's own, for Beanie returns no document of an update in a pipeline.
        return await connection.summaries.collection.find_one_and_update(
            key.of_session,
            _taking(grant, owner, ttl, next_seq or 1),
            {"lease": 1, "expires_at": 1},
            upsert=next_seq is not None,
            return_document=ReturnDocument.AFTER,
            maxTimeMS=limit_ms,
        )

    while True:
        try:
            row = await retried(connection.client, attempt)
            if row is None:
                # A mark beside entries that live would make readers take them for gone.
                state = await sound_state(connection, key)
                next_seq = 1 if state is None else state.next_seq
                row = await retried(connection.client, partial(attempt, next_seq))
            assert row is not None
        except DuplicateKeyError:
            # Two found no summary at once, and the other made it.
            pass
        except ExecutionTimeout:
            await end_abandoned(connection.client, attempts.elapsed)
            limit_ms = min(2 * limit_ms, _LONGEST_MS)
        else:
            lease = Lease.of(row.get("lease"))
            if lease is not None and row["lease"].get("grant") == grant:
                return Grant(lease, sent + ttl.total_seconds())
            may_be_over = row.get("expires_at") not in (None, DELETED)
            is_over = may_be_over and await _end_expired(connection, key)
            if lease is not None and not is_over:
                return lease
        if not await attempts.pause():
            raise ContentionError(
                f"Could not take the lease of {key}: others write to it all the time, or a "
                "transaction has its summary; no lease was taken. Try again."
            )


async def _end_expired(connection: Connection, key: TranscriptKey) -> bool:
    """Delete a session that has expired and that nobody holds, and return whether it was so."""
    is_over = joined((EXPIRED, {"$nor": [LEASED]}, {"expires_at": {"$ne": DELETED}}))
    gone = await connection.summaries.find_one(key.of_session, is_over, rows=DatedRow)
    if gone is None:
        return False
    await delete_session(connection, key, unless=lambda now: now.id != gone.id)
    return True


async def renew(
    connection: Connection, key: TranscriptKey, grant: ObjectId, ttl: timedelta
) -> Grant | None:
    """Let a lease last from now on; ``None`` where it has ended, whoever has the next one."""
    sent = steady_seconds()
    row: Mapping[str, Any] | None = await connection.summaries.collection.find_one_and_update(
        joined((key.of_session, fence_of(grant))),
        [{"$set": {"lease.until": _end(ttl)}}],
        {"lease": 1},
        return_document=ReturnDocument.AFTER,
    )
    lease = None if row is None else Lease.of(row["lease"])
    return None if lease is None else Grant(lease, sent + ttl.total_seconds())


async def holder_of(connection: Connection, key: TranscriptKey) -> Holder | None:
    """Who holds a session, if anybody does."""
    summaries = connection.summaries.confirmed

    async def attempt() -> _LeaseRow | None:
        return await summaries.find_one(key.of_session, LEASED, rows=_LeaseRow)

    row = await retried(connection.client, attempt)
    lease = None if row is None else Lease.of(row.lease)
    if row is None or lease is None:
        return None
    return Holder(row.lease.get("grant"), lease)


async def give_back(connection: Connection, key: TranscriptKey, grant: ObjectId) -> None:
    """End a lease, if it still is this one."""
    await _end_lease(connection, key, {"lease.grant": grant})


async def break_lease(
    connection: Connection, key: TranscriptKey, lease: Lease | None
) -> Lease | None:
    """End a lease, whosever it is, or only a certain one, and return it; ``None`` without one."""
    which: dict[str, Any] = {}
    if lease is not None:
        which = {"lease.owner": lease.owner, "lease.since": lease.since}
    return await _end_lease(connection, key, {**LEASED, **which})


async def _end_lease(
    connection: Connection, key: TranscriptKey, which: Mapping[str, Any]
) -> Lease | None:
    row: Mapping[str, Any] | None = await connection.summaries.collection.find_one_and_update(
        joined((key.of_session, which)), {"$unset": {"lease": ""}}, {"lease": 1, "expires_at": 1}
    )
    if row is None:
        return None
    if row.get("expires_at") == DELETED:
        # Nothing was written, and the mark is of no more use.
        await delete_session(connection, key, unless=lambda _: True)
    return Lease.of(row["lease"])


def _taking(grant: ObjectId, owner: str, ttl: timedelta, next_seq: int) -> list[dict[str, Any]]:
    lease = {
        "owner": {"$literal": owner},
        "grant": grant,
        "since": "$$NOW",
        "until": _end(ttl),
    }
    is_free = {"$not": [LEASED["$expr"]]}
    is_gone = {"$eq": ["$expires_at", DELETED]}
    # What has expired is swept first, for MongoDB may take its summary, and a lease in it.
    may_take = {
        "$or": [
            {"$eq": ["$lease.grant", grant]},
            {"$and": [is_free, {"$or": [is_gone, NOT_EXPIRED["$expr"]]}]},
        ]
    }
    # The server takes no $expr in an upsert's query, so the conditions are part of the update.
    is_made = {"$eq": [{"$type": "$_id"}, "missing"]}
    mark = {
        "_id": ObjectId(),
        "next_seq": Int64(next_seq),
        "first_seq": Int64(next_seq),
        "created_at": "$$NOW",
        "expires_at": DELETED,
        # No deletion made it, so no sweep takes what may come beside it.
        "remains": False,
    }
    return [
        {"$set": {"lease": {"$cond": [may_take, lease, "$lease"]}}},
        {"$replaceWith": {"$cond": [is_made, {"$mergeObjects": ["$$ROOT", mark]}, "$$ROOT"]}},
    ]


def _end(ttl: timedelta) -> dict[str, Any]:
    return {"$add": ["$$NOW", Int64(ttl.total_seconds() * 1000)]}
