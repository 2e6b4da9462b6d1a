"""What a session's summary must say, counted anew from all that is stored of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from bson.int64 import Int64

from ...models.counting.tally import Tally
from ..database.driver import ClientSession
from ..database.reads import retried
from ..database.transactions import snapshot
from ..reading.load import session_entries, stored_before, told_of_others
from ..storage.connection import Connection
from ..storage.state import fold_on
from ..transcript_key import TranscriptKey
from .count_marks import mark_entries
from .fork_accounts import accounts_at

_FOLDED_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Recount:
    """The state of a summary as its entries have it."""

    data: dict[str, Any] | None
    """The SDK's fold, ``None`` if the main transcript has no entry."""
    totals: Tally
    last_seq: int
    """The position of the last entry, 0 without one."""


async def recount(
    connection: Connection,
    key: TranscriptKey,
    session: ClientSession | None,
    *,
    without: str | None = None,
    onto: Recount | None = None,
) -> Recount:
    """Count a session anew, as a client session sees it.

    It remembers every response and call, a few hundred bytes each, but no entries.

    Args:
        connection: the database.
        key: the session.
        session: the client session.
        without: the subpath of a transcript to leave out.
        onto: what was counted before and is counted on; it is good for nothing else then.

    Raises:
        CorruptEntryError: a stored entry is damaged.
    """
    totals = Tally(is_complete=True) if onto is None else onto.totals
    totals.is_exact = False
    told = await told_of_others(connection, key, session)
    totals.copied_until = told.copied_until
    data: dict[str, Any] | None = None if onto is None else onto.data
    pending: list[dict[str, Any]] = []
    last_seq = 0 if onto is None else onto.last_seq
    async for subpath, seq, entry in session_entries(connection, key, session, last_seq):
        last_seq = seq
        if subpath == without:
            continue
        totals.add((entry,), subpath, seq)
        if leaves := totals.leaves_asked:
            stored = await stored_before(connection, key.session, leaves, seq, session)
            totals.settle_leaves(stored)
        if asked := totals.accounts_asked:
            # What was told once stays, whatever became of the other session.
            known = told.carried
            if totals.fork_point is not None and not known.keys() >= set(asked):
                point = totals.fork_point
                known = await accounts_at(connection, key, point, asked, session) | known
            totals.settle_accounts(known)
        if not subpath:
            pending.append(entry)
        if len(pending) == _FOLDED_AT_ONCE:
            data = fold_on(data, key, pending)
            pending.clear()
    if pending:
        data = fold_on(data, key, pending)
    return Recount(data, totals, last_seq)


async def counted_on(connection: Connection, key: TranscriptKey) -> Recount:
    """A session counted at one moment, for a summary that has no totals or outdated ones.

    Its entries are marked as if they had been counted when they were stored.
    """

    async def attempt() -> Recount:
        async with snapshot(connection.client, connection.server) as session:
            return await recount(connection, key, session)

    if connection.has_marks:
        await mark_entries(connection, key)
    counted = await retried(connection.client, attempt)
    counted.totals.is_exact = connection.has_marks
    return replace(counted, totals=counted.totals.resumed())


async def is_appended(
    connection: Connection,
    key: TranscriptKey,
    first_seq: int,
    next_seq: int,
    session: ClientSession | None,
) -> bool:
    """Whether a session went from one position to another by appends alone.

    An append takes as many positions as it has entries; a position without one is of a delete.
    """
    if first_seq == next_seq:
        return True
    taken = {"seq": {"$gte": Int64(first_seq), "$lt": Int64(next_seq)}}
    since = connection.entries.find(key.of_session, taken, session=session)
    return await since.count() == next_seq - first_seq
