"""Sealing what is stored plain of a session, beside whoever writes to it.

First its summary, which says with which key; then its entries in batches, each its own write. It
may be cut off anywhere, and goes on where plain ones are left.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, cast

import bson
from bson import Binary, ObjectId
from bson.int64 import Int64
from pymongo import UpdateOne

from ..database.attempts import Attempts, unless_refused
from ..database.documents import Row
from ..database.driver import ClientSession
from ..database.reads import retried
from ..database.transactions import TransientFailureError, transact
from ..encryption.seal import Sealed, SessionCipher
from ..errors import ContentionError, UnknownSessionError
from ..storage.codec import EncodedEntry, EncodedValue, encode_object
from ..storage.connection import Connection
from ..storage.seals import (
    cipher_to_write,
    is_sealed,
    plain_parts,
    sealed_contents,
    sealed_parts,
)
from ..storage.state import DATA_FIELDS, SessionState
from ..transcript_key import TranscriptKey
from .sound_state import sound_state
from .summary_contents import fold_fields, totals_fields
from .summary_update import StaleStateError, SummaryUpdate, advance_summary, mirrored

_SEALED_AT_ONCE = 200
_SEALED_BYTES = 16 * 1024 * 1024
_FIELDS = {"entry": 1, "packed": 1, "chunks": 1, "subpath": 1, "seq": 1}
# By the first byte, for a command has no room for a large value twice: a sealed one has a 2 there.
_IS_PACKED = {"packed": {"$bitsAllClear": [1]}}


async def seal_session(connection: Connection, key: TranscriptKey) -> int:
    """Seal what is plain of a session, and return how many entries that were.

    Raises:
        UnknownSessionError: there is no such session.
        ContentionError: it was written to all the time; some of it may be sealed.
        EncryptionError: its key is not to be had; nothing was changed.
    """
    # What is plain is to be read here, whatever else must not be.
    connection = connection.taking_plain()
    cipher = await _seal_summary(connection, key)
    count = 0
    last: tuple[str, int] | None = None
    while True:
        page = await _next_entries(connection, key, last)
        if not page:
            return count
        count += await _seal_entries(connection, key, cipher, page)
        last = page[-1]["subpath"], page[-1]["seq"]


async def _seal_summary(connection: Connection, key: TranscriptKey) -> SessionCipher:
    attempts = Attempts()
    while True:
        known = await sound_state(connection, key)
        if known is None or known.is_expired or known.totals is None:
            raise UnknownSessionError(
                f"There is no {key}; nothing was changed. Check tenant, project key and session id."
            )
        cipher = await cipher_to_write(connection, key, known, None)
        assert cipher is not None
        if not known.has_plain and known.data_field != "data_chunks":
            return cipher
        if known.data_field == "data_chunks" and not await _has_plain_chunks(connection, key):
            return cipher
        update = _sealing(known, cipher)

        async def work(session: ClientSession | None, update: SummaryUpdate = update) -> None:
            assert update.known is not None
            await advance_summary(connection, key, update, update.known, session)

        try:
            await transact(connection.client, connection.server, work, attempts)
            return cipher
        except (StaleStateError, TransientFailureError):
            if not await attempts.pause():
                raise ContentionError(
                    f"Could not seal {key}: it is written to all the time; nothing was changed. "
                    "Try again."
                ) from None


async def _has_plain_chunks(connection: Connection, key: TranscriptKey) -> bool:
    owner = {**key.of_session, "collection": connection.summaries.name}
    # The first tells, and all were stored at once.
    first = await connection.chunks.find_one(owner, {"part": 0}, rows=_FoldPartRow)
    return first is not None and not is_sealed(first.data)


class _FoldPartRow(Row):
    data: Any = None


def _sealing(known: SessionState, cipher: SessionCipher) -> SummaryUpdate:
    """What is said stays; other writers' memory of it must miss, so the position moves on."""
    assert known.totals is not None
    next_seq = known.next_seq + 1
    fields: dict[str, Any] = {}
    parts: tuple[bytes, ...] = ()
    if known.data is not None:
        fields, parts = fold_fields(known.data, cipher)
    told, gone = totals_fields(known.totals, next_seq, known._replace(has_plain=True), cipher)
    stale = tuple(name for name in DATA_FIELDS if name not in fields)
    return SummaryUpdate(
        known=known,
        next=known._replace(next_seq=next_seq),
        first_seq=known.next_seq,
        changes={
            "next_seq": Int64(next_seq),
            **fields,
            **told,
            **mirrored(known, next_seq),
        },
        removed=(*stale, *gone),
        data_chunks=parts,
        cipher=cipher,
    )


