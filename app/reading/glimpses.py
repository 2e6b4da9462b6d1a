"""Parts of a session by position, each read in bounded time and room, for pages to look at.

An entry may have megabytes. A part holds it whole where it is small; of a large one the server
sends the beginning of each text, and of one that is packed the beginning is unpacked.
"""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

import bson
from bson.codec_options import CodecOptions
from bson.errors import InvalidBSON
from bson.raw_bson import RawBSONDocument
from pymongo.errors import OperationFailure

from ...models.packing import unpack
from ...models.plain import JSON_CODEC
from ..database.documents import Row
from ..database.reads import retried
from ..encryption.seal import Sealed
from ..errors import CorruptEntryError, EncryptionError
from ..storage.bound_store import Operation
from ..storage.connection import Connection
from ..storage.living import Live, live_of
from ..storage.seals import cipher_of, document_in, is_sealed, of_document
from ..storage.values import CONTENT, content_of
from ..transcript_key import TranscriptKey
from .glimpse_fields import BOUNDED, CUT, UNCUT, WHOLE_BYTES, cut_texts
from .json_beginnings import completed_json

FILLED_BYTES: Final = 2 * 1024 * 1024
"""Of larger ones so much is read whole at once."""


_STORED = {**CONTENT, "subpath": 1}
_STORED_AT_ONCE = 500
_UNDECODED = CodecOptions(document_class=RawBSONDocument)
_UNPACKED_BYTES = 256 * 1024
_PREFIX_BYTES = 24 * 1024
# Of what the server cannot cut, so much is shown whole.
_OPENED_BYTES = 128 * 1024


@dataclass(frozen=True, slots=True)
class Glimpse:
    """An entry as far as it was read."""

    seq: int
    """Its position in the session."""
    subpath: str
    """The transcript that it is of: ``""`` for the main one."""
    entry: dict[str, Any]
    """What it says; the beginnings of its texts where it is not whole."""
    size: int
    """Bytes that it takes as it is stored; of a packed one, compressed."""
    is_whole: bool = True
    problem: str | None = None
    """Why it cannot be read, where it cannot: ``entry`` is empty then."""


@dataclass(frozen=True, slots=True)
class StoredWhole:
    """An entry with all that it says, or ``None`` where that cannot be read."""

    seq: int
    subpath: str
    entry: dict[str, Any] | None
    size: int | None = None
    """Bytes that it took to read; ``None`` for one that was packed, which may be many more."""


