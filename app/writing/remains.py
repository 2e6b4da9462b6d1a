"""Sweeping what is left of sessions that are gone, in batches that do not grow."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any

from beanie.operators import In, Pull, Set, Unset
from bson.int64 import Int64
from pydantic import Field

from ...models.views.lenient import Position
from ..database.attempts import Attempts, unless_refused
from ..database.documents import Row
from ..database.driver import ClientSession
from ..database.reads import retried
from ..database.transactions import TransientFailureError, transact
from ..storage.connection import Connection
from ..storage.criteria import DELETED, MARKED_DELETED, NOT_ERASED, NOT_LEASED
from ..storage.living import removed_in
from ..transcript_key import TranscriptKey

_BATCH = 100
_BEHIND_ALL = 2**63 - 1

# The rest of the time is for others.
_SHARE = 0.25


class _LastRow(Row):
    seq: Any = None


class _LeftRow(Row):
    subpath: Any = None
    seq: Any = None
    chunks: Any = None


class _LeftChunkRow(Row):
    id: Any = Field(default=None, alias="_id")


class _RemainsRow(Row):
    id: Any = Field(default=None, alias="_id")
    first_seq: Position = 1
    removed: Any = None
    remains: Any = None
    expires_at: Any = None


async def next_free_position(connection: Connection, key: TranscriptKey) -> int:
    """Where a session without a summary begins: behind all that is left of earlier ones."""

    async def attempt() -> int:
        entries = connection.entries
        owner = key.of_session
        if not await entries.find_one(owner).exists():
            return 1
        last = 0
        # The driver's own, for Beanie 1 has no distinct.
        for subpath in await entries.collection.distinct("subpath", owner):
            found = await entries.find_one(
                owner, {"subpath": subpath}, rows=_LastRow, sort=[("seq", -1)]
            )
            last = max(last, found.seq if found else 0)
        return last + 1

    return await retried(connection.client, attempt)


async def sweep(connection: Connection, key: TranscriptKey) -> None:
    """Delete what is left of earlier sessions of this key, and of its deleted subagents.

    It is known by its positions, under the summary that is there: once all is gone, a new session
    begins at the first one again. So each batch looks in its own transaction whether it still is
    that summary, and any number of sweepers may work at once, beside appends.
    """
    owner = key.of_session
    summaries = connection.summaries
    last: _RemainsRow | None = None
    while True:
        row = await summaries.find_one(owner, rows=_RemainsRow)
        # Where a round changed nothing, as with values that only look alike, the next would not.
        if row is None or row == last:
            return
        last = row
        this = {**owner, **row.as_read("id")}
        # However a round ends, the next one looks at what is there then.
        with contextlib.suppress(_SweepOvertakenError):
            if row.expires_at == DELETED:
                mark = {**this, **MARKED_DELETED}
                # That of a lease says nothing of what is beside it.
                if row.remains is not False:
                    # All of it: no session lives beside the mark.
                    await _Evidence(connection, mark, owner).sweep(owner, _BEHIND_ALL)
                # Whoever holds the lease of a session that is not there has it in the mark, and a
                # tombstone stays.
                over = summaries.find_one(mark, NOT_LEASED, NOT_ERASED)
                await unless_refused(over.delete)
                if row.remains:
                    # How much there was of an erased session is nobody's business any more.
                    emptied = Set({"next_seq": Int64(1), "first_seq": Int64(1)})
                    swept = summaries.find_one(mark)
                    await unless_refused(partial(swept.update, emptied, Unset({"remains": ""})))
            elif row.remains:
                await _Evidence(connection, this, owner).sweep(owner, row.first_seq)
                clear = partial(summaries.find_one(this).update, Unset({"remains": ""}))
                await unless_refused(clear)
            elif removed := removed_in(row.removed):
                for subpath, before in removed:
                    each = {"subpath": subpath, "before": Int64(before)}
                    # An election may have taken the deletion back, and the transcript lives.
                    gone = {**this, "removed": {"$elemMatch": each}}
                    left = key.with_subpath(subpath).of_transcript
                    await _Evidence(connection, gone, owner).sweep(left, before)
                    # What it was is told by no other field of the summary.
                    clear = partial(summaries.find_one(this).update, Pull({"removed": each}))
                    await unless_refused(clear)
            elif row.removed is not None:
                # What something else put there, else it would be found over and over.
                is_read = {**this, **row.as_read("removed")}
                await summaries.find_one(is_read).update(Unset({"removed": ""}))
                return
            else:
                return


async def sweep_unowned(connection: Connection, key: TranscriptKey) -> bool:
    """Delete what is left of a session whose summary MongoDB took, and return whether there was.

    MongoDB takes the rest too, but later.
    """
    before = await next_free_position(connection, key)
    # In this order: what is begun from now on begins behind that.
    owner = key.of_session
    if before == 1 or await connection.summaries.find_one(owner).exists():
        return False
    with contextlib.suppress(_SweepOvertakenError):
        await _Evidence(connection, None, owner).sweep(owner, before)
    return True


class _SweepOvertakenError(Exception):
    """What was to be swept may be of a new session by now."""


@dataclass(frozen=True, slots=True)
class _Evidence:
    """What tells remains from a session that lives: the summary beside them, or that none is."""

    connection: Connection
    summary: dict[str, Any] | None
    of_session: dict[str, Any]

    async def sweep(self, owner: dict[str, Any], before: int) -> None:
        """Delete the entries and chunks of ``owner`` up to a position.

        Raises:
            _OvertakenError: it was, or is, done by somebody else.
        """
        await _sweep(self, owner, before)
        await _sweep_chunks(self, owner, before)

    async def require(self, session: ClientSession | None) -> None:
        """Look at it within a transaction, whose other operations see the same moment."""
        query = self.of_session if self.summary is None else self.summary
        summary = self.connection.summaries.find_one(query, session=session)
        if await summary.exists() != (self.summary is not None):
            raise _SweepOvertakenError


async def _sweep(place: _Evidence, owner: dict[str, Any], before: int) -> None:
    """Delete entries with their chunks, the last ones first, in the order of the index.

    The index keeps what was deleted for minutes, and whoever looks for what stands behind an entry
    goes over all of it: each insert at the end of the session that the index has before this one.
    So that finds the first entries of this one in their places until the end.
    """
    connection = place.connection
    last: _LeftRow | None = None
    while True:
        began = monotonic()

        async def before_that(last: _LeftRow | None = last) -> list[_LeftRow]:
            return await _last_entries(connection, owner, before, last)

        found = await retried(connection.client, before_that)
        if not found:
            if last is None:
                return
            # What is no text has no place before or behind one, and is found from the end alone.
            last = None
            continue
        bounds: dict[str, tuple[int, int]] = {}
        chunked: set[str] = set()
        for each in found:
            _, upto = bounds.get(each.subpath, (each.seq, each.seq))
            bounds[each.subpath] = each.seq, upto
            if "chunks" in each.model_fields_set:
                chunked.add(each.subpath)

        async def work(
            session: ClientSession | None,
            bounds: dict[str, tuple[int, int]] = bounds,
            chunked: set[str] = chunked,
        ) -> None:
            await place.require(session)
            for subpath, (since, upto) in bounds.items():
                batch = {**owner, "subpath": subpath, "seq": {"$gte": since, "$lte": upto}}
                if subpath in chunked:
                    parts = connection.chunks.find(batch, {"collection": connection.entries.name})
                    await parts.delete(session=session)
                await connection.entries.find(batch).delete(session=session)

        # One commit is less work for the server than as many as there are entries. Where MongoDB
        # itself is at them, the next round finds what it left.
        with contextlib.suppress(TransientFailureError):
            await transact(connection.client, connection.server, work, Attempts())
            last = found[-1]
        await asyncio.sleep((monotonic() - began) * (1 / _SHARE - 1))


async def _last_entries(
    connection: Connection, owner: dict[str, Any], before: int, last: _LeftRow | None
) -> list[_LeftRow]:
    """The last entries up to a position, or the next ones before ``last``."""
    # What is to be gone for ever must be gone from a majority.
    entries = connection.entries.confirmed
    found: list[_LeftRow] = []
    places: list[dict[str, Any]] = [{"seq": {"$lt": Int64(before)}}]
    if last is not None:
        # From where that stood, not over what was deleted since.
        rest = {"subpath": last.subpath, "seq": {"$lt": last.seq}}
        places = [rest, {"subpath": {"$lt": last.subpath}, **places[0]}]
    for place in places:
        some = entries.find(
            owner,
            place,
            rows=_LeftRow,
            sort=[("subpath", -1), ("seq", -1)],
            limit=_BATCH - len(found),
        )
        found += await some.to_list()
        if len(found) == _BATCH:
            break
    return found


async def _sweep_chunks(place: _Evidence, owner: dict[str, Any], before: int) -> None:
    """Delete the chunks of entries that went with their summary."""
    connection, chunks = place.connection, place.connection.chunks
    of_entries = {"collection": connection.entries.name, "seq": {"$lt": Int64(before)}}
    some = chunks.confirmed.find(owner, of_entries, rows=_LeftChunkRow, limit=_BATCH)
    while True:
        began = monotonic()
        found = await retried(connection.client, some.to_list)
        if not found:
            return
        ids = [each.id for each in found]

        async def work(session: ClientSession | None, ids: list[Any] = ids) -> None:
            await place.require(session)
            await chunks.find(owner, In("_id", ids)).delete(session=session)

        with contextlib.suppress(TransientFailureError):
            await transact(connection.client, connection.server, work, Attempts())
        await asyncio.sleep((monotonic() - began) * (1 / _SHARE - 1))
