"""Moving the dates of a session's entries after its summary, in batches that do not grow.

Each batch is a transaction of its own that ends with the summary, which says whither the entries
are on their way and how far they are: a mover that was overtaken by another decision fails there.
So any number of them may work at once, and whoever comes next goes on where one was killed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from time import monotonic
from typing import Any

from beanie.operators import Set, Unset
from bson.int64 import Int64
from pydantic import Field

from ...models.views.lenient import Position
from ..database.attempts import Attempts, unless_refused
from ..database.driver import ClientSession
from ..database.reads import retried
from ..database.transactions import TransientFailureError, transact
from ..errors import ContentionError, UnknownSessionError
from ..storage.backstop import FAR, Dated, backstop_in
from ..storage.connection import Connection
from ..storage.criteria import NOT_EXPIRED
from ..storage.expiry import Retention, read_retention
from ..storage.last_activity import ActiveRow
from ..transcript_key import TranscriptKey

_BATCH = 200
_SMALLEST_BATCH = 20

# The rest of the time is for others.
_SHARE = 0.25


class DatedRow(ActiveRow):
    """What the dates of a session depend on, as its summary has it."""

    id: Any = Field(default=None, alias="_id")
    next_seq: Any = None
    first_seq: Position = 1
    remains: Any = None
    removed: Any = None
    expires_at: Any = None
    held_at: Any = None
    backstop: Any = None
    moved_through: Any = None

    @property
    def dated(self) -> Dated:
        """Its dates; what is none counts as absent."""
        expires_at, next_seq = self.expires_at, self.next_seq
        return Dated(
            expires_at if isinstance(expires_at, datetime) else None,
            self.held_at,
            backstop_in(self.backstop),
            next_seq if isinstance(next_seq, int) else 1,
        )

    @property
    def entries(self) -> int:
        """How many entries the session has, or had before some were deleted."""
        return self.next_seq - self.first_seq if isinstance(self.next_seq, int) else 0

    @property
    def has_remains(self) -> bool:
        """Whether there is more of the session than its own entries, of any size."""
        return bool(self.remains or self.removed)

    def wanted(self, retention: Retention) -> tuple[datetime | None, datetime | None]:
        """The dates that the summary and its entries should have in the end."""
        if self.held_at is not None:
            return None, None
        active_at = self.last_active
        return retention.expiry(active_at), retention.backstop(active_at)


Change = Callable[[DatedRow, Retention], "tuple[Dated, dict[str, Any]] | None"]
"""The dates that a session is to have, with further fields; ``None`` leaves it as it is."""


async def change_dates(
    connection: Connection, key: TranscriptKey, change: Change
) -> DatedRow | None:
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
        retention = await read_retention(connection.policies, key.tenant, key.project_key)
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
        retention = await read_retention(connection.policies, key.tenant, key.project_key)
        dated = row.dated
        wanted, to = row.wanted(retention)
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


def _through(row: DatedRow) -> int:
    through: int | None = row.moved_through
    return row.first_seq - 1 if through is None else through


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


async def _row(connection: Connection, key: TranscriptKey) -> DatedRow | None:
    # What is said to have its dates already must have them for good.
    summaries = connection.summaries.confirmed

    async def attempt() -> DatedRow | None:
        return await summaries.find_one(key.of_session, NOT_EXPIRED, rows=DatedRow)

    return await retried(connection.client, attempt)


async def _put(
    connection: Connection, key: TranscriptKey, row: DatedRow, dated: Dated, fields: dict[str, Any]
) -> bool:
    """Change the dates of a summary if it still is as ``row`` has it."""
    values = {
        "expires_at": dated.expires_at,
        "held_at": dated.held_at,
        "backstop": dated.backstop,
        **fields,
    }
    if dated.backstop != row.backstop:
        # Whoever was on another way has to begin anew.
        values["moved_through"] = None
    kept = {name: value for name, value in values.items() if value is not None}
    gone = {name: "" for name, value in values.items() if value is None}
    # How far the entries are is part of it: where the same way was taken up again meanwhile, some
    # may be elsewhere than they were when the row was read.
    unchanged = row.as_read(
        *("id", "next_seq", "active_at", "expires_at", "held_at", "backstop", "moved_through")
    )
    summary = connection.summaries.find_one(key.of_session, unchanged, NOT_EXPIRED)
    changed = await unless_refused(lambda: summary.update(Set(kept), Unset(gone)))
    return bool(changed.matched_count)


async def _move(
    connection: Connection,
    key: TranscriptKey,
    row: DatedRow,
    through: int,
    size: int,
    attempts: Attempts,
) -> bool:
    """Move the next entries with their chunks, unless they are to go elsewhere by now."""
    to: datetime | None = row.backstop["to"]
    change = Unset({"expires_at": ""}) if to is None else Set({"expires_at": to})
    upto = min(through + size, row.dated.next_seq - 1)
    session_key = key.of_session
    positions = {"seq": {"$gt": through, "$lte": upto}}
    # Without the type it would also match where nothing is on its way.
    on_its_way = {"backstop.to": {"$type": "null"} if to is None else to}
    unchanged = row.as_read("id", "moved_through")
    entries, summaries, chunks = (
        connection.entries,
        connection.summaries,
        connection.chunks,
    )

    async def work(session: ClientSession | None) -> bool:
        if through < row.first_seq:
            folds = chunks.find(session_key, {"collection": summaries.name})
            await folds.update(change, session=session)
        await entries.find(session_key, positions).update(change, session=session)
        parts = chunks.find(session_key, positions, {"collection": entries.name})
        await parts.update(change, session=session)
        # Last, so that an append waits for next to nothing.
        summary = summaries.find_one(session_key, unchanged, on_its_way)
        moved = await summary.update(Set({"moved_through": Int64(upto)}), session=session)
        if not moved.matched_count:
            raise _TurnedElsewhereError
        return True

    try:
        return await transact(connection.client, connection.server, work, attempts)
    except (_TurnedElsewhereError, TransientFailureError):
        return False


class _TurnedElsewhereError(Exception):
    """The entries of a session are on another way than they were, or further on it."""


def _contended(key: TranscriptKey) -> ContentionError:
    return ContentionError(
        f"Could not date {key}: others write to it all the time; its entries keep the dates that "
        "they have, which are later than the session's. Whoever comes next goes on."
    )
