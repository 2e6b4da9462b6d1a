"""Deleting sessions and subagents: gone at once for readers, and swept in bounded batches.

What is small goes in one transaction. Of what is large only so much does that readers can tell
the rest from what lives; the summary says that it is gone, and whoever comes by sweeps it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from beanie.operators import In, Set, Unset
from bson import ObjectId
from bson.int64 import Int64
from pydantic import Field

from ..database.attempts import Attempts
from ..database.documents import Row
from ..database.driver import ClientSession
from ..database.reads import retried
from ..database.transactions import TransientFailureError, holds_already, snapshot, transact
from ..encryption.seal import SessionCipher
from ..errors import ContentionError
from ..storage.background import go_on
from ..storage.backstop import FAR
from ..storage.connection import Connection
from ..storage.criteria import DELETED, MARKED_DELETED
from ..storage.living import MARKED, live_of
from ..storage.read_state import state_in
from ..storage.seals import cipher_to_write
from ..storage.state import SessionState
from ..transcript_key import TranscriptKey
from .dating import DatedRow
from .erasure_counts import SAME, counted_to_erase, since_counted
from .recount import Recount, is_appended, recount
from .remains import sweep, sweep_unowned
from .summary_contents import totals_fields
from .summary_update import StaleStateError, SummaryUpdate, advance_summary, mirrored
from .tombstones import Erasing
from .write_policy import AS_IT_IS, WritePolicy

_DELETED = (
    "it is deleted, and what is left of it in the database goes with the next sweep; calling it "
    "again is safe"
)

# What makes it the session that was looked at, and that nothing was written to it since.
_UNCHANGED = (*SAME, "next_seq")

AT_ONCE = 2_000
"""Entries of a session up to which the caller waits for all of it."""


async def delete_session(
    connection: Connection,
    key: TranscriptKey,
    *,
    unless: Callable[[DatedRow], bool] | None = None,
    wait: bool = False,
    policy: WritePolicy = AS_IT_IS,
    erasing: Erasing | None = None,
) -> bool:
    """Delete a session with its subagents, and return whether there was one.

    Args:
        connection: the database.
        key: the session.
        unless: says of the summary, as it is at that moment, whether the session is to stay.
        wait: also wait for all of a large one to be swept.
        policy: says what the session must meet besides.
        erasing: leave a tombstone, and count it as a part of this erasure.

    Raises:
        ContentionError: it was written to all the time; nothing was deleted.
        TransientFailureError: the server was away for too long; nothing was deleted.
        DoneInPartError: it is deleted, and not all of it is swept.
    """
    # Without transactions, what fails at the summary has deleted the entries before.
    await policy.confirm(connection, key)
    attempts = Attempts()
    # What only a primary without followers has deleted may live again.
    summaries = connection.summaries.confirmed

    async def read() -> DatedRow | None:
        return await summaries.find_one(key.of_session, rows=DatedRow)

    while True:
        row = await retried(connection.client, read)
        if row is None:
            await sweep_unowned(connection, key)
            return False
        was_there = row.expires_at != DELETED
        if was_there:
            if unless is not None and unless(row):
                return False
            try:
                is_swept = await _mark(connection, key, row, attempts, policy.fence, erasing)
            except (StaleStateError, TransientFailureError) as error:
                if isinstance(error, StaleStateError):
                    await policy.confirm(connection, key)
                if not await attempts.pause():
                    raise _contended(key, error) from None
                continue
            if is_swept:
                return True
        elif unless is None and row.remains is False:
            # A lease made the mark, and what is beside it is to be deleted only now.
            mark = connection.summaries.find_one(key.of_session, row.as_read("id"), MARKED_DELETED)
            await mark.update(Unset({"remains": ""}))
        if wait or (row.entries <= AT_ONCE and not row.has_remains):
            with holds_already(_DELETED):
                await sweep(connection, key)
        else:
            go_on(connection, key, sweep)
        return was_there


async def delete_transcript(
    connection: Connection,
    key: TranscriptKey,
    *,
    wait: bool = False,
    policy: WritePolicy = AS_IT_IS,
) -> None:
    """Delete a subagent's transcript, and count its session anew without it.

    ``wait`` is for all of a large one to be swept, ``policy`` says what the session must meet
    besides.

    Raises:
        ContentionError: the session was written to all the time; nothing was deleted.
        TransientFailureError: the server was away for too long; nothing was deleted.
        DoneInPartError: it is deleted, and not all of it is swept.
    """
    await policy.confirm(connection, key.session)
    attempts = Attempts()
    looked: _CountedWithout | None = None
    while True:
        # On what was counted already, else a session that is always written to is never done.
        look = partial(_counted_without, connection, key, looked)
        looked = await retried(connection.client, look)
        if looked is None:
            return

        async def work(session: ClientSession | None, looked: _CountedWithout = looked) -> bool:
            return await _remove(connection, key, looked, session, policy.fence)

        try:
            is_swept = await transact(connection.client, connection.server, work, attempts)
        except (StaleStateError, TransientFailureError) as error:
            if isinstance(error, StaleStateError):
                await policy.confirm(connection, key.session)
            if not await attempts.pause():
                raise _contended(key, error) from None
            continue
        if wait and not is_swept:
            with holds_already(_DELETED):
                await sweep(connection, key.session)
        elif not is_swept:
            go_on(connection, key.session, sweep)
        return


class _IdRow(Row):
    id: Any = Field(default=None, alias="_id")


class _CountedWithout(NamedTuple):
    """A session at one moment."""

    id: ObjectId
    next_seq: int
    counted: Recount
    """What it is without one of its transcripts."""

    def onto(self) -> Recount:
        """A copy of the count, to count on."""
        return replace(self.counted, totals=deepcopy(self.counted.totals))


async def _counted_without(
    connection: Connection, key: TranscriptKey, before: _CountedWithout | None
) -> _CountedWithout | None:
    """The session as it is without a transcript; ``None`` if there is no such transcript.

    What was counted ``before`` is counted on, unless something else than appends came since.
    """
    async with snapshot(connection.client, connection.server) as session:
        live = await live_of(connection, key, session)
        if live is None:
            return None
        assert live.id is not None
        entries = connection.entries
        mine = (key.of_transcript, live.in_transcript(key.subpath))
        if not await entries.find_one(*mine, session=session).exists():
            return None
        state = await state_in(connection, key.session, session)
        if state is None:
            return None
        onto = None
        if (
            before is not None
            and before.id == live.id
            and await is_appended(connection, key, before.next_seq, state.next_seq, session)
        ):
            onto = before.onto()
        counted = await recount(connection, key.session, session, without=key.subpath, onto=onto)
        return _CountedWithout(live.id, state.next_seq, counted)


async def _remove(
    connection: Connection,
    key: TranscriptKey,
    looked: _CountedWithout,
    session: ClientSession | None,
    fence: Mapping[str, Any],
) -> bool:
    """Delete a transcript that a session was counted without, and say whether all of it went.

    Raises:
        StaleStateError: so much was appended since that it has to be counted again, or another
            transcript was deleted.
    """
    known, next_seq, counted = looked
    entries, chunks = connection.entries, connection.chunks
    # First, so that of those who write all the time it is not this one that always has to wait.
    this = connection.summaries.find_one(key.of_session, {"_id": known})
    await this.update(Set({"counting": ObjectId()}), session=session)
    state = await state_in(connection, key.session, session)
    live = await live_of(connection, key, session)
    if state is None or live is None or live.id != known:
        raise StaleStateError
    # Not since its last entry: behind that may be positions of many that are deleted.
    if state.next_seq - next_seq > MARKED:
        raise StaleStateError
    # What another delete took is in the count.
    if not await is_appended(connection, key, next_seq, state.next_seq, session):
        raise StaleStateError
    onto = looked.onto()
    counted = await recount(connection, key.session, session, without=key.subpath, onto=onto)
    mine = key.of_transcript
    living = entries.find(mine, live.in_transcript(key.subpath), limit=MARKED + 1, session=session)
    count = await living.count()
    is_small = count <= MARKED and not live.removed and live.first_seq == 1
    cipher = await cipher_to_write(connection, key, state, None)
    update = _without(state, counted, None if is_small else key.subpath, cipher)
    await advance_summary(connection, key.session, update, state, session, fence)
    if is_small:
        parts = chunks.find(mine, {"collection": entries.name})
        await parts.delete(session=session)
        await entries.find(mine).delete(session=session)
    else:
        # All of them: those who date the session would take a date from one that stays.
        await entries.find(mine, {"seq": {"$lte": MARKED}}).delete(session=session)
    return is_small


async def _mark(
    connection: Connection,
    key: TranscriptKey,
    row: DatedRow,
    attempts: Attempts,
    fence: Mapping[str, Any],
    erasing: Erasing | None,
) -> bool:
    """Make a session gone for readers, and return whether nothing of it is left."""
    entries, summaries, chunks = connection.entries, connection.summaries, connection.chunks
    owner = key.of_session
    counts: dict[str, int] = {}
    if erasing is not None:
        # Not in the transaction, which would grow with the session.
        row, counts = await counted_to_erase(connection, key, row, erasing)
    is_small = (
        row.entries <= MARKED
        and not row.has_remains
        and not await chunks.find(owner, limit=1).skip(MARKED).count()
    )

    async def latest(session: ClientSession | None) -> tuple[DatedRow, dict[str, int]]:
        if erasing is None:
            return row, counts
        now, since = await since_counted(connection, key, row, fence, session)
        if is_small and (now.entries > MARKED or now.has_remains):
            raise StaleStateError
        return now, {name: count + since.get(name, 0) for name, count in counts.items()}

    async def all_of_it(session: ClientSession | None) -> None:
        now, counts = await latest(session)
        names = [entries.name, summaries.name]
        await chunks.find(owner, In("collection", names)).delete(session=session)
        await entries.find(owner).delete(session=session)
        # Last: on a server without transactions, what was cut short can then be repeated.
        if erasing is not None:
            await put(erasing.tombstone(connection, key), now, counts, session)
            return
        unchanged = {**now.as_read(*_UNCHANGED), **fence}
        result = await summaries.find_one(owner, unchanged).delete(session=session)
        if not result.deleted_count:
            raise StaleStateError

    async def head_of_it(session: ClientSession | None) -> None:
        now, counts = await latest(session)
        mark = {
            **owner,
            # What is none cannot bound anything; a new session then looks where it may begin.
            "next_seq": now.next_seq,
            # All of it is to be swept, whatever it is of.
            "first_seq": Int64(1 if now.has_remains else now.first_seq),
            "created_at": now.created_at,
            "expires_at": DELETED,
        }
        if erasing is not None:
            mark = {**erasing.tombstone(connection, key), "next_seq": now.next_seq, "remains": True}
        await put(mark, now, counts, session)
        folds = chunks.find(owner, {"collection": summaries.name})
        await folds.delete(session=session)
        await _delete_head(connection, owner, session)

    async def put(
        mark: dict[str, Any],
        now: DatedRow,
        counts: Mapping[str, int],
        session: ClientSession | None,
    ) -> None:
        # The driver's own, for Beanie's replace takes a whole document of the class.
        this = {**owner, **now.as_read(*_UNCHANGED), **fence}
        result = await summaries.collection.replace_one(this, mark, session=session)
        if not result.matched_count:
            raise StaleStateError
        if erasing is not None:
            await erasing.note(key, counts, mark["erased_until"], session)

    work = all_of_it if is_small else head_of_it
    async with nullcontext() if erasing is None else erasing.one_at_a_time:
        await transact(connection.client, connection.server, work, attempts)
    return is_small


async def _delete_head(
    connection: Connection, owner: dict[str, Any], session: ClientSession | None
) -> None:
    """Delete of a session what readers would take for living, and date the first entry instead.

    It is swept last, for the sake of those who append beside it (:mod:`.remains`).
    """
    entries = connection.entries
    first = await entries.find_one(
        owner, rows=_IdRow, session=session, sort=[("subpath", 1), ("seq", 1)]
    )
    if first is None:
        return
    undated = {"_id": first.id, "expires_at": None}
    await entries.find_one(undated).update(Set({"expires_at": FAR}), session=session)
    head = {"seq": {"$lte": MARKED}, "_id": {"$ne": first.id}}
    await entries.find(owner, head).delete(session=session)


def _without(
    known: SessionState, counted: Recount, swept_later: str | None, cipher: SessionCipher | None
) -> SummaryUpdate:
    # What the summary says may be put back, or no position at all.
    before = max(known.next_seq, known.lowest, counted.last_seq + 1)
    next_seq = before + 1
    told, untold = totals_fields(counted.totals, next_seq, known, cipher)
    changes: dict[str, Any] = {
        "next_seq": Int64(next_seq),
        **told,
        **mirrored(known, next_seq),
    }
    pushed: dict[str, Any] = {}
    if swept_later is not None:
        pushed = {"removed": {"subpath": swept_later, "before": Int64(before)}}
    removed = (*untold, "counting")
    return SummaryUpdate(known, known, before, changes, removed, None, pushed=pushed, cipher=cipher)


def _contended(key: TranscriptKey, error: Exception) -> Exception:
    if isinstance(error, TransientFailureError):
        return error
    return ContentionError(
        f"Could not delete {key}: others wrote to its session all the time; nothing was deleted. "
        "Try again when it is quiet."
    )