class SessionReader:
    """Reads one session by position; what it asks of the server is bounded.

    It is for one request: where the session begins is asked once. Get it from
    :meth:`BeanieSessionStore.reader`.
    """

    def __init__(self, key: TranscriptKey, doing: Callable[..., Operation]) -> None:
        self.key = key.session
        self._doing = doing
        self._live: Live | None = None
        self._is_known = False

    async def window(
        self, first: int, limit: int, *, subpath: str = "", backwards: bool = False
    ) -> list[Glimpse]:
        """At most ``limit`` entries of one transcript from position ``first`` on, in their order.

        With ``backwards`` those up to ``first``, itself included. It is empty where there is no
        such session.

        Raises:
            SessionStoreError: as for the store.
        """
        key = self.key.with_subpath(subpath)
        async with self._doing("read_window", "read a part of", key) as connection:
            live = await self._living(connection)
            if live is None:
                return []
            begin = live.first_of(subpath)
            positions = {"$gte": begin, "$lte": first} if backwards else {"$gte": max(begin, first)}
            query = {**key.of_transcript, "seq": positions}
            rows = await self._rows(connection, query, -1 if backwards else 1, limit)
            if backwards:
                rows.reverse()
            await self._fill(connection, rows)
            return [await _glimpse(connection, key, row) for row in rows]

    async def since(self, after: int, limit: int) -> list[Glimpse]:
        """At most ``limit`` entries of all transcripts behind a position, in the order of writing.

        Raises:
            SessionStoreError: as for the store.
        """
        async with self._doing("read_since", "read what came to", self.key) as connection:
            live = await self._living(connection)
            if live is None:
                return []
            query = {**self.key.of_session, **live.in_session()}
            query["seq"] = {"$gt": max(after, live.first_seq - 1)}
            rows = await self._rows(connection, query, 1, limit)
            await self._fill(connection, rows)
            return [
                await _glimpse(connection, self.key.with_subpath(row["subpath"]), row)
                for row in rows
            ]

    async def place_of(self, seq: int) -> str | None:
        """The subpath of the transcript that has the entry of a position; ``None`` for none."""
        async with self._doing("find_entry", "find an entry of", self.key) as connection:
            row = await self._at(connection, seq, {"_id": 0, "subpath": 1, "seq": 1})
            return None if row is None else row["subpath"]

    async def entry(self, seq: int) -> Glimpse | None:
        """One entry, whole however large it is; ``None`` for none.

        Raises:
            CorruptEntryError: it is damaged.
            SessionStoreError: as for the store.
        """
        async with self._doing("read_entry", "read an entry of", self.key) as connection:
            row = await self._at(connection, seq, {**CONTENT, "subpath": 1})
            if row is None:
                return None
            key = self.key.with_subpath(row["subpath"])
            entry: Any = await content_of(connection, key, row)
            if not isinstance(entry, dict):
                raise CorruptEntryError(f"Cannot read entry {seq} of {key}: it is no JSON object.")
            return Glimpse(seq, row["subpath"], cast("dict[str, Any]", entry), 0)

    async def rows(
        self,
        projection: dict[str, Any],
        *,
        after: int = 0,
        until: int | None = None,
        batch: int = 1_000,
        of_entry: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None,
    ) -> AsyncIterator[dict[str, Any]]:
        """Some fields of all entries behind a position up to another, transcript by transcript.

        Without ``until``, what is written to one transcript while another is read is in it or
        not, as it comes. ``of_entry`` gives the same fields of an entry that is encrypted, which
        the server cannot look into.

        Raises:
            SessionStoreError: as for the store.
        """
        async with self._doing("read_whole", "read", self.key, is_current=False) as connection:
            live = await self._living(connection)
            if live is None:
                return
            query: dict[str, Any] = {**self.key.of_session, **live.in_session()}
            query["seq"] = {"$gt": max(after, live.first_seq - 1)}
            if until is not None:
                query["seq"]["$lte"] = until
            opens = None if connection.keyring is None else of_entry
            fields = projection if opens is None else {**projection, "packed": 1, "chunks": 1}
            # The driver's own: a model of each row would take as long as all the rest.
            cursor = connection.entries.collection.find(
                query, fields, sort=[("subpath", 1), ("seq", 1)], batch_size=batch
            )
            async for row in cursor:
                if opens is not None and ("packed" in row or "chunks" in row):
                    key = self.key.with_subpath(row["subpath"])
                    place = {"seq": row["seq"], "subpath": row["subpath"]}
                    try:
                        yield {**opens(await content_of(connection, key, row)), **place}
                    except (CorruptEntryError, EncryptionError):
                        yield place
                    continue
                yield row

    async def stored(self, is_wanted: Callable[[bytes], bool]) -> AsyncIterator[StoredWhole]:
        """Those entries, whole, of which what is stored is wanted, transcript by transcript.

        ``is_wanted`` gets the bytes of an entry, in which its texts stand as UTF-8. One that is
        packed has none such, and comes in any case; one that is damaged without its content.

        Raises:
            SessionStoreError: as for the store.
        """
        doing = self._doing("look_through", "look through", self.key, is_current=False)
        async with doing as connection:
            live = await self._living(connection)
            if live is None:
                return
            query = {**self.key.of_session, **live.in_session()}
            raw = connection.entries.collection.with_options(codec_options=_UNDECODED)
            # The driver's own: what is not wanted is never made an object of.
            cursor = raw.find(
                query, _STORED, sort=[("subpath", 1), ("seq", 1)], batch_size=_STORED_AT_ONCE
            )
            async for document in cursor:
                stored: RawBSONDocument = document
                if "entry" in stored:
                    if connection.keyring is not None and connection.keyring.required:
                        row = _decoded(stored)
                        yield StoredWhole(row["seq"], row["subpath"], None)
                        continue
                    if not is_wanted(bytes(stored.raw)):
                        continue
                    row = _decoded(stored)
                    found: object = row["entry"]
                    content = cast("dict[str, Any]", found) if isinstance(found, dict) else None
                    yield StoredWhole(row["seq"], row["subpath"], content, len(stored.raw))
                    continue
                row = _decoded(stored)
                seq, subpath = row["seq"], row["subpath"]
                try:
                    key = self.key.with_subpath(subpath)
                    entry = await content_of(connection, key, row)
                except (CorruptEntryError, EncryptionError):
                    yield StoredWhole(seq, subpath, None)
                    continue
                yield StoredWhole(seq, subpath, entry)

    async def _living(self, connection: Connection) -> Live | None:
        if not self._is_known:
            self._live = await retried(
                connection.client, lambda: live_of(connection, self.key, None)
            )
            self._is_known = True
        return self._live

    async def _at(
        self, connection: Connection, seq: int, projection: dict[str, Any]
    ) -> dict[str, Any] | None:
        live = await self._living(connection)
        if live is None or seq < live.first_seq:
            return None
        query = {**self.key.of_session, "seq": seq}
        # The driver's own, for the server cuts what is long, which no class of rows can say.
        row = await connection.entries.collection.find_one(query, projection)
        if row is None or row["seq"] < live.first_of(row["subpath"]):
            return None
        return row

    async def _fill(self, connection: Connection, rows: list[dict[str, Any]]) -> None:
        """Read what was too large to come with the others: whole if there is room, else cut."""
        room = FILLED_BYTES
        whole: dict[int, dict[str, Any]] = {}
        cut: dict[int, dict[str, Any]] = {}
        for row in sorted(rows, key=lambda row: row.get("size") or 0):
            size = row.get("size") or 0
            if size > WHOLE_BYTES and "entry" not in row:
                room -= size
                (whole if room >= 0 else cut)[row["seq"]] = row
        for wanted, projection in ((whole, CONTENT), (cut, CUT)):
            if not wanted:
                continue
            subpaths = sorted({row["subpath"] for row in wanted.values()})
            query = {
                **self.key.of_session,
                "subpath": {"$in": subpaths},
                "seq": {"$in": sorted(wanted)},
            }
            try:
                # As in rows().
                found = connection.entries.collection.find(query, projection)
                for each in await found.to_list(None):
                    wanted[each["seq"]].update(entry=each.get("entry"), is_whole=wanted is whole)
            except OperationFailure:
                # One of them is such that the server cannot cut it.
                for row in wanted.values():
                    row["entry"] = {}

    async def _rows(
        self, connection: Connection, query: dict[str, Any], order: int, limit: int
    ) -> list[dict[str, Any]]:
        async def attempt(projection: dict[str, Any]) -> list[dict[str, Any]]:
            # As in rows().
            cursor = connection.entries.collection.find(
                query, projection, sort=[("seq", order)], limit=limit
            )
            return await cursor.to_list(None)

        try:
            return await retried(connection.client, lambda: attempt(BOUNDED))
        except OperationFailure:
            # One of them is no document, and has no size.
            return await retried(connection.client, lambda: attempt(UNCUT))


