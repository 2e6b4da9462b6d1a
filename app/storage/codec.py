"""Entries to documents and back, losslessly.

Native BSON is the rule, so that entries stay queryable. A value that BSON cannot hold, or that
PyMongo would not read back as it was, is packed; a packed value too large for one document is cut
into chunks.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import bson
from bson.raw_bson import RawBSONDocument

from ...models.packing import compress, json_text, unpack
from ...models.plain import JSON_CODEC
from ..errors import InvalidEntryError, InvalidMetadataError
from .bson_elements import bson_document, bson_elements, bson_elements_of_each
from .native import (
    MAX_NATIVE_DEPTH,
    NotJsonError,
    check_deep,
    checked_depth,
    is_plainly_native,
    reads_back_as_dbref,
)
from .uuids import fingerprint, further_key, idempotency_key, is_further_key

MAX_DOCUMENT_BYTES = 16 * 1024 * 1024
MAX_METADATA_BYTES = 64 * 1024

# What a document holds besides the value: the key, totals, metadata, and fields that teams add.
_ENVELOPE_BYTES = 512 * 1024

MAX_VALUE_BYTES = MAX_DOCUMENT_BYTES - _ENVELOPE_BYTES
CHUNK_BYTES = 8 * 1024 * 1024

# The driver's own errors, and whatever the code of a value raises that is no JSON.
_NOT_NATIVE = Exception


@dataclass(frozen=True, slots=True)
class EncodedValue:
    """A JSON object in the form in which a document keeps it; one of the three is set."""

    native: RawBSONDocument | None = None
    packed: bytes | None = None
    chunks: tuple[bytes, ...] = ()

    @property
    def size(self) -> int:
        """Bytes that the value takes, chunks included."""
        if self.native is not None:
            return len(self.native.raw)
        return len(self.packed or b"") + sum(map(len, self.chunks))


# How the element of a native entry begins: its type, and its name.
_NATIVE = b"\x03entry\0"


# Not frozen: that makes a new one take three times as long.
@dataclass(slots=True)
class EncodedEntry:
    """An entry ready to be stored: its idempotency key, its form, and the entry itself."""

    uuid: str | None
    """That of its uuid, or where another entry has that one, of its uuid and content."""
    elements: bytes
    """The BSON elements of its document that depend on the entry, see :func:`bson_elements`."""
    chunks: tuple[bytes, ...]
    """What is stored besides the document, where that is too small for it."""
    entry: Mapping[str, Any]
    """The caller's own dict. It may change as soon as something is awaited; see
    :meth:`content`."""
    is_copied: bool = False
    """Whether it is of a history that was copied from another session."""

    @classmethod
    def of(cls, uuid: str | None, value: EncodedValue, entry: Mapping[str, Any]) -> EncodedEntry:
        """An entry that is encoded already."""
        fields: dict[str, Any] = {} if uuid is None else {"uuid": uuid}
        if value.native is not None:
            fields["entry"] = value.native
        elif value.packed is not None:
            fields["packed"] = value.packed
        else:
            fields["chunks"] = len(value.chunks)
        return cls(uuid, bson_elements(fields), value.chunks, entry)

    @property
    def size(self) -> int:
        """Bytes that it takes, chunks included."""
        return len(self.elements) + sum(map(len, self.chunks))

    @property
    def is_packed(self) -> bool:
        """Whether it is stored in packed form."""
        fields = 0 if self.uuid is None else len(bson_elements({"uuid": self.uuid}))
        return not self.elements.startswith(_NATIVE, fields)

    @property
    def is_further(self) -> bool:
        """Whether it is kept beside another entry that has its uuid."""
        return self.uuid is not None and is_further_key(self.uuid)

    @property
    def own_key(self) -> str | None:
        """The idempotency key of its uuid."""
        return idempotency_key(self.content()["uuid"]) if self.is_further else self.uuid

    def rekey(self, uuid: str) -> None:
        """Have it stored under another idempotency key."""
        if uuid != self.uuid:
            rest = self.elements[len(bson_elements({"uuid": self.uuid})) :]
            self.uuid, self.elements = uuid, bson_elements({"uuid": uuid}) + rest

    def content(self) -> Mapping[str, Any]:
        """The entry as it is stored, whatever became of the caller's dict since."""
        document = bson_document(len(self.elements), self.elements)
        fields = bson.decode(document, JSON_CODEC)  # pyright: ignore[reportUnknownMemberType]
        if "entry" in fields:
            return fields["entry"]
        return unpack(fields["packed"] if "packed" in fields else b"".join(self.chunks))


