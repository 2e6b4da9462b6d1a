"""Entries to documents and back, losslessly.

Native BSON is the rule, so that entries stay queryable. A value that BSON cannot hold, or that
PyMongo would not read back as it was, is packed; a packed value too large for one document is cut
into chunks.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import bson
from bson import Code
from bson.errors import BSONError
from bson.raw_bson import RawBSONDocument

from ..models.packing import full_stack, pack
from .errors import InvalidEntryError, InvalidMetadataError

MAX_DOCUMENT_BYTES = 16 * 1024 * 1024
MAX_METADATA_BYTES = 64 * 1024
# What a document holds besides the value: the key, metadata, and fields that teams add.
_ENVELOPE_BYTES = 256 * 1024
MAX_VALUE_BYTES = MAX_DOCUMENT_BYTES - _ENVELOPE_BYTES
CHUNK_BYTES = 8 * 1024 * 1024

# What MongoDB documents as the limit. The server takes some more, but how much depends on its
# version and on the nesting of our own documents.
_MAX_NATIVE_DEPTH = 90
_MAX_UUID_BYTES = 256
_DIGEST_PREFIX = "sha256:"

_SCALARS = frozenset({str, int, float, bool, type(None)})


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


@dataclass(frozen=True, slots=True)
class EncodedEntry:
    """An entry ready to be stored: its idempotency key, its form, and the entry itself."""

    uuid: str | None
    value: EncodedValue
    entry: Mapping[str, Any]

    def fields(self) -> dict[str, Any]:
        """The fields of its document that depend on the entry."""
        fields: dict[str, Any] = {}
        if self.uuid is not None:
            fields["uuid"] = self.uuid
        value = self.value
        if value.native is not None:
            fields["entry"] = value.native
        elif value.packed is not None:
            fields["packed"] = value.packed
        else:
            fields["chunks"] = len(value.chunks)
        return fields


async def encode_entries(entries: object) -> list[EncodedEntry]:
    """Check a batch and encode it; an entry whose uuid came before in the batch is left out.

    Raises:
        InvalidEntryError: the batch is no sequence of JSON objects. It names the first offender.
    """
    if not isinstance(entries, (list, tuple)):
        raise InvalidEntryError(
            f"entries must be a list of JSON objects, not {type(entries).__name__}; "
            "nothing was stored. Pass the batch as a list of dicts."
        )
    encoded: list[EncodedEntry] = []
    seen: set[str] = set()
    for index, item in enumerate(cast("Sequence[object]", entries)):
        if not isinstance(item, dict):
            raise InvalidEntryError(
                f"entry {index} of the batch is {type(item).__name__}, not a JSON object "
                "(dict); nothing of the batch was stored. Pass each transcript line as a dict."
            )
        entry = cast("dict[str, Any]", item)
        try:
            value = encode_native(entry)
            if value is None:
                # Compression of a large entry takes long and needs no interpreter lock.
                value = await asyncio.to_thread(encode_packed, entry)
        except NotJsonError as error:
            raise InvalidEntryError(
                f"entry {index} of the batch is no JSON: {error}; nothing of the batch was "
                "stored. Pass what json.loads returns: dicts with string keys, lists, strings, "
                "numbers, booleans and None."
            ) from None
        uuid = idempotency_key(entry.get("uuid"))
        if uuid is not None:
            if uuid in seen:
                continue
            seen.add(uuid)
        encoded.append(EncodedEntry(uuid, value, entry))
    return encoded


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
    except (BSONError, UnicodeEncodeError, OverflowError, RecursionError):
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
    try:
        packed = pack(value)
    except ValueError as error:
        raise NotJsonError(f"it holds itself ({error})") from None
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
    data = uuid.encode("utf-8", "surrogatepass")
    if len(data) <= _MAX_UUID_BYTES and not uuid.startswith(_DIGEST_PREFIX):
        try:
            uuid.encode()
        except UnicodeEncodeError:
            pass
        else:
            return str.__str__(uuid)
    return _DIGEST_PREFIX + hashlib.sha256(data).hexdigest()


def fingerprint(entry: Mapping[str, Any]) -> bytes:
    """A digest that is equal for deep-equal entries, whatever the order of their keys."""
    text = full_stack(lambda: json.dumps(entry, sort_keys=True, ensure_ascii=False))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


class NotJsonError(ValueError):
    """Says which value is none that ``json.loads`` could have returned."""


# length of the wrapper (4), type of "value" (1), its name and NUL (6)
_WRAPPER_HEAD = 11


def _reads_back_as_dbref(document: bytes) -> bool:
    """Whether PyMongo could take a part of it for a DBRef, which needs both keys."""
    return b"\x02$ref\0" in document and b"$id\0" in document


def _checked_depth(value: Any, room: int = _MAX_NATIVE_DEPTH) -> int:
    """How many levels ``value`` nests, looking no deeper than ``room``.

    Refuses what JSON does not have. It runs on every entry, so it asks for exact types first and
    leaves the rare rest (subclasses, and what is refused) to a function of its own.
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
        raise NotJsonError(f"a key is {type(key).__name__} ({key!r:.60}), not a string")


def _is_container(value: object) -> bool:
    if isinstance(value, (dict, list)):
        return True
    if isinstance(value, (str, int, float, type(None))) and not isinstance(value, Code):
        return False
    raise NotJsonError(f"a value is {type(value).__name__} ({value!r:.60})")