def _decoded(stored: RawBSONDocument) -> dict[str, Any]:
    return bson.decode(bytes(stored.raw), JSON_CODEC)  # pyright: ignore[reportUnknownMemberType]


async def _glimpse(connection: Connection, key: TranscriptKey, row: dict[str, Any]) -> Glimpse:
    seq, subpath = row["seq"], key.subpath
    size = row.get("size") or row.get("packed_size") or 0
    try:
        keyring = connection.keyring
        if isinstance(row.get("entry"), dict):
            if keyring is not None:
                keyring.take_plain(f"Entry {seq} of {key}")
            is_whole = size <= WHOLE_BYTES or row.get("is_whole", False)
            return Glimpse(seq, subpath, row["entry"], size, is_whole)
        packed: bytes | None = row.get("packed")
        if packed is None:
            packed, size = await _beginning(connection, key, row)
        if is_sealed(packed):
            cipher = await cipher_of(connection, key, packed)
            packed = cipher.open(Sealed.ENTRY, seq, packed, 0, row.get("chunks") or 1)
        elif keyring is not None:
            keyring.take_plain(f"Entry {seq} of {key}")
        entry, is_whole = await asyncio.to_thread(_unpacked_beginning, packed)
        return Glimpse(seq, subpath, entry, size, is_whole)
    except (CorruptEntryError, EncryptionError, ValueError, zlib.error, InvalidBSON) as error:
        return Glimpse(seq, subpath, {}, size, problem=str(error))


class _FirstPartRow(Row):
    data: Any = None


async def _beginning(
    connection: Connection, key: TranscriptKey, row: dict[str, Any]
) -> tuple[bytes, int]:
    """Packed bytes, or the first of them, and how many there are, at least."""
    chunks = row.get("chunks")
    if not chunks:
        query = {**key.of_transcript, "seq": row["seq"]}
        found = await connection.entries.collection.find_one(query, {"_id": 0, "packed": 1})
        packed = (found or {}).get("packed") or b""
        return packed, len(packed)
    query = {
        **key.of_session,
        "collection": connection.entries.name,
        "subpath": key.subpath,
        "seq": row["seq"],
        "part": 0,
    }
    part = await connection.chunks.find_one(query, rows=_FirstPartRow)
    if part is None or not isinstance(part.data, bytes):
        raise CorruptEntryError("its first chunk is not there")
    return part.data, len(part.data) * int(chunks)


def _unpacked_beginning(packed: bytes) -> tuple[dict[str, Any], bool]:
    """What packed bytes say, or how it begins, and whether it is all of it."""
    document = document_in(packed)
    if document is not None:
        is_whole = len(document) <= _OPENED_BYTES
        entry = of_document(document)
        return (entry if is_whole else cut_texts(entry)), is_whole
    if packed[:1] != b"\x01":
        raise ValueError("it is packed in a way that this release does not know")
    # Few bytes can stand for many, so it is not known before how many they are.
    unpacking = zlib.decompressobj()
    data = unpacking.decompress(packed[1:], _UNPACKED_BYTES)
    if unpacking.eof:
        return unpack(packed), True
    found = json.loads(completed_json(data[:_PREFIX_BYTES].decode("utf-8", "ignore")))
    return (cast("dict[str, Any]", found) if isinstance(found, dict) else {}), False