@dataclass(slots=True)
class Draft:
    """A batch as its caller handed it over, whatever becomes of the caller's dicts since."""

    entries: list[EncodedEntry]
    texts: dict[int, bytes]
    """The JSON of those entries by their place that are still to be packed."""

    async def encoded(self) -> list[EncodedEntry]:
        """All of them encoded; nothing is awaited unless some are to be packed."""
        return await asyncio.to_thread(self._packed) if self.texts else self.entries

    def _packed(self) -> list[EncodedEntry]:
        for at, text in self.texts.items():
            draft = self.entries[at]
            self.entries[at] = EncodedEntry.of(draft.uuid, _packed_value(text), draft.entry)
        # With entries of our own, for the caller's may have changed meanwhile.
        return distinct([replace(each, entry=each.content()) for each in self.entries])


def draft_entries(entries: object) -> Draft:
    """Check a batch and take it down; an entry with uuid that came before in it is left out.

    Raises:
        InvalidEntryError: the batch is no sequence of JSON objects. It names the first offender.
    """
    if not isinstance(entries, (list, tuple)):
        raise InvalidEntryError(
            f"entries must be a list of JSON objects, not {type(entries).__name__}; "
            "nothing was stored. Pass the batch as a list of dicts."
        )
    items = cast("Sequence[object]", entries)
    encoded = _encode_usual(items)
    return _draft_one_by_one(items) if encoded is None else Draft(encoded, {})


async def encode_entries(entries: object) -> list[EncodedEntry]:
    """As :func:`draft_entries`, and encoded to the end."""
    return await draft_entries(entries).encoded()


def _encode_usual(items: Sequence[object]) -> list[EncodedEntry] | None:
    """The batch, or ``None`` where an entry of it needs a closer look.

    Every append takes this way, so it does what :func:`encode_native` does for one entry for all
    of them together, with as little work as possible.
    """
    if not {dict}.issuperset(map(type, items)):
        return None
    documents: list[dict[str, Any]] = []
    for entry in cast("Sequence[dict[str, Any]]", items):
        uuid = idempotency_key(entry.get("uuid"))
        documents.append({"entry": entry} if uuid is None else {"uuid": uuid, "entry": entry})
    try:
        encoded = bson_elements_of_each(documents)
    except _NOT_NATIVE:
        return None
    if max(map(len, encoded), default=0) > MAX_VALUE_BYTES or not is_plainly_native(items):
        return None
    return distinct(
        [
            EncodedEntry(document.get("uuid"), elements, (), document["entry"])
            for document, elements in zip(documents, encoded, strict=True)
        ]
    )


def _draft_one_by_one(items: Sequence[object]) -> Draft:
    encoded: list[EncodedEntry] = []
    texts: dict[int, bytes] = {}
    for index, item in enumerate(items):
        if not isinstance(item, dict):
            raise InvalidEntryError(
                f"entry {index} of the batch is {type(item).__name__}, not a JSON object "
                "(dict); nothing of the batch was stored. Pass each transcript line as a dict."
            )
        entry = cast("dict[str, Any]", item)
        try:
            value = encode_native(entry)
            text = _checked_text(entry) if value is None else b""
        except NotJsonError as error:
            raise InvalidEntryError(
                f"entry {index} of the batch is no JSON: {error}; nothing of the batch was "
                "stored. Pass what json.loads returns: dicts with string keys, lists, strings, "
                "numbers, booleans and None."
            ) from None
        uuid = idempotency_key(entry.get("uuid"))
        if value is None:
            texts[len(encoded)] = text
            encoded.append(EncodedEntry(uuid, b"", (), entry))
        else:
            encoded.append(EncodedEntry.of(uuid, value, entry))
    return Draft(encoded if texts else distinct(encoded), texts)


