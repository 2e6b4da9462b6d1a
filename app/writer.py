"""The write path: a batch is stored whole, once and in order, or not at all."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from struct import Struct
from typing import Any, ClassVar, TypeVar

from bson import Binary, ObjectId
from bson.int64 import Int64
from pymongo.errors import (
    AutoReconnect,
    BulkWriteError,
    DuplicateKeyError,
    PyMongoError,
    ServerSelectionTimeoutError,
)

from ..models.entry import UUID_INDEX
from .attempts import Attempts
from .codec import EncodedEntry, EncodedValue, bson_document, bson_elements, encode_object
from .connection import Connection
from .doubts import Doubts
from .driver import (
    ClientSession,
    OutcomeUnknownError,
    TransientFailureError,
    insert_encoded,
    transact,
    update_one,
)
from .errors import ContentionError
from .expiry import EXPIRED, NOT_EXPIRED, Retention, retention_of
from .key import TranscriptKey
from .reader import state as read_state
from .reader import stream
from .replay import ReplayPosition, ReplayPositions, recognise
from .summaries import DATA_FIELDS, SessionState, StateCache, fold

logger = logging.getLogger(__name__)

T = TypeVar("T")

_DUPLICATE_KEY = 11000
# A team's own unique index may refuse an entry too, but not because it is stored already.
_UUID_KEYS: list[tuple[str, Any]] = list(UUID_INDEX.document["key"].items())
_REFOLD_BATCH = 500
# Where decoding is slow enough to hold up the other tasks of the event loop.
_LARGE_BYTES = 256 * 1024
# A BSON element without its value, which is an Int64.
_SEQ_HEAD = b"\x12seq\0"
_INT64 = Struct("<q").pack


class _StaleStateError(Exception):
    """The session's summary is not what it was last known to be."""


class _LandedError(Exception):
    """An earlier try to store the batch, whose outcome was not known, did land."""


class _ReplayError(Exception):
    """An entry of the batch is stored already, so nothing of the batch was."""


@dataclass(frozen=True, slots=True)
class _Claim:
    """One try to append: what the summary must be, and what it and the entries become."""

    known: SessionState | None
    next: SessionState
    first_seq: int
    changes: dict[str, Any]
    removed: tuple[str, ...]
    data_chunks: tuple[bytes, ...] | None
    """What replaces the chunks that hold the fold; ``None`` leaves them alone."""
    moves_date: bool = False
    """Whether what is stored gets the session's new date of expiry."""
    clears: bool = False
    """Whether remains of an expired session of the same key may be in the way."""
    tries: Sequence[ObjectId] = ()
    """The ids of all tries to store the batch whose outcome is not known, this one's last."""


