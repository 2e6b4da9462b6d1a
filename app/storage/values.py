"""Values as a document holds them: native, packed, or in chunks of their own."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from bson import Binary
from bson.errors import InvalidBSON

from ..database.documents import Row
from ..database.driver import ClientSession
from ..encryption.seal import HEAD_BYTES, Sealed, TranscriptCipher
from ..errors import CorruptEntryError
from ..transcript_key import TranscriptKey
from .codec import EncodedEntry, EncodedValue
from .connection import Connection
from .seals import cipher_of, is_sealed, opened, plain_parts, value_in, values_in

LARGE_BYTES = 256 * 1024
"""From here on, decoding holds up the other tasks of the event loop, and goes to a thread."""

CONTENT = {"_id": 0, "entry": 1, "packed": 1, "chunks": 1, "seq": 1}


async def content_of(
    connection: Connection,
    key: TranscriptKey,
    document: dict[str, Any],
    session: ClientSession | None = None,
) -> dict[str, Any]:
    """The entry that a document of the entry collection holds, whichever way it holds it.

    Raises:
        CorruptEntryError: its bytes are damaged, of an unknown format or incomplete.
        EncryptionError: it is sealed and does not open, or is not sealed where it must be.
    """
    keyring = connection.keyring
    if "entry" in document:
        if keyring is not None:
            keyring.take_plain(f"Entry {document['seq']} of {key}")
        return document["entry"]
    what = f"entry {document['seq']} of {key}"
    packed = document.get("packed")
    if is_sealed(packed):
        contents = await opened(connection, key, Sealed.ENTRY, document["seq"], packed)
        return await decoded(contents, what)
    if packed is not None:
        if keyring is not None:
            keyring.take_plain(f"Entry {document['seq']} of {key}")
    else:
        packed = await _joined(
            connection,
            connection.entries.name,
            key,
            document["seq"],
            document,
            "chunks",
            session,
            what,
            Sealed.ENTRY,
        )
    return await decoded(packed, what)


async def opened_entries(
    connection: Connection, key: TranscriptKey, documents: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """The entries that documents of one transcript hold, most of which are sealed.

    Raises:
        KeyError: one is in chunks.
        CorruptEntryError, EncryptionError: as for :func:`content_of`.
    """
    ciphers: dict[bytes, TranscriptCipher] = {}
    size = 0
    for document in documents:
        if "entry" in document:
            continue
        packed: bytes = document["packed"]
        size += len(packed)
        if is_sealed(packed) and packed[:HEAD_BYTES] not in ciphers:
            ciphers[packed[:HEAD_BYTES]] = await cipher_of(connection, key, packed)

    def at_once() -> list[dict[str, Any]]:
        kind, heads = Sealed.ENTRY, ciphers
        return values_in(
            [
                heads[each["packed"][:HEAD_BYTES]].open(kind, each["seq"], each["packed"])
                for each in documents
            ]
        )

    def one_by_one() -> list[dict[str, Any]]:
        kind = Sealed.ENTRY
        found: list[dict[str, Any]] = []
        for document in documents:
            packed: bytes | None = document.get("packed")
            cipher = None if packed is None else ciphers.get(packed[:HEAD_BYTES])
            try:
                if cipher is not None and packed is not None:
                    found.append(value_in(cipher.open(kind, document["seq"], packed)))
                    continue
                if connection.keyring is not None:
                    connection.keyring.take_plain(f"Entry {document['seq']} of {key}")
                found.append(document["entry"] if packed is None else value_in(packed))
            except _UNREADABLE as error:
                raise _unreadable(f"entry {document['seq']} of {key}", error) from error
        return found

    def contents() -> list[dict[str, Any]]:
        # Not all of them are sealed, or one is damaged, which is then named.
        with suppress(KeyError, *_UNREADABLE):
            return at_once()
        return one_by_one()

    return await asyncio.to_thread(contents) if size > LARGE_BYTES else contents()


async def folded_data(
    connection: Connection,
    key: TranscriptKey,
    row: dict[str, Any],
    session: ClientSession | None,
) -> dict[str, Any]:
    """The same for the folded data of a summary.

    Raises:
        CorruptEntryError: its bytes are damaged, of an unknown format or incomplete.
        EncryptionError: it is sealed and does not open, or is not sealed where it must be.
    """
    what = f"the summary of {key}"
    keyring = connection.keyring
    if row.get("data") is not None:
        if keyring is not None:
            keyring.take_plain(f"The summary of {key}")
        return row["data"]
    packed = row.get("packed_data")
    if is_sealed(packed):
        contents = await opened(connection, key.session, Sealed.FOLD, 0, packed)
        return await decoded(contents, what)
    if packed is not None:
        if keyring is not None:
            keyring.take_plain(f"The summary of {key}")
    else:
        packed = await _joined(
            connection,
            connection.summaries.name,
            key.session,
            0,
            row,
            "data_chunks",
            session,
            what,
            Sealed.FOLD,
        )
    return await decoded(packed, what)


class _PartRow(Row):
    data: Any = None


async def _joined(
    connection: Connection,
    owner: str,
    key: TranscriptKey,
    seq: int,
    document: dict[str, Any],
    count_field: str,
    session: ClientSession | None,
    what: str,
    kind: Sealed,
) -> bytes:
    query = {
        **key.of_session,
        "collection": owner,
        "subpath": key.subpath,
        "seq": seq,
    }
    found = connection.chunks.find(query, rows=_PartRow, sort=[("part", 1)], session=session)
    parts: list[bytes] = [part.data async for part in found]
    if len(parts) != document.get(count_field):
        raise CorruptEntryError(
            f"Cannot read {what}: of its {document.get(count_field)} chunks {len(parts)} are in "
            f"{connection.chunks.name}. Restore them from a backup, or delete the session."
        )
    keyring = connection.keyring
    # The first tells: a part of what is packed may begin with any byte.
    if not parts or not is_sealed(parts[0]):
        if keyring is not None:
            keyring.take_plain(what)
        return b"".join(parts)
    cipher = await cipher_of(connection, key, parts[0])
    # Without transactions they are sealed one after another, the first one first.
    is_cut_off = not connection.server.has_transactions
    plain = frozenset(plain_parts(parts) if is_cut_off else ())
    if plain and keyring is not None:
        keyring.take_plain(what)

    def opened_part(at: int, part: bytes) -> bytes:
        return part if at in plain else cipher.open(kind, seq, part, at, len(parts))

    def whole() -> bytes:
        return b"".join(opened_part(at, part) for at, part in enumerate(parts))

    return await asyncio.to_thread(whole)


async def decoded(packed: bytes, what: str) -> dict[str, Any]:
    """What packed bytes hold; ``what`` names them in the error.

    Raises:
        CorruptEntryError: they are damaged, or of an unknown format.
    """
    try:
        if len(packed) > LARGE_BYTES:
            return await asyncio.to_thread(value_in, packed)
        return value_in(packed)
    except _UNREADABLE as error:
        raise _unreadable(what, error) from error


_UNREADABLE = (ValueError, TypeError, InvalidBSON, zlib.error)


def _unreadable(what: str, error: Exception) -> CorruptEntryError:
    return CorruptEntryError(
        f"Cannot read {what}: {error}. If a newer release wrote it, install that release; "
        "else restore it from a backup, or delete the session."
    )


def chunk_documents(owner: dict[str, Any], parts: Sequence[bytes]) -> list[dict[str, Any]]:
    """The documents for the slices of one value."""
    return [{**owner, "part": part, "data": Binary(data)} for part, data in enumerate(parts)]


def value_fields(value: EncodedValue | None, native: str, packed: str) -> dict[str, Any]:
    """The one field that keeps an encoded value in a summary."""
    if value is None:
        return {}
    if value.native is not None:
        return {native: value.native}
    if value.packed is not None:
        return {packed: value.packed}
    return {"data_chunks": len(value.chunks)}


async def batch_contents(batch: Sequence[EncodedEntry]) -> list[Mapping[str, Any]]:
    """The entries as they are stored: a caller may change its own dicts meanwhile."""

    def contents() -> list[Mapping[str, Any]]:
        return [encoded.content() for encoded in batch]

    is_large = sum(encoded.size for encoded in batch) > LARGE_BYTES
    return await asyncio.to_thread(contents) if is_large else contents()