def distinct(entries: list[EncodedEntry]) -> list[EncodedEntry]:
    """The entries of a batch, each with an idempotency key that no other of them has.

    What is there twice, uuid and all, comes once. Agents also write different entries under one
    uuid: each further one gets the key of its uuid and content.
    """
    uuids = [entry.uuid for entry in entries if entry.uuid is not None]
    if len(set(uuids)) == len(uuids):
        return entries
    counts = Counter(uuids)
    seen: dict[str, set[bytes]] = {}
    found: list[EncodedEntry] = []
    for entry in entries:
        if entry.uuid is not None and counts[entry.uuid] > 1:
            digest = fingerprint(entry.content())
            known = seen.setdefault(entry.uuid, set())
            if digest in known:
                continue
            if known:
                entry.rekey(further_key(entry.uuid, digest))
            known.add(digest)
        found.append(entry)
    return found


def encode_metadata(metadata: object) -> EncodedValue | None:
    """Encode the caller's metadata; ``None`` stays ``None``.

    Raises:
        InvalidMetadataError: it is no JSON object, or larger than a document can take.
    """
    if metadata is None:
        return None
    if not isinstance(metadata, dict):
        raise InvalidMetadataError(
            f"metadata must be a JSON object (dict) or None, not {type(metadata).__name__}."
        )
    checked = cast("dict[str, Any]", metadata)
    try:
        value = encode_object(checked)
    except NotJsonError as error:
        raise InvalidMetadataError(
            f"metadata is no JSON: {error}. Give dates and ids as strings."
        ) from None
    if value.size > MAX_METADATA_BYTES:
        raise InvalidMetadataError(
            f"metadata takes {value.size} bytes, more than {MAX_METADATA_BYTES}; it is put on "
            "every session, so keep a reference in it instead of the thing itself."
        )
    return value


def encode_object(value: dict[str, Any]) -> EncodedValue:
    """Encode one JSON object, natively where BSON gives it back unchanged.

    Raises:
        NotJsonError: it holds something that ``json.loads`` cannot have returned.
    """
    return encode_native(value) or encode_packed(value)


def encode_native(value: dict[str, Any]) -> EncodedValue | None:
    """The native form of a JSON object, or ``None`` where BSON does not give it back unchanged."""
    try:
        wrapped = bson.encode({"value": value})
    except _NOT_NATIVE:
        check_deep(value)
        return None
    if checked_depth(value) > MAX_NATIVE_DEPTH:
        return None
    # The wrapper keeps "_id" where it stands; encoding the value itself would move it.
    document = wrapped[_WRAPPER_HEAD:-1]
    if len(document) > MAX_VALUE_BYTES or reads_back_as_dbref(document):
        return None
    return EncodedValue(native=RawBSONDocument(document))


def encode_packed(value: dict[str, Any]) -> EncodedValue:
    """The packed form of a JSON object, cut into chunks where one document cannot take it.

    Raises:
        NotJsonError: it holds itself.
    """
    return _packed_value(_checked_text(value))


def _checked_text(value: dict[str, Any]) -> bytes:
    try:
        return json_text(value)
    except ValueError as error:
        raise NotJsonError(f"it holds itself ({error})") from None


def _packed_value(text: bytes) -> EncodedValue:
    packed = compress(text)
    if len(packed) <= MAX_VALUE_BYTES:
        return EncodedValue(packed=packed)
    parts = range(0, len(packed), CHUNK_BYTES)
    return EncodedValue(chunks=tuple(packed[at : at + CHUNK_BYTES] for at in parts))


# length of the wrapper (4), type of "value" (1), its name and NUL (6)
_WRAPPER_HEAD = 11