class Writer:
    """Appends and deletes; one per store, for it remembers the sessions it wrote last."""

    others_repeat_too: ClassVar[bool] = False
    """Whether what other writers store meanwhile is taken for a part of the same replay."""

    def __init__(self, metadata: EncodedValue | None) -> None:
        self._metadata = metadata
        self._states = StateCache()
        self._replays = ReplayPositions()
        self._doubts = Doubts()

    def forget(self) -> None:
        """Drop what is remembered of a database that the store no longer uses."""
        self._states.clear()
        self._replays.clear()
        self._doubts.clear()

    async def append(
        self, connection: Connection, key: TranscriptKey, batch: Sequence[EncodedEntry]
    ) -> None:
        """Store those entries of a batch that are not stored yet, all at once."""
        tries = self._doubts.take(key, batch)
        try:
            await self._append(connection, key, batch, tries)
        except BaseException:
            # However this try ended, what is not known of the ones before it still is not.
            if tries:
                self._doubts.put(key, batch, tries)
            raise

    async def _append(
        self,
        connection: Connection,
        key: TranscriptKey,
        batch: Sequence[EncodedEntry],
        tries: list[ObjectId],
    ) -> None:
        after = self._replays.take(key)
        is_fresh = after is None or batch[0].uuid is not None
        if not is_fresh:
            batch = await self._unstored(connection, key, batch, after)
        attempts = Attempts()
        while batch:
            try:
                return await self._store(connection, key, batch, is_fresh, tries)
            except _LandedError:
                is_fresh = False
                if await _confirmed(connection, lambda s: _is_stored(connection, tries, s)):
                    return
            except _ReplayError:
                is_fresh = False
                batch = await self._unstored(connection, key, batch, None)
            # Each round leaves less to store, unless others delete and append all the time.
            if batch and not await attempts.pause():
                raise ContentionError(
                    f"Could not append to {key}: it was deleted and written anew by others "
                    "all the time; nothing of the batch was stored. Try again."
                )

    async def delete(self, connection: Connection, key: TranscriptKey) -> None:
        """Remove a transcript; with the main one, all of its session."""

        async def work(session: ClientSession | None) -> None:
            if key.is_main:
                await _delete_session(connection, key, session)
            else:
                transcript = key.transcript_filter()
                chunks = {**transcript, "collection": connection.entries.name}
                await connection.chunks.delete_many(chunks, session=session)
                await connection.entries.delete_many(transcript, session=session)

        self._states.take(key.session)
        self._replays.take(key)
        attempts = Attempts()
        while True:
            try:
                return await transact(connection.client, connection.server, work, attempts)
            except TransientFailureError:
                if not await attempts.pause():
                    raise

    async def _unstored(
        self,
        connection: Connection,
        key: TranscriptKey,
        batch: Sequence[EncodedEntry],
        after: ReplayPosition | None,
    ) -> Sequence[EncodedEntry]:
        recognised = await _confirmed(
            connection, lambda session: recognise(connection, key, batch, after, session)
        )
        position = recognised.position
        if position is not None:
            end = None if self.others_repeat_too else position.end
            self._replays.put(key, ReplayPosition(position.seq, end))
        return [entry for entry, stored in zip(batch, recognised.stored, strict=True) if not stored]

    async def _store(
        self,
        connection: Connection,
        key: TranscriptKey,
        batch: Sequence[EncodedEntry],
        is_fresh: bool,
        tries: list[ObjectId],
    ) -> None:
        """``is_fresh`` says that nothing was awaited since the batch was encoded.

        A try whose outcome is not known is added to ``tries``.
        """
        attempts = Attempts()
        session_key = key.session
        known = self._states.take(session_key)
        folded: Mapping[str, Any] | None = None
        contents: Sequence[Mapping[str, Any]] | None = None
        if key.is_main and known is not None and is_fresh:
            folded = fold(known, key, [encoded.entry for encoded in batch])
        while True:
            if known is None:
                known = await read_state(connection, session_key)
            retention = await retention_of(connection.policies, key.tenant, key.project_key)
            if key.is_main and folded is None:
                contents = contents or await _contents(batch)
                folded = fold(known, key, contents)
            claim = _claim(connection, len(batch), known, folded, retention, tries)

            async def work(session: ClientSession | None, claim: _Claim = claim) -> None:
                await self._claim_and_insert(connection, key, batch, claim, session)

            try:
                await transact(connection.client, connection.server, work, attempts)
            except (_StaleStateError, TransientFailureError) as error:
                if not await attempts.pause():
                    if isinstance(error, TransientFailureError):
                        raise
                    raise ContentionError(
                        f"Could not append to {key}: other writers of the session won every "
                        "time; nothing of the batch was stored. Try again, or let fewer "
                        "processes write to one session at once."
                    ) from None
                known = folded = None
            except (OutcomeUnknownError, AutoReconnect) as error:
                if not isinstance(error, ServerSelectionTimeoutError):
                    tries.append(claim.tries[-1])
                raise
            else:
                self._states.put(session_key, claim.next)
                return

    async def _claim_and_insert(
        self,
        connection: Connection,
        key: TranscriptKey,
        batch: Sequence[EncodedEntry],
        claim: _Claim,
        session: ClientSession | None,
    ) -> None:
        try:
            if claim.known is None:
                await self._create_summary(connection, key, claim, session)
            else:
                await _advance_summary(connection, key, claim, claim.known, session)
            # Only now: such a try can hold the summary until just before.
            if len(claim.tries) > 1 and await _is_stored(connection, claim.tries[:-1], session):
                raise _LandedError
            if claim.moves_date:
                await move_date(connection, key, claim.next.expires_at, session)
            await _insert_entries(connection, key, batch, claim, session)
        except _StaleStateError:
            raise
        except BaseException:
            if session is None:
                await _undo_append(connection, key, claim.first_seq, len(batch))
            raise

    async def _create_summary(
        self,
        connection: Connection,
        key: TranscriptKey,
        claim: _Claim,
        session: ClientSession | None,
    ) -> None:
        summary = {
            "_id": claim.next.id,
            **key.session_filter(),
            **claim.changes,
            **_value_fields(self._metadata, "metadata", "packed_metadata"),
            "created_at": connection.server.now(),
            **connection.summary_defaults(),
        }
        expired = {**key.session_filter(), **EXPIRED}
        if claim.clears:
            await connection.summaries.delete_one(expired, session=session)
        try:
            await connection.summaries.insert_one(summary, session=session)
        except DuplicateKeyError:
            # Another writer created the session first.
            raise _StaleStateError from None
        if claim.clears:
            await connection.chunks.delete_many(expired, session=session)
            await connection.entries.delete_many(expired, session=session)
        await _replace_summary_chunks(connection, key, claim, session)