async def _next_entries(
    connection: Connection, key: TranscriptKey, last: tuple[str, int] | None
) -> list[dict[str, Any]]:
    """Some entries behind a place, in the order of the index; as many as fit the memory."""
    query: dict[str, Any] = dict(key.of_session)
    if last is not None:
        subpath, seq = last
        query["$or"] = [{"subpath": subpath, "seq": {"$gt": seq}}, {"subpath": {"$gt": subpath}}]

    async def attempt() -> list[dict[str, Any]]:
        # The driver's own: a model of each would take as long as reading it.
        cursor = connection.entries.collection.find(
            query,
            _FIELDS,
            sort=[("subpath", 1), ("seq", 1)],
            limit=_SEALED_AT_ONCE,
            batch_size=_SEALED_AT_ONCE,
        )
        found: list[dict[str, Any]] = []
        async with aclosing(_each(cursor)) as rows:
            size = 0
            async for row in rows:
                found.append(row)
                size += len(bson.encode(row))
                if size > _SEALED_BYTES:
                    break
        return found

    return await retried(connection.client, attempt)


async def _each(cursor: Any) -> AsyncGenerator[dict[str, Any]]:
    try:
        async for row in cursor:
            yield row
    finally:
        await cursor.close()


async def _seal_entries(
    connection: Connection,
    key: TranscriptKey,
    cipher: SessionCipher,
    rows: Sequence[Mapping[str, Any]],
) -> int:
    changes: list[UpdateOne] = []
    count = 0
    for row in rows:
        subpath, seq = row["subpath"], row["seq"]
        if "chunks" in row and "entry" not in row and row.get("packed") is None:
            count += await _seal_chunks(connection, key.with_subpath(subpath), cipher, seq)
            continue
        value = _plain_value(row)
        if value is None:
            continue
        encoded = EncodedEntry.of(None, value, {})
        sealed = cipher.of(subpath).seal(Sealed.ENTRY, seq, sealed_contents(encoded))
        this = {**key.of_session, "subpath": subpath, "seq": seq, "_id": row["_id"]}
        # What somebody else sealed meanwhile is not plain any more.
        is_plain = {"entry": {"$exists": True}} if "entry" in row else _IS_PACKED
        change = {"$set": {"packed": Binary(sealed)}, "$unset": {"entry": ""}}
        changes.append(UpdateOne({**this, **is_plain}, change))
    if changes:
        bulk = connection.entries.collection.bulk_write
        result = await unless_refused(lambda: bulk(changes, ordered=False))
        count += result.modified_count
    return count


def _plain_value(row: Mapping[str, Any]) -> EncodedValue | None:
    if "entry" in row:
        entry: object = row["entry"]
        # What is none was not written by the store, and is left as it is.
        is_entry = isinstance(entry, dict)
        return encode_object(cast("dict[str, Any]", entry)) if is_entry else None
    packed = row.get("packed")
    if isinstance(packed, bytes) and not is_sealed(packed):
        return EncodedValue(packed=packed)
    return None


async def _seal_chunks(
    connection: Connection, key: TranscriptKey, cipher: SessionCipher, seq: int
) -> int:
    """Seal the chunks of an entry, all of them or none."""
    owner = {**key.of_transcript, "collection": connection.entries.name, "seq": seq}
    chunks = connection.chunks.collection
    done = 0

    async def work(session: ClientSession | None) -> None:
        nonlocal done
        done = 0
        rows = await chunks.find(owner, sort=[("part", 1)], session=session).to_list(None)
        parts: list[bytes] = [row["data"] for row in rows]
        plain = plain_parts(parts)
        # Only without transactions an earlier run may have been cut off among them.
        if not plain or (plain[0] and connection.server.has_transactions):
            return
        sealed = sealed_parts(tuple(parts), cipher.of(key.subpath), Sealed.ENTRY, seq)
        for at in plain:
            ids: dict[str, ObjectId] = {"_id": rows[at]["_id"]}
            change = {"$set": {"data": Binary(sealed[at])}}
            await chunks.update_one({**owner, **ids}, change, session=session)
        done = 1

    attempts = Attempts()
    while True:
        try:
            await transact(connection.client, connection.server, work, attempts)
            return done
        except TransientFailureError:
            if not await attempts.pause():
                raise
