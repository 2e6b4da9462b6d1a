"""Moving the dates of a session's entries after its summary, in batches that do not grow.

Each batch is a transaction of its own that ends with the summary, which says whither the entries
are on their way and how far they are: a mover that was overtaken by another decision fails there.
So any number of them may work at once, and whoever comes next goes on where one was killed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime
from time import monotonic
from typing import Any

from bson.int64 import Int64

from .attempts import Attempts
from .backstop import FAR, Dated
from .connection import Connection
from .criteria import NOT_EXPIRED
from .driver import ClientSession, with_confirmed_reads
from .errors import ContentionError, UnknownSessionError
from .expiry import Retention, read_retention
from .key import TranscriptKey
from .stored_times import last_active
from .transactions import TransientFailureError, transact

_BATCH = 200
_SMALLEST_BATCH = 20

# The rest of the time is for others.
_SHARE = 0.25

DATED_FIELDS: dict[str, Any] = dict.fromkeys(
    (
        *("tenant", "project_key", "session_id", "next_seq", "first_seq", "remains"),
        *("expires_at", "held_at", "released_at", "backstop", "moved_through"),
        *("active_at", "mtime", "created_at"),
    ),
    1,
)
"""Projection of a summary to what its dates depend on."""

Row = Mapping[str, Any]
Change = Callable[[Row, Retention], "tuple[Dated, dict[str, Any]] | None"]
"""The dates that a session is to have, with further fields; ``None`` leaves it as it is."""


def dated_of(row: Row) -> Dated:
    """The dates that a summary has; what is none counts as absent."""
    expires_at, next_seq = row.get("expires_at"), row.get("next_seq")
    return Dated(
        expires_at if isinstance(expires_at, datetime) else None,
        row.get("held_at"),
        row.get("backstop"),
        next_seq if isinstance(next_seq, int) else 1,
    )


def entries_of(row: Row) -> int:
    """How many entries a session has, or had before some were deleted."""
    next_seq = row.get("next_seq")
    return next_seq - row.get("first_seq", 1) if isinstance(next_seq, int) else 0


def wanted_dates(row: Row, retention: Retention) -> tuple[datetime | None, datetime | None]:
    """The dates that a summary and its entries should have in the end."""
    if row.get("held_at") is not None:
        return None, None
    active_at = last_active(row)
    return retention.expiry(active_at), retention.backstop(active_at)


async def change_dates(connection: Connection, key: TranscriptKey, change: Change) -> Row | None:
    """Date a summary anew, whoever appends meanwhile, and return it as it was; entries follow.

    Raises:
        UnknownSessionError: there is no such session, or it has expired.
        ContentionError: it was written to all the time.
    """
    attempts = Attempts()
    while True:
        row = await _row(connection, key)
        if row is None:
            raise UnknownSessionError(
                f"There is no {key}; nothing was changed. Check tenant, project key and session id."
            )
        retention = await read_retention(connection.documents.policies, key.tenant, key.project_key)
        becomes = change(row, retention)
        if becomes is None:
            return None
        dated, fields = becomes
        if await _put(connection, key, row, dated, fields):
            return row
        if not await attempts.pause():
            raise _contended(key)


async def follow(connection: Connection, key: TranscriptKey) -> None:
    """Give a session's entries the dates that belong to its summary's, and then finish that.

    Raises:
        ContentionError: it was written to all the time.
        TransientFailureError: the server was away for too long.
    """
    attempts = Attempts()
    size = _BATCH
    while True:
        row = await _row(connection, key)
        if row is None:
            return
        retention = await read_retention(connection.documents.policies, key.tenant, key.project_key)
        dated = dated_of(row)
        wanted, to = wanted_dates(row, retention)
        if _is_astray(dated, to, retention):
            is_done = await _put(connection, key, row, dated.announced(to), {})
        elif not dated.is_moving:
            return
        elif (through := _through(row)) < dated.next_seq - 1:
            began = monotonic()
            is_done = await _move(connection, key, row, through, size, attempts)
            size = min(size * 2, _BATCH) if is_done else max(size // 2, _SMALLEST_BATCH)
            if is_done:
                # As long as it goes on, there is no reason to give up.
                attempts = Attempts()
                await asyncio.sleep((monotonic() - began) * (1 / _SHARE - 1))
        else:
            is_done = await _put(connection, key, row, _finished(dated, wanted), {})
        if not is_done and not await attempts.pause():
            raise _contended(key)


def _is_astray(dated: Dated, to: datetime | None, retention: Retention) -> bool:
    """Whether entries are on no way, or on a wrong one."""
    if dated.is_foreign:
        return True
    date, aim = dated.entry_date, dated.aim(to)
    return retention.is_short(date, aim) or retention.is_long(date, aim)


def _through(row: Row) -> int:
    through: int | None = row.get("moved_through")
    return row.get("first_seq", 1) - 1 if through is None else through


def _finished(dated: Dated, wanted: datetime | None) -> Dated:
    """The dates of a session whose entries have all arrived."""
    assert dated.backstop is not None
    to: datetime | None = dated.backstop["to"]
    if to is None:
        return dated._replace(expires_at=None, backstop=None)
    if to == FAR:
        return dated._replace(expires_at=None).announced(None)
    backstop = {"until": to, "next_seq": dated.backstop["next_seq"]}
    date = to if wanted is None else min(wanted, to)
    return dated._replace(expires_at=date, backstop=backstop)


async def _row(connection: Connection, key: TranscriptKey) -> dict[str, Any] | None:
    # What is said to have its dates already must have them for good.
    summaries = with_confirmed_reads(connection.summaries)
    return await summaries.find_one({**key.session_filter(), **NOT_EXPIRED}, DATED_FIELDS)


async def _put(
    connection: Connection, key: TranscriptKey, row: Row, dated: Dated, fields: dict[str, Any]
) -> bool:
    """Change the dates of a summary if it still is as ``row`` has it."""
    values = {
        "expires_at": dated.expires_at,
        "held_at": dated.held_at,
        "backstop": dated.backstop,
        **fields,
    }
    if dated.backstop != row.get("backstop"):
        # Whoever was on another way has to begin anew.
        values["moved_through"] = None
    change: dict[str, Any] = {}
    if kept := {name: value for name, value in values.items() if value is not None}:
        change["$set"] = kept
    if gone := {name: "" for name, value in values.items() if value is None}:
        change["$unset"] = gone
    # How far the entries are is part of it: where the same way was taken up again meanwhile, some
    # may be elsewhere than they were when the row was read.
    names = ("_id", "next_seq", "active_at", "expires_at", "held_at", "backstop", "moved_through")
    query = {**key.session_filter(), **{name: row.get(name) for name in names}, **NOT_EXPIRED}
    result = await connection.summaries.update_one(query, change)
    return bool(result.matched_count)


async def _move(
    connection: Connection,
    key: TranscriptKey,
    row: Row,
    through: int,
    size: int,
    attempts: Attempts,
) -> bool:
    """Move the next entries with their chunks, unless they are to go elsewhere by now."""
    to: datetime | None = row["backstop"]["to"]
    change = {"$unset": {"expires_at": ""}} if to is None else {"$set": {"expires_at": to}}
    first = row.get("first_seq", 1)
    upto = min(through + size, dated_of(row).next_seq - 1)
    positions = {**key.session_filter(), "seq": {"$gt": through, "$lte": upto}}
    owner = {
        **key.session_filter(),
        "_id": row["_id"],
        "backstop.to": to,
        "moved_through": row.get("moved_through"),
    }
    if to is None:
        # Else it would also match where nothing is on its way.
        owner["backstop.to"] = {"$type": "null"}

    async def work(session: ClientSession | None) -> bool:
        if through < first:
            folds = {**key.session_filter(), "collection": connection.summaries.name}
            await connection.chunks.update_many(folds, change, session=session)
        await connection.entries.update_many(positions, change, session=session)
        chunks = {**positions, "collection": connection.entries.name}
        await connection.chunks.update_many(chunks, change, session=session)
        # Last, so that an append waits for next to nothing.
        moved = {"$set": {"moved_through": Int64(upto)}}
        result = await connection.summaries.update_one(owner, moved, session=session)
        if not result.matched_count:
            raise _OvertakenError
        return True

    try:
        return await transact(connection.client, connection.server, work, attempts)
    except (_OvertakenError, TransientFailureError):
        return False


class _OvertakenError(Exception):
    """The entries of a session are on another way than they were, or further on it."""


def _contended(key: TranscriptKey) -> ContentionError:
    return ContentionError(
        f"Could not date {key}: others write to it all the time; its entries keep the dates that "
        "they have, which are later than the session's. Whoever comes next goes on."
    )