async def _is_stored(
    connection: Connection, tries: Sequence[ObjectId], session: ClientSession | None
) -> bool:
    query = {"_id": {"$in": list(tries)}}
    return await connection.entries.find_one(query, {"_id": 1}, session=session) is not None


async def _confirmed(
    connection: Connection, read: Callable[[ClientSession | None], Awaitable[T]]
) -> T:
    """What is read of the transcript, once a majority has it.

    An entry that only a primary without followers has may be lost yet, so a batch that is found
    there must not be acknowledged. The commit of a transaction waits for what it read.
    """
    attempts = Attempts()
    while True:
        try:
            return await transact(connection.client, connection.server, read, attempts)
        except TransientFailureError:
            if not await attempts.pause():
                raise


async def _contents(batch: Sequence[EncodedEntry]) -> list[Mapping[str, Any]]:
    """The entries as they are stored: a caller may change its own dicts meanwhile."""

    def contents() -> list[Mapping[str, Any]]:
        return [encoded.content() for encoded in batch]

    is_large = sum(encoded.size for encoded in batch) > _LARGE_BYTES
    return await asyncio.to_thread(contents) if is_large else contents()


def _claim(
    connection: Connection,
    count: int,
    known: SessionState | None,
    folded: Mapping[str, Any] | None,
    retention: Retention,
    tries: Sequence[ObjectId],
) -> _Claim:
    """A try to append ``count`` entries, with the new fold if they are of the main transcript."""
    clears = retention.is_managed if known is None else known.is_expired
    if known is not None and known.is_expired:
        known = None
    now = connection.server.now()
    expires_at = known.expires_at if known else None
    moves_date = False
    if not (known and known.held_at) and retention.is_due(expires_at, now):
        expires_at = retention.expiry(now)
        moves_date = known is not None
    first_seq = known.next_seq if known else 1
    mtime = known.mtime if known else 0
    data = known.data if known else None
    field = known.data_field if known else None
    chunks: tuple[bytes, ...] | None = None
    changes: dict[str, Any] = {"next_seq": Int64(first_seq + count), "active_at": now}
    removed: tuple[str, ...] = ()
    if expires_at is not None and (moves_date or known is None):
        changes["expires_at"] = expires_at
    if folded is not None:
        mtime = max(connection.server.now_ms(), mtime + 1)
        changes["mtime"] = Int64(mtime)
        # Most batches change nothing in the fold; then the summary's text stays as it is.
        if folded != data:
            value = encode_object(dict(folded))
            fields = _value_fields(value, "data", "packed_data")
            changes |= fields
            (field,) = fields
            removed = tuple(name for name in DATA_FIELDS if name != field)
            if value.chunks or (known and known.data_field == "data_chunks"):
                chunks = value.chunks
            data = folded
    return _Claim(
        tries=(*tries, ObjectId()),
        known=known,
        next=SessionState(
            id=known.id if known else ObjectId(),
            next_seq=first_seq + count,
            mtime=mtime,
            data=data,
            data_field=field,
            expires_at=expires_at,
            held_at=known.held_at if known else None,
        ),
        first_seq=first_seq,
        changes=changes,
        removed=(
            *(removed if known and known.data_field in removed else ()),
            *(("expires_at",) if moves_date and expires_at is None else ()),
        ),
        data_chunks=chunks,
        moves_date=moves_date,
        clears=clears,
    )


