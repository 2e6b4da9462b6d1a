"""Entries to documents and back, losslessly.

Native BSON is the rule, so that entries stay queryable. A value that BSON cannot hold, or that
PyMongo would not read back as it was, is packed; a packed value too large for one document is cut
into chunks.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from struct import Struct
from typing import Any, cast

import bson
from bson import Code
from bson.raw_bson import RawBSONDocument

from ..models.packing import compress, full_stack, json_text, unpack
from ..models.plain import JSON_CODEC
from .errors import InvalidEntryError, InvalidMetadataError
from .shown import shown

MAX_DOCUMENT_BYTES = 16 * 1024 * 1024
MAX_METADATA_BYTES = 64 * 1024
# What a document holds besides the value: the key, totals, metadata, and fields that teams add.
_ENVELOPE_BYTES = 512 * 1024
MAX_VALUE_BYTES = MAX_DOCUMENT_BYTES - _ENVELOPE_BYTES
CHUNK_BYTES = 8 * 1024 * 1024

# What MongoDB documents as the limit. The server takes some more, but how much depends on its
# version and on the nesting of our own documents.
_MAX_NATIVE_DEPTH = 90
_MAX_UUID_BYTES = 256
_USUAL_UUID_LENGTH = 36
_DIGEST_PREFIX = "sha256:"
# Those of a uuid and of a content, in hexadecimal.
_FURTHER_LENGTH = len(_DIGEST_PREFIX) + 64 + 1 + 64

_SCALARS = frozenset({str, int, float, bool, type(None)})
_VALUES: Callable[[Any], Iterable[Any]] = dict[Any, Any].values

# The driver's own errors, and whatever the code of a value raises that is no JSON.
_NOT_NATIVE = Exception

_INT32 = Struct("<i")
_INT32_BYTES = _INT32.pack
# Its length and the NUL at its end.
_FRAME_BYTES = 5


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
    def is_further(self) -> bool:
        """Whether it is kept beside another entry that has its uuid."""
        return self.uuid is not None and len(self.uuid) == _FURTHER_LENGTH and _is_digest(self.uuid)

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
        encoded = _bson_elements_of_each(documents)
    except _NOT_NATIVE:
        return None
    if max(map(len, encoded), default=0) > MAX_VALUE_BYTES or not _is_plainly_native(items):
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
        _check_deep(value)
        return None
    if _checked_depth(value) > _MAX_NATIVE_DEPTH:
        return None
    # The wrapper keeps "_id" where it stands; encoding the value itself would move it.
    document = wrapped[_WRAPPER_HEAD:-1]
    if len(document) > MAX_VALUE_BYTES or _reads_back_as_dbref(document):
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


def idempotency_key(uuid: object) -> str | None:
    """The indexed form of an entry's ``uuid``, or ``None`` where it has no string there.

    A uuid of the agent's is its own key. A string that BSON or an index cannot hold stands for
    itself by its digest, and so does one that looks like a digest, lest the two meet.
    """
    if not isinstance(uuid, str):
        return None
    is_usual = type(uuid) is str and len(uuid) <= _USUAL_UUID_LENGTH and uuid.isascii()
    if is_usual and not _is_digest(uuid):
        return uuid
    data = uuid.encode("utf-8", "surrogatepass")
    if len(data) <= _MAX_UUID_BYTES and not _is_digest(uuid):
        try:
            uuid.encode()
        except UnicodeEncodeError:
            pass
        else:
            return str.__str__(uuid)
    return _DIGEST_PREFIX + hashlib.sha256(data).hexdigest()


def further_key(uuid: str, content: bytes) -> str:
    """The key of an entry whose uuid, of the key ``uuid``, another entry has.

    It is longer than any digest of a uuid, so the two never meet.

    Args:
        uuid: what :func:`idempotency_key` gives for its uuid.
        content: the entry's :func:`fingerprint`.
    """
    return f"{_DIGEST_PREFIX}{hashlib.sha256(uuid.encode()).hexdigest()}:{content.hex()}"


def _is_digest(uuid: str) -> bool:
    return uuid.startswith(_DIGEST_PREFIX)


def fingerprint(entry: Mapping[str, Any]) -> bytes:
    """A digest that is equal for deep-equal entries, whatever the order of their keys."""
    text = full_stack(lambda: json.dumps(entry, sort_keys=True, ensure_ascii=False))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


class NotJsonError(ValueError):
    """Says which value is none that ``json.loads`` could have returned."""


# length of the wrapper (4), type of "value" (1), its name and NUL (6)
_WRAPPER_HEAD = 11
# two lengths (8), type of the array (1), its empty name (1)
_ARRAY_HEAD = 10


def _reads_back_as_dbref(document: bytes) -> bool:
    """Whether PyMongo could take a part of it for a DBRef, which needs both keys."""
    return b"\x02$ref\0" in document and b"$id\0" in document


def bson_elements(fields: Mapping[str, Any]) -> bytes:
    """Fields in BSON without the frame of a document.

    Fields encoded once can so become part of many documents, each of which is their mere
    concatenation, see :func:`bson_document`.
    """
    return bson.encode(fields)[4:-1]


def _bson_elements_of_each(documents: Sequence[Mapping[str, Any]]) -> list[bytes]:
    # One call for all, as each call has a price of its own.
    array = bson.encode({"": documents})
    encoded: list[bytes] = []
    at = _ARRAY_HEAD
    for index in range(len(documents)):
        # Behind the type and the name of the array's element.
        at += len(str(index)) + 2
        (size,) = _INT32.unpack_from(array, at)
        encoded.append(array[at + 4 : at + size - 1])
        at += size
    return encoded


def bson_document(size: int, *elements: bytes) -> bytes:
    """The BSON document of encoded fields, which take ``size`` bytes together."""
    return b"".join((_INT32_BYTES(size + _FRAME_BYTES), *elements, b"\0"))


def _is_plainly_native(entries: Iterable[Any]) -> bool:
    """Whether dicts that BSON took are read back as they were, and nothing but JSON.

    ``False`` says that :func:`encode_native` must look at each. Going through all of them level
    by level needs hardly a call, so it takes half of the time of one by one.
    """
    level: list[Any] = list(entries)
    for _ in range(_MAX_NATIVE_DEPTH):
        below: list[Any] = []
        for container in level:
            members: Iterable[object]
            if type(container) is dict:
                if "$ref" in container:
                    return False
                members = _VALUES(container)
            else:
                members = container
            for member in members:
                kind = type(member)
                if kind is str:
                    continue
                if kind is dict or kind is list:
                    below.append(member)
                elif kind not in _SCALARS:
                    return False
        if not below:
            return True
        level = below
    return False


def _checked_depth(value: Any, room: int = _MAX_NATIVE_DEPTH) -> int:
    """How many levels ``value`` nests, looking no deeper than ``room``.

    Refuses what JSON does not have. It asks for exact types first, and leaves the rare rest
    (subclasses, and what is refused) to a function of its own.
    """
    if not room:
        _check_deep(value)
        return 1
    depth = 0
    members: Iterable[Any] = value
    if isinstance(value, dict):
        mapping = cast("dict[Any, Any]", value)
        for key in mapping:
            if type(key) is not str:
                _check_key(key)
        members = mapping.values()
    for member in members:
        if type(member) not in _SCALARS and _is_container(member):
            depth = max(depth, _checked_depth(member, room - 1))
    return depth + 1


def _check_deep(value: Any) -> None:
    """The checks of :func:`_checked_depth` where recursion is not safe.

    Each container is looked at once, for one that holds itself would have no end.
    """
    pending = [value]
    seen: set[int] = set()
    while pending:
        container = pending.pop()
        if id(container) in seen:
            continue
        seen.add(id(container))
        if isinstance(container, dict):
            mapping = cast("dict[Any, Any]", container)
            for key in mapping:
                _check_key(key)
            container = list(mapping.values())
        pending.extend(member for member in container if _is_container(member))


def _check_key(key: object) -> None:
    if not isinstance(key, str):
        raise NotJsonError(f"a key is {type(key).__name__} ({shown(key)}), not a string")


def _is_container(value: object) -> bool:
    if isinstance(value, (dict, list)):
        return True
    if isinstance(value, (str, int, float, type(None))) and not isinstance(value, Code):
        return False
    raise NotJsonError(f"a value is {type(value).__name__} ({shown(value)})")
