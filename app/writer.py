"""The write path: a batch is stored whole, once and in order, or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import takewhile
from operator import attrgetter
from struct import Struct
from typing import Any, TypeVar

from bson import Binary, ObjectId
from bson.int64 import Int64
from pymongo.errors import (
    AutoReconnect,
    BulkWriteError,
    DuplicateKeyError,
    PyMongoError,
    ServerSelectionTimeoutError,
)

from ..models.entry import CHUNK_INDEX, COUNTED_INDEX, ORDER_INDEX, UUID_INDEX
from ..models.totals import Account, Tally, Wanted
from .attempts import Attempts
from .background import go_on
from .bson_elements import bson_document, bson_elements
from .claim import (
    Claim,
    MoveFirstError,
    StaleStateError,
    advance_summary,
    claim_for,
    replace_summary_chunks,
)
from .codec import EncodedEntry, EncodedValue
from .commands import DUPLICATE_KEY, insert_encoded
from .connection import Connection
from .counted import learn, mark_elements
from .dating import follow
from .deletion import delete_session, delete_transcript
from .doubts import Doubts
from .driver import ClientSession
from .errors import ContentionError, UnknownSessionError, UnsoundSessionError
from .expiry import EXPIRED
from .forked_accounts import accounts_at
from .key import TranscriptKey
from .living import live_of
from .load import stored_before
from .observing import Stored
from .orphans import orphan_of
from .reads import retried
from .recount import counted_on
from .remains import next_free_position, sweep
from .repair import repair
from .replay import ReplayPosition, ReplayPositions, recognise
from .session_state import state as read_state
from .summaries import Folded, SessionState, StateCache
from .summaries import folded as fold
from .transactions import OutcomeUnknownError, TransientFailureError, snapshot, transact
from .values import LARGE_BYTES, chunk_documents, value_fields
from .write_policy import WritePolicy

logger = logging.getLogger("beanie_session_store.writing")

T = TypeVar("T")

_is_copied = attrgetter("is_copied")
# A team's own unique index may refuse an entry too, but not because it is stored already.
_UUID_KEYS: list[tuple[str, Any]] = list(UUID_INDEX.document["key"].items())
_COUNTED_KEYS: list[tuple[str, Any]] = list(COUNTED_INDEX.document["key"].items())
_POSITION_KEYS: list[list[tuple[str, Any]]] = [
    list(index.document["key"].items()) for index in (ORDER_INDEX, CHUNK_INDEX)
]
_HEALINGS = 3
# A BSON element without its value, which is an Int64.
_SEQ_HEAD = b"\x12seq\0"
_INT64 = Struct("<q").pack


class _LandedError(Exception):
    """An earlier try to store the batch, whose outcome was not known, did land."""


class _ReplayError(Exception):
    """A key of the batch is stored already, or no longer, so nothing of the batch was."""


class _CountedError(Exception):
    """What the batch was counted as was counted before, so nothing of the batch was stored."""


class _PositionTakenError(Exception):
    """The summary says that a position is free which is not, or says none at all."""


class Writer:
    """Appends and deletes; one per store, for it remembers the sessions it wrote last."""

    def __init__(self, metadata: EncodedValue | None, policy: WritePolicy | None = None) -> None:
        self._metadata = metadata
        self._policy = policy or WritePolicy()
        self._states = StateCache()
        self._replays = ReplayPositions()
        self._doubts = Doubts()

    def forget(self) -> None:
        """Drop what is remembered of a database that the store no longer uses.

        Not the tries whose outcome is unknown: they have ids of their own, wherever they are.
        """
        self._states.clear()
        self._replays.clear()

    async def append(
        self,
        connection: Connection,
        key: TranscriptKey,
        batch: Sequence[EncodedEntry],
        *,
        is_fresh: bool = True,
    ) -> Stored | None:
        """Store those entries of a batch that are not stored yet, all at once; say which they are.

        ``is_fresh`` says that nothing was awaited since the batch was encoded.
        """
        place = connection.entries.full_name
        tries = self._doubts.take(place, key, batch)
        try:
            return await self._append(connection, key, batch, tries, is_fresh)
        except BaseException:
            # However this try ended, what is not known of the ones before it still is not.
            if tries:
                self._doubts.put(place, key, batch, tries)
            raise

    async def _append(
        self,
        connection: Connection,
        key: TranscriptKey,
        batch: Sequence[EncodedEntry],
        tries: list[ObjectId],
        is_fresh: bool,
    ) -> Stored | None:
        after = self._replays.take(key)
        end = self._states.end_of(key.session) if after is None else after.end
        if after is not None and batch[0].uuid is None:
            is_fresh = False
            batch = await self._unstored(connection, key, batch, after, end)
        attempts = Attempts()
        while batch:
            try:
                return await self._store(connection, key, batch, is_fresh, tries)
            except _LandedError:
                is_fresh = False
                landed = await confirmed(connection, lambda s: _landed(connection, key, tries, s))
                if landed is not None:
                    return landed
            except _ReplayError:
                is_fresh = False
                batch = await self._unstored(connection, key, batch, None, end)
            # Each round leaves less to store, unless others delete and append all the time.
            if batch and not await attempts.pause():
                raise ContentionError(
                    f"Could not append to {key}: it was deleted and written anew by others "
                    "all the time; nothing of the batch was stored. Try again."
                )
        if not tries:
            return None
        # Of what is stored already, this may be what nobody has heard of yet.
        return await confirmed(connection, lambda s: _landed(connection, key, tries, s))

    async def delete(
        self, connection: Connection, key: TranscriptKey, *, wait: bool = False
    ) -> None:
        """Remove a transcript; with the main one, all of its session.

        ``wait`` is for all of a large session to be swept.
        """
        self._states.take(key.session)
        self._replays.take(key)
        if key.is_main:
            await delete_session(connection, key, wait=wait)
        else:
            await delete_transcript(connection, key, wait=wait)

    async def _unstored(
        self,
        connection: Connection,
        key: TranscriptKey,
        batch: Sequence[EncodedEntry],
        after: ReplayPosition | None,
        end: int | None,
    ) -> Sequence[EncodedEntry]:
        """Leave out of a batch what is stored.

        ``end`` is the first position that was free when this store last wrote or repeated there.
        """
        recognised = await confirmed(
            connection, lambda session: recognise(connection, key, batch, after, session)
        )
        if recognised.remains:
            # They would refuse the entries of the new session. By their ids, for a new entry may
            # have one of their uuids by now.
            gone = {**key.session_filter(), "_id": {"$in": list(recognised.remains)}}
            await connection.entries.delete_many(gone)
        position = recognised.position
        if position is not None:
            bound = None if self._policy.others_repeat_too else position.end
            # What others have stored from there on is their own, though it is stored by now.
            if bound is not None and end is not None and position.seq < end:
                bound = min(bound, end)
            self._replays.put(key, ReplayPosition(position.seq, bound))
        return [entry for entry, stored in zip(batch, recognised.stored, strict=True) if not stored]

    async def _store(
        self,
        connection: Connection,
        key: TranscriptKey,
        batch: Sequence[EncodedEntry],
        is_fresh: bool,
        tries: list[ObjectId],
    ) -> Stored:
        """``is_fresh`` says that nothing was awaited since the batch was encoded.

        A try whose outcome is not known is added to ``tries``.
        """
        attempts = Attempts()
        policy = self._policy
        session_key = key.session
        known = self._states.take(session_key)
        folded: Folded | None = None
        contents: Sequence[Mapping[str, Any]] | None = None
        wanted: Wanted | None = None
        refusals = healings = 0
        newest: SessionState | None = None
        copied = sum(1 for _ in takewhile(_is_copied, batch)) if batch[0].is_copied else 0
        if known is not None and is_fresh:
            folded = fold(known, key, [encoded.entry for encoded in batch], copied)
        while True:
            if known is None:
                try:
                    known = await _state(connection, session_key, newest)
                except _PositionTakenError:
                    newest = None
                    healings += 1
                    await _heal(connection, session_key, healings)
                    continue
            retention = await connection.retention_of(key)
            if folded is None:
                contents = contents or await _contents(batch)
                if wanted is not None and known is not None and known.totals is not None:
                    await learn(connection, key, known.totals, wanted, known.first_seq)
                folded = fold(known, key, contents, copied)
            if not connection.has_marks or refusals > 1:
                # Rather than be refused, it is stored as an older release does.
                folded.totals.is_exact = False
                folded = folded._replace(marks={})
            elif folded.totals.is_unsure and wanted is None:
                wanted, known, folded = folded.wanted, None, None
                continue
            if folded.totals.leaves_asked:
                await _settle_leaves(connection, key, known, folded.totals)
            if folded.totals.accounts_asked:
                await _settle_accounts(connection, key, folded.totals)
            try:
                claim = claim_for(
                    connection, len(batch), known, folded, retention, tries, policy.mtime
                )
            except MoveFirstError:
                await follow(connection, session_key)
                known = folded = None
                continue

            async def work(session: ClientSession | None, claim: Claim = claim) -> None:
                storing = policy.begin(connection, batch, claim)
                await self._claim_and_insert(storing, key, batch, claim, session)
                await policy.stored(connection, key, batch, claim, session)

            try:
                await transact(connection.client, connection.server, work, attempts)
            except _CountedError:
                refusals += 1
                await _free_marks(connection, session_key, claim)
                wanted, known, folded = folded.wanted, None, None
            except _PositionTakenError:
                healings += 1
                await _heal(connection, session_key, healings)
                known = folded = newest = None
            except (StaleStateError, TransientFailureError) as error:
                if not await attempts.pause():
                    if isinstance(error, TransientFailureError):
                        raise
                    raise ContentionError(
                        f"Could not append to {key}: other writers of the session won every "
                        "time; nothing of the batch was stored. Try again, or let fewer "
                        "processes write to one session at once."
                    ) from None
                newest = claim.known
                known = folded = None
            except (OutcomeUnknownError, AutoReconnect) as error:
                if not isinstance(error, ServerSelectionTimeoutError):
                    tries.append(claim.tries[-1])
                raise
            else:
                self._states.put(session_key, claim.next)
                if claim.is_followed:
                    go_on(connection, session_key, follow)
                if claim.clears or (known is not None and known.has_remains):
                    go_on(connection, session_key, sweep)
                return Stored(claim.first_seq, len(batch), claim.known is None)

    async def _claim_and_insert(
        self,
        connection: Connection,
        key: TranscriptKey,
        batch: Sequence[EncodedEntry],
        claim: Claim,
        session: ClientSession | None,
    ) -> None:
        try:
            if claim.known is None:
                await self._create_summary(connection, key, claim, session)
            else:
                await advance_summary(connection, key, claim, claim.known, session)
            # Only now: such a try can hold the summary until just before.
            if len(claim.tries) > 1 and await _is_stored(connection, claim.tries[:-1], session):
                raise _LandedError
            await _require_owners(connection, key, batch, claim, session)
            await _insert_entries(connection, key, batch, claim, session)
        except StaleStateError:
            raise
        except BaseException:
            if session is None:
                await _undo_append(connection, key, claim, len(batch))
            raise

    async def _create_summary(
        self,
        connection: Connection,
        key: TranscriptKey,
        claim: Claim,
        session: ClientSession | None,
    ) -> None:
        summary = summary_document(connection, key, claim, self._metadata)
        expired = {**key.session_filter(), **EXPIRED}
        if claim.clears:
            await connection.summaries.delete_one(expired, session=session)
        try:
            await connection.summaries.insert_one(summary, session=session)
        except DuplicateKeyError:
            # Another writer created the session first.
            raise StaleStateError from None
        if claim.clears:
            folds = {**key.session_filter(), "collection": connection.summaries.name}
            await connection.chunks.delete_many(folds, session=session)
        await replace_summary_chunks(connection, key, claim, session)


def summary_document(
    connection: Connection, key: TranscriptKey, claim: Claim, metadata: EncodedValue | None
) -> dict[str, Any]:
    """The summary of a session that a claim creates."""
    return {
        "_id": claim.next.id,
        **key.session_filter(),
        **claim.changes,
        **value_fields(metadata, "metadata", "packed_metadata"),
        "created_at": connection.server.now(),
        **connection.summary_defaults(),
    }


async def sound_state(connection: Connection, key: TranscriptKey) -> SessionState | None:
    """The state of a session, once what something else wrote into its summary is mended.

    Raises:
        UnsoundSessionError: it cannot be mended, or takes a decision.
    """
    healings = 0
    while True:
        try:
            return await _state(connection, key, None)
        except _PositionTakenError:
            healings += 1
            await _heal(connection, key, healings)


async def _state(
    connection: Connection, key: TranscriptKey, newest: SessionState | None
) -> SessionState | None:
    """The state of a session's summary, with exact totals even where an older release left none.

    ``newest`` is what was known of it.

    Raises:
        _PositionTakenError: it is older than what is stored of the session, or there is none.
    """
    known = await read_state(connection, key)
    if known is None:
        return await _state_without_summary(connection, key)
    if known.is_expired:
        return known._replace(next_seq=await _next_position(connection, key, known))
    is_counted = known.totals is not None and (known.totals.is_exact or not connection.has_marks)
    if known.next_seq and is_counted and not known.nulls and newest is None:
        return known
    if not known.next_seq or await _is_behind(connection, key, known, newest):
        raise _PositionTakenError
    if is_counted:
        return known
    counted = await counted_on(connection, key)
    if counted.last_seq >= known.next_seq:
        raise _PositionTakenError
    return known._replace(totals=counted.totals)


async def _is_behind(
    connection: Connection, key: TranscriptKey, known: SessionState, newest: SessionState | None
) -> bool:
    """Whether a summary that something else wrote, or may have written, was put back."""
    if newest is not None and newest.id == known.id and known.next_seq < newest.next_seq:
        return True
    if not known.nulls:
        return False
    behind = {**key.session_filter(), "seq": {"$gte": Int64(known.next_seq)}}

    async def attempt() -> bool:
        return await connection.entries.find_one(behind, {"_id": 1}) is not None

    return await retried(connection.client, attempt)


async def _next_position(connection: Connection, key: TranscriptKey, known: SessionState) -> int:
    """Where a session begins that takes the place of one that is gone."""
    return max(known.next_seq, known.lowest, await next_free_position(connection, key))


async def _state_without_summary(connection: Connection, key: TranscriptKey) -> SessionState | None:
    first_seq = await next_free_position(connection, key)
    if first_seq == 1:
        return None
    orphan = await orphan_of(connection, key)
    if orphan is not None and not orphan.may_have_expired:
        raise _PositionTakenError
    return _gone(first_seq)


async def _heal(connection: Connection, key: TranscriptKey, healings: int) -> None:
    """Mend what something else wrote into the summary of a session, or took.

    Raises:
        UnsoundSessionError: it cannot be mended, or takes a decision.
    """
    if healings > _HEALINGS:
        raise UnsoundSessionError(
            f"Could not append to {key}: its summary gives no free position, and mending it did "
            "not help, for something else writes to it; nothing was stored. Find what that is, "
            "and run session-store verify --repair."
        )
    logger.warning("Something else than the store wrote or took the summary of %s: mending.", key)
    # It may have been deleted, or have expired, meanwhile.
    with contextlib.suppress(UnknownSessionError):
        await repair(connection, key)


async def _settle_leaves(
    connection: Connection, key: TranscriptKey, known: SessionState | None, totals: Tally
) -> None:
    """Look up which of the summaries of a batch are about what is stored already."""
    if known is None or known.is_expired:
        return totals.settle_leaves(())

    async def attempt() -> set[str]:
        leaves = totals.leaves_asked
        return await stored_before(connection, key, leaves, known.next_seq, None)

    totals.settle_leaves(await retried(connection.client, attempt))


async def _settle_accounts(connection: Connection, key: TranscriptKey, totals: Tally) -> None:
    """Look up what accounts of cost had come to when the session was forked from another one."""
    point = totals.fork_point
    assert point is not None

    async def attempt() -> dict[float, Account | None]:
        return await accounts_at(connection, key, point, totals.accounts_asked, None)

    totals.settle_accounts(await retried(connection.client, attempt))


async def _free_marks(connection: Connection, key: TranscriptKey, claim: Claim) -> None:
    """Let remains of an earlier session refuse nothing that was counted there, but not here."""
    first_seq = claim.next.first_seq
    if first_seq == 1:
        return
    digests = [Binary(digest) for mark in claim.marks.values() for digest in mark.counted]
    remains = {**key.session_filter(), "counted": {"$in": digests}, "seq": {"$lt": first_seq}}
    await connection.entries.update_many(remains, {"$unset": {"counted": ""}})


def _gone(next_seq: int) -> SessionState:
    """The state of a session that left entries but no summary."""
    return SessionState(ObjectId(), next_seq, 0, None, None, None, {}, is_expired=True)


async def _landed(
    connection: Connection,
    key: TranscriptKey,
    tries: Sequence[ObjectId],
    session: ClientSession | None,
) -> Stored | None:
    """What one of the tries has stored, if one did."""
    query = {"_id": {"$in": list(tries)}}
    first = await connection.entries.find_one(query, {"seq": 1, "created_at": 1}, session=session)
    if first is None:
        return None
    # Entries of one append follow one another, and have its time.
    batch = {
        **key.transcript_filter(),
        "seq": {"$gte": first["seq"]},
        "created_at": first["created_at"],
    }
    count = await connection.entries.count_documents(batch, session=session)
    live = await live_of(connection, key, session)
    is_new = live is not None and live.first_seq == first["seq"]
    return Stored(first["seq"], count, is_new)


async def _is_stored(
    connection: Connection, tries: Sequence[ObjectId], session: ClientSession | None
) -> bool:
    query = {"_id": {"$in": list(tries)}}
    return await connection.entries.find_one(query, {"_id": 1}, session=session) is not None


async def confirmed(
    connection: Connection, read: Callable[[ClientSession | None], Awaitable[T]]
) -> T:
    """What is read of the transcript, of one moment that a majority has.

    An entry that only a primary without followers has may be lost yet, so a batch that is found
    there must not be acknowledged. It is no transaction, for a comparison with a large session
    may take longer than those may last.
    """

    async def attempt() -> T:
        async with snapshot(connection.client, connection.server) as session:
            return await read(session)

    return await retried(connection.client, attempt)


async def _contents(batch: Sequence[EncodedEntry]) -> list[Mapping[str, Any]]:
    """The entries as they are stored: a caller may change its own dicts meanwhile."""

    def contents() -> list[Mapping[str, Any]]:
        return [encoded.content() for encoded in batch]

    is_large = sum(encoded.size for encoded in batch) > LARGE_BYTES
    return await asyncio.to_thread(contents) if is_large else contents()


async def _require_owners(
    connection: Connection,
    key: TranscriptKey,
    batch: Sequence[EncodedEntry],
    claim: Claim,
    session: ClientSession | None,
) -> None:
    """Look that the uuid of each further entry under it is still another's.

    Had that one been deleted meanwhile, the further one would not be recognised when it comes
    again: its uuid would be free.
    """
    further = [encoded for encoded in batch if encoded.is_further]
    if not further:
        return
    needed = {encoded.own_key for encoded in further} - {encoded.uuid for encoded in batch}
    query = {**key.transcript_filter(), "uuid": {"$in": list(needed)}}
    if claim.next.first_seq > 1:
        query["seq"] = {"$gte": claim.next.first_seq}
    found = await connection.entries.count_documents(query, session=session) if needed else 0
    if found < len(needed):
        raise _ReplayError


async def _insert_entries(
    connection: Connection,
    key: TranscriptKey,
    batch: Sequence[EncodedEntry],
    claim: Claim,
    session: ClientSession | None,
) -> None:
    date = claim.next.dated.entry_date
    dated = {} if date is None else {"expires_at": date}
    chunks: list[dict[str, Any]] = []
    for seq, encoded in enumerate(batch, claim.first_seq):
        if encoded.chunks:
            owner = {
                **key.transcript_filter(),
                "collection": connection.entries.name,
                "seq": Int64(seq),
                **dated,
            }
            chunks.extend(chunk_documents(owner, encoded.chunks))
    if chunks:
        try:
            await connection.chunks.insert_many(chunks, session=session)
        except BulkWriteError as error:
            _require_free(_refusing(error))
            raise
    common = {"created_at": claim.changes["active_at"], **dated}
    documents = entry_documents(connection, key, batch, claim, common)
    try:
        await insert_encoded(connection.entries, documents, session)
    except BulkWriteError as error:
        refusing = _refusing(error)
        if _UUID_KEYS in refusing:
            raise _ReplayError from None
        if _COUNTED_KEYS in refusing:
            raise _CountedError from None
        if claim.known is None and error.details.get("writeErrors", ({},))[0].get("code") == (
            DUPLICATE_KEY
        ):
            # Remains that nobody told of a moment ago.
            raise StaleStateError from None
        _require_free(refusing)
        raise


def _refusing(error: BulkWriteError) -> list[list[tuple[str, Any]]]:
    """The keys of the unique indexes that refused something."""
    return [
        list(failure.get("keyPattern", {}).items())
        for failure in error.details.get("writeErrors", ())
        if failure.get("code") == DUPLICATE_KEY
    ]


def _require_free(refusing: Sequence[list[tuple[str, Any]]]) -> None:
    if any(keys in refusing for keys in _POSITION_KEYS):
        raise _PositionTakenError from None


def entry_documents(
    connection: Connection,
    key: TranscriptKey,
    batch: Sequence[EncodedEntry],
    claim: Claim,
    common: dict[str, Any],
) -> list[bytes]:
    """The entries' documents, put together from what is encoded once for all of them."""
    head = bson_elements(key.transcript_filter()) + _SEQ_HEAD
    tail = bson_elements(common)
    # A team's defaults may differ from entry to entry.
    has_defaults = connection.entry_defaults is not dict
    marks = claim.marks
    documents: list[bytes] = []
    own_id = bson_elements({"_id": claim.tries[-1]})
    for seq, encoded in enumerate(batch, claim.first_seq):
        if has_defaults:
            tail = bson_elements({**common, **connection.entry_defaults()})
        mark = mark_elements(marks[seq]) if seq in marks else b""
        parts = (own_id, head, _INT64(seq), encoded.elements, mark, tail)
        documents.append(bson_document(sum(map(len, parts)), *parts))
        own_id = b""
    return documents


async def _undo_append(
    connection: Connection, key: TranscriptKey, claim: Claim, count: int
) -> None:
    """Without transactions: take back what a failed insert left, and fold anew what is stored."""
    positions = {"$gte": claim.first_seq, "$lt": claim.first_seq + count}
    claimed = {**key.transcript_filter(), "seq": positions}
    try:
        # Where the positions were not free, what else stands there is of another time.
        await connection.entries.delete_many({**claimed, "created_at": claim.changes["active_at"]})
        others: list[int] = await connection.entries.distinct("seq", claimed)
        parts = {**claimed, "collection": connection.entries.name}
        await connection.chunks.delete_many({**parts, "seq": {**positions, "$nin": others}})
        await repair(connection, key.session)
    except PyMongoError:
        logger.warning(
            "Could not take back a failed append to %s: the server has no transactions and went "
            "away. Some entries of the batch may be stored, and its summary may be ahead of them.",
            key,
        )