async def _advance_summary(
    connection: Connection,
    key: TranscriptKey,
    claim: _Claim,
    known: SessionState,
    session: ClientSession | None,
) -> None:
    update: dict[str, Any] = {"$set": claim.changes}
    if claim.removed:
        update["$unset"] = dict.fromkeys(claim.removed, "")
    # A session that was deleted and made anew counts from 1 again; its _id tells it apart.
    query = {
        **key.session_filter(),
        "_id": known.id,
        "next_seq": known.next_seq,
        "expires_at": known.expires_at,
        "held_at": known.held_at,
    }
    if known.expires_at is not None:
        query |= NOT_EXPIRED
    if not await update_one(connection.summaries, query, update, session):
        raise _StaleStateError
    await _replace_summary_chunks(connection, key, claim, session)


async def _replace_summary_chunks(
    connection: Connection, key: TranscriptKey, claim: _Claim, session: ClientSession | None
) -> None:
    if claim.data_chunks is None:
        return
    owner = {
        **key.session_filter(),
        "collection": connection.summaries.name,
        "subpath": "",
        "seq": 0,
    }
    await connection.chunks.delete_many(owner, session=session)
    if claim.data_chunks:
        dated = {} if claim.next.expires_at is None else {"expires_at": claim.next.expires_at}
        chunks = _chunks({**owner, **dated}, claim.data_chunks)
        await connection.chunks.insert_many(chunks, session=session)


async def move_date(
    connection: Connection,
    key: TranscriptKey,
    expires_at: datetime | None,
    session: ClientSession | None,
) -> None:
    """Give the entries and chunks of a session its date of expiry, or none."""
    change = {"$unset": {"expires_at": ""}}
    if expires_at is not None:
        change = {"$set": {"expires_at": expires_at}}
    for collection in (connection.entries, connection.chunks):
        await collection.update_many(key.session_filter(), change, session=session)


async def _delete_session(
    connection: Connection, key: TranscriptKey, session: ClientSession | None
) -> None:
    owners = [connection.entries.name, connection.summaries.name]
    chunks = {**key.session_filter(), "collection": {"$in": owners}}
    await connection.chunks.delete_many(chunks, session=session)
    await connection.entries.delete_many(key.session_filter(), session=session)
    # Last: on a server without transactions, a delete that was cut short can then be repeated.
    await connection.summaries.delete_one(key.session_filter(), session=session)


async def _insert_entries(
    connection: Connection,
    key: TranscriptKey,
    batch: Sequence[EncodedEntry],
    claim: _Claim,
    session: ClientSession | None,
) -> None:
    dated = {} if claim.next.expires_at is None else {"expires_at": claim.next.expires_at}
    chunks: list[dict[str, Any]] = []
    for seq, encoded in enumerate(batch, claim.first_seq):
        if encoded.chunks:
            owner = {
                **key.transcript_filter(),
                "collection": connection.entries.name,
                "seq": Int64(seq),
                **dated,
            }
            chunks.extend(_chunks(owner, encoded.chunks))
    if chunks:
        await connection.chunks.insert_many(chunks, session=session)
    common = {"created_at": claim.changes["active_at"], **dated}
    documents = _documents(connection, key, batch, claim, common)
    try:
        await insert_encoded(connection.entries, documents, session)
    except BulkWriteError as error:
        if any(
            failure.get("code") == _DUPLICATE_KEY
            and list(failure.get("keyPattern", {}).items()) == _UUID_KEYS
            for failure in error.details.get("writeErrors", ())
        ):
            raise _ReplayError from None
        raise


