"""What is sealed of entries and summaries, and what stands for it in their documents.

A sealed value takes the place of a packed one, so whatever handles those handles it too. Its
contents are what is packed, or the BSON of what is native, compressed where that is worth it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from struct import Struct
from typing import Any, TypeGuard, cast

import bson
from bson import Binary, ObjectId

from ...models.packing import SEALED, unpack
from ...models.plain import JSON_CODEC
from ...models.totals import TEXTS
from ..encryption.compression import COMPRESSED_FROM, compressed, decompressed
from ..encryption.encryption import subject_in
from ..encryption.keyring import Keyring
from ..encryption.seal import HEAD_BYTES, Sealed, SessionCipher, TranscriptCipher, key_id_of
from ..errors import NoKeysError
from ..transcript_key import TranscriptKey
from .codec import EncodedEntry, EncodedValue
from .connection import Connection
from .state import SessionState

_BSON = b"\x03"
_ZSTD_BSON = b"\x04"

_SIZE = Struct("<i").pack
_UUID_BYTES = len(b"\x02uuid\0") + 4 + 1
_ENTRY_HEAD = b"\x03entry\0"
_PACKED_HEAD = b"\x05packed\0"
# Behind the head: its length, and that it is binary of no special kind.
_BINARY_BYTES = 4 + 1

_OPEN_IN_FLIGHT = ("is_exact", "carried")
"""What is in flight that others ask the server for: figures and names of models."""


def is_sealed(value: object) -> TypeGuard[bytes]:
    """Whether what stands in a document is sealed."""
    return isinstance(value, bytes) and value[:1] == SEALED


def keys_of(connection: Connection, what: object = None) -> Keyring:
    """The keys to open something with, or to do something with them themselves.

    Raises:
        NoKeysError: the store has none.
    """
    if connection.keyring is None:
        met = "This needs keys" if what is None else f"Cannot read {what}: it is encrypted"
        raise NoKeysError(
            f"{met}, and this store was given no keys; nothing was read or changed. Make it with "
            "encryption=Encryption(...), or give the command --keys FILE."
        )
    return connection.keyring


def sealed_elements(encoded: EncodedEntry, cipher: TranscriptCipher, seq: int) -> bytes:
    """The BSON elements of an entry's document, with what it says sealed for its position.

    What is in chunks has none of it in the document; see :func:`sealed_parts`.
    """
    if encoded.chunks:
        return encoded.elements
    sealed = cipher.seal(Sealed.ENTRY, seq, sealed_contents(encoded))
    uuid = encoded.elements[: _uuid_end(encoded)]
    return b"".join((uuid, _PACKED_HEAD, _SIZE(len(sealed)), b"\0", sealed))


def sealed_contents(encoded: EncodedEntry) -> bytes:
    """What is sealed of an entry, unless that is in chunks."""
    elements = encoded.elements
    at = _uuid_end(encoded)
    if elements.startswith(_ENTRY_HEAD, at):
        return _of_bson(elements[at + len(_ENTRY_HEAD) :])
    if elements.startswith(_PACKED_HEAD, at):
        return elements[at + len(_PACKED_HEAD) + _BINARY_BYTES :]
    raise AssertionError("an entry is encoded in an unknown way")


def _uuid_end(encoded: EncodedEntry) -> int:
    return 0 if encoded.uuid is None else _UUID_BYTES + len(encoded.uuid.encode())


def sealed_parts(
    parts: tuple[bytes, ...], cipher: TranscriptCipher, kind: Sealed, seq: int
) -> tuple[bytes, ...]:
    """The chunks of a value, each sealed for its place among the others."""
    count = len(parts)
    return tuple(cipher.seal(kind, seq, part, at, count) for at, part in enumerate(parts))


def plain_parts(parts: Sequence[bytes]) -> list[int]:
    """Which of a value's parts are plain: all of them, or some behind the first."""
    # Any byte may be the first of a plain one, but not all those that a key is named by.
    if not parts or not is_sealed(parts[0]):
        return [*range(len(parts))]
    head = parts[0][:HEAD_BYTES]
    return [at for at, part in enumerate(parts) if part[:HEAD_BYTES] != head]


def sealed_fold(value: EncodedValue, cipher: SessionCipher) -> EncodedValue:
    """A fold with what it says sealed."""
    if value.chunks:
        return EncodedValue(chunks=sealed_parts(value.chunks, cipher.main, Sealed.FOLD, 0))
    native = value.native
    contents = _of_bson(bytes(native.raw)) if native is not None else value.packed or b""
    return EncodedValue(packed=cipher.main.seal(Sealed.FOLD, 0, contents))


def sealed_totals(
    document: Mapping[str, Any],
    texts: Mapping[str, str | None],
    next_seq: int,
    cipher: SessionCipher,
) -> dict[str, Any]:
    """The fields of a summary for its totals and texts, with what is said sealed.

    It is bound to the position of the next entry, so what was there before does not open.
    """
    in_flight: Mapping[str, Any] = document.get("in_flight", {})
    shown = {name: in_flight[name] for name in _OPEN_IN_FLIGHT if name in in_flight}
    hidden = {name: value for name, value in in_flight.items() if name not in shown}
    state = {"texts": {name: text for name, text in texts.items() if text}, "in_flight": hidden}
    contents = _of_bson(bson.encode(state))
    totals = {name: value for name, value in document.items() if name != "in_flight"}
    if shown:
        totals["in_flight"] = shown
    sealed = cipher.main.seal(Sealed.STATE, next_seq, contents)
    return {"totals": totals, "sealed": Binary(sealed)}


def value_in(contents: bytes) -> dict[str, Any]:
    """What opened contents say.

    Raises:
        ValueError: they are of a format that this release does not know.
    """
    document = document_in(contents)
    return unpack(contents) if document is None else of_document(document)


