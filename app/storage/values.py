"""Values as a document holds them: native, packed, or in chunks of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from bson import Binary

from ...models.packing import unpack
from ..database.documents import Row
from ..database.driver import ClientSession
from ..errors import CorruptEntryError
from ..transcript_key import TranscriptKey
from .codec import EncodedEntry, EncodedValue
from .connection import Connection

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
    """
    if "entry" in document:
        return document["entry"]
    what = f"entry {document['seq']} of {key}"
    packed = document.get("packed")
    if packed is None:
        packed = await _joined(
            connection,
            connection.entries.name,
            key,
            document["seq"],
            document,
            "chunks",
            session,
            what,
        )
    return await decoded(packed, what)


async def folded_data(
    connection: Connection,
    key: TranscriptKey,
    row: dict[str, Any],
    session: ClientSession | None,
) -> dict[str, Any]:
    """The same for the folded data of a summary.

    Raises:
        CorruptEntryError: its bytes are damaged, of an unknown format or incomplete.
    """
    what = f"the summary of {key}"
    packed = row.get("packed_data")
    if packed is None:
        packed = await _joined(
            connection,
            connection.summaries.name,
            key.session,
            0,
            row,
            "data_chunks",
            session,
            what,
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
    return b"".join(parts)


async def decoded(packed: bytes, what: str) -> dict[str, Any]:
    """What packed bytes hold; ``what`` names them in the error.

    Raises:
        CorruptEntryError: they are damaged, or of an unknown format.
    """
    try:
        if len(packed) > LARGE_BYTES:
            return await asyncio.to_thread(unpack, packed)
        return unpack(packed)
    except (ValueError, TypeError) as error:
        raise CorruptEntryError(
            f"Cannot read {what}: {error}. If a newer release wrote it, install that release; "
            "else restore it from a backup, or delete the session."
        ) from error


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