def _documents(
    connection: Connection,
    key: TranscriptKey,
    batch: Sequence[EncodedEntry],
    claim: _Claim,
    common: dict[str, Any],
) -> list[bytes]:
    """The entries' documents, put together from what is encoded once for all of them."""
    head = bson_elements(key.transcript_filter()) + _SEQ_HEAD
    tail = bson_elements(common)
    # A team's defaults may differ from entry to entry.
    has_defaults = connection.entry_defaults is not dict
    documents: list[bytes] = []
    own_id = bson_elements({"_id": claim.tries[-1]})
    for seq, encoded in enumerate(batch, claim.first_seq):
        if has_defaults:
            tail = bson_elements({**common, **connection.entry_defaults()})
        documents.append(bson_document(own_id, head, _INT64(seq), encoded.elements, tail))
        own_id = b""
    return documents


def _chunks(owner: dict[str, Any], parts: Sequence[bytes]) -> list[dict[str, Any]]:
    return [{**owner, "part": part, "data": Binary(data)} for part, data in enumerate(parts)]


def _value_fields(value: EncodedValue | None, native: str, packed: str) -> dict[str, Any]:
    """The one field that keeps an encoded value in a summary."""
    if value is None:
        return {}
    if value.native is not None:
        return {native: value.native}
    if value.packed is not None:
        return {packed: value.packed}
    return {"data_chunks": len(value.chunks)}


async def _undo_append(
    connection: Connection, key: TranscriptKey, first_seq: int, count: int
) -> None:
    """Without transactions: take back what a failed insert left, and fold anew what is stored."""
    claimed = {**key.transcript_filter(), "seq": {"$gte": first_seq, "$lt": first_seq + count}}
    try:
        await connection.entries.delete_many(claimed)
        await connection.chunks.delete_many({**claimed, "collection": connection.entries.name})
        if key.is_main:
            await refold(connection, key)
    except PyMongoError:
        logger.warning(
            "Could not take back a failed append to %s: the server has no transactions and went "
            "away. Some entries of the batch may be stored, and its summary may be ahead of them.",
            key,
        )


async def refold(connection: Connection, key: TranscriptKey) -> None:
    """Write the fold of what is stored into the session's summary.

    It moves ``next_seq`` on by one, so that what other writers remember of the summary misses.
    """
    attempts = Attempts()
    while True:
        known = await read_state(connection, key)
        if known is None:
            return
        data: dict[str, Any] | None = None
        pending: list[dict[str, Any]] = []
        count = 0
        async for entry in stream(connection, key, 0):
            pending.append(entry)
            count += 1
            if len(pending) == _REFOLD_BATCH:
                data = fold(_folded_state(known, data), key, pending)
                pending.clear()
        data = fold(_folded_state(known, data), key, pending)
        # Without an entry it has no main transcript, and is not listed either.
        value = encode_object(data) if count else None
        fields = _value_fields(value, "data", "packed_data")
        removed = tuple(name for name in DATA_FIELDS if name not in fields)
        claim = _Claim(
            known=known,
            next=known,
            first_seq=known.next_seq,
            changes={"next_seq": Int64(known.next_seq + 1), **fields},
            removed=removed if count else ("mtime", *removed),
            data_chunks=value.chunks if value else (),
        )
        try:
            await _advance_summary(connection, key, claim, known, None)
            return
        except _StaleStateError:
            if not await attempts.pause():
                return


def _folded_state(known: SessionState, data: dict[str, Any] | None) -> SessionState:
    return SessionState(known.id, known.next_seq, known.mtime, data, None)