def document_in(contents: bytes) -> bytes | None:
    """The BSON of opened contents; ``None`` where they are packed.

    Raises:
        ValueError: they are damaged.
    """
    kind = contents[:1]
    if kind == _BSON:
        return contents[1:]
    return decompressed(contents[1:]) if kind == _ZSTD_BSON else None


def of_document(document: bytes) -> dict[str, Any]:
    """What the BSON of a JSON object says."""
    return bson.decode(document, JSON_CODEC)  # pyright: ignore[reportUnknownMemberType]


def values_in(contents: Sequence[bytes]) -> list[dict[str, Any]]:
    """What many opened contents say, in less time than one by one.

    Raises:
        ValueError: one is of a format that this release does not know.
    """
    documents: list[bytes] = []
    for each in contents:
        document = document_in(each)
        if document is None:
            return [value_in(each) for each in contents]
        documents.append(document)
    joined = b"".join(documents)
    return bson.decode_all(joined, JSON_CODEC)  # pyright: ignore[reportUnknownMemberType]


async def opened(
    connection: Connection, key: TranscriptKey, kind: Sealed, seq: object, sealed: bytes
) -> bytes:
    """The contents of what was sealed in a transcript.

    Raises:
        EncryptionError: it does not open.
    """
    return (await cipher_of(connection, key, sealed)).open(kind, seq, sealed)


async def cipher_of(connection: Connection, key: TranscriptKey, sealed: bytes) -> TranscriptCipher:
    """What opens something that was sealed in a transcript.

    Raises:
        EncryptionError: its key is not to be had.
    """
    keyring = keys_of(connection, key)
    cipher = keyring.known_cipher(key, sealed) or await keyring.cipher_for(key, sealed)
    return cipher.of(key.subpath)


async def opened_folds(
    connection: Connection, tenant: str, project_key: str, rows: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any] | None]:
    """The folds of a project's summaries whose folds are sealed; ``None`` for all others.

    ``None`` also stands for one whose key is not to be had: whoever asks for it by itself is told.

    Raises:
        DamagedSealError: one does not open.
        ValueError: one is of a format that this release does not know.
    """
    keyring = keys_of(connection, f"Project {project_key} of tenant {tenant}")
    sealed = [each if is_sealed(each := row.get("packed_data")) else None for row in rows]
    # Most have one key in common.
    by_head = {each[:HEAD_BYTES]: each for each in sealed if each is not None}
    await keyring.fetch(key_id_of(each, "a summary") for each in by_head.values())
    found: list[dict[str, Any] | None] = [None] * len(rows)
    places: list[int] = []
    contents: list[bytes] = []
    for place, (row, each) in enumerate(zip(rows, sealed, strict=True)):
        if each is not None:
            key = TranscriptKey(tenant, project_key, row["session_id"])
            cipher = keyring.known_cipher(key, each)
            if cipher is not None:
                places.append(place)
                contents.append(cipher.main.open(Sealed.FOLD, 0, each))
    for place, value in zip(places, values_in(contents), strict=True):
        found[place] = value
    return found


async def opened_state(
    connection: Connection, key: TranscriptKey, row: Mapping[str, Any]
) -> tuple[dict[str, str | None], dict[str, Any]]:
    """The texts of a summary, and what is in flight of its totals, where that is sealed.

    ``row`` has the fields ``sealed`` and ``totals``.

    Raises:
        EncryptionError: it does not open.
    """
    totals: object = row.get("totals")
    next_seq = cast("dict[str, Any]", totals).get("next_seq") if isinstance(totals, dict) else None
    contents = await opened(connection, key.session, Sealed.STATE, next_seq, row["sealed"])
    state = value_in(contents)
    texts: dict[str, Any] = state.get("texts", {})
    return {name: texts.get(name) for name in TEXTS}, state.get("in_flight", {})


def key_id_in(row: Mapping[str, Any]) -> ObjectId | None:
    """The key that a summary is sealed with, if it is."""
    sealed = row.get("sealed")
    if not is_sealed(sealed):
        return None
    return key_id_of(sealed, "a summary")


async def cipher_to_write(
    connection: Connection,
    key: TranscriptKey,
    known: SessionState | None,
    metadata: EncodedValue | None,
) -> SessionCipher | None:
    """What seals that which is written to a session; ``None`` where nothing is sealed.

    A session stays with the key that it began with. Without a state, it is a new one with this
    metadata.

    Raises:
        EncryptionError: its key is not to be had.
    """
    keyring = connection.keyring
    if keyring is None:
        return None
    session = key.session
    if known is None or known.is_expired:
        return await keyring.cipher_of_subject(session, _subject(metadata, keyring.subject))
    if known.sealed_with is not None:
        return await keyring.cipher_with(session, known.sealed_with)
    return await keyring.cipher_of_subject(session, known.subject)


def subject_of_summary(keyring: Keyring, row: Mapping[str, Any]) -> str:
    """Of whom a stored session is, by its metadata."""
    metadata: object = row.get("metadata")
    packed: object = row.get("packed_metadata")
    if not isinstance(metadata, dict) and isinstance(packed, bytes):
        metadata = unpack(packed)
    given = cast("dict[str, Any]", metadata) if isinstance(metadata, dict) else None
    return subject_in(given, keyring.subject)


def _subject(metadata: EncodedValue | None, field: str | None) -> str:
    if metadata is None or field is None:
        return ""
    native = metadata.native
    given = of_document(bytes(native.raw)) if native is not None else unpack(metadata.packed or b"")
    return subject_in(given, field)


def _of_bson(document: bytes) -> bytes:
    if len(document) < COMPRESSED_FROM:
        return _BSON + document
    return _ZSTD_BSON + compressed(document)
