"""Reading a source: its sessions, and their entries in order, ready for the write path."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import IO, Any, cast

import bson
from bson import DBRef, ObjectId
from bson.codec_options import DatetimeConversion
from bson.errors import BSONError
from bson.raw_bson import RawBSONDocument

from ...models.plain import JSON_CODEC
from ..database.driver import Database, aggregate
from ..errors import InvalidKeyError
from ..storage.codec import EncodedEntry, encode_native, encode_packed
from ..storage.native import NotJsonError
from ..storage.uuids import idempotency_key
from ..stored_times import EPOCH
from ..transcript_key import checked_name
from .search import raw_collection, value_at
from .sources import AdoptionSource

_CURSOR_BATCH = 200
_BATCH_ENTRIES = 500
_BATCH_BYTES = 4 * 1024 * 1024

Positions = Mapping[str, Any]
"""Per subpath, the order value of the last document read."""


@dataclass(frozen=True, slots=True)
class SourceTranscript:
    """One transcript of a session of the source."""

    subpath: Any
    """As stored, ``""`` for the main one; no string where the documents are broken."""
    first: Any
    last: Any
    """Lowest and highest order value."""


@dataclass(frozen=True, slots=True)
class SourceSession:
    """One session of the source, as it was when the run began."""

    project_key: Any
    session_id: Any
    documents: int
    transcripts: tuple[SourceTranscript, ...]
    mtime: int | None
    """Epoch milliseconds of the last entry of the main transcript, where known."""
    example: Any
    """The ``_id`` of one of its documents."""

    @property
    def has_one_order(self) -> bool:
        """Whether order values of different transcripts can be compared.

        Where each transcript counts for itself, all begin with the same number.
        """
        firsts = [transcript.first for transcript in self.transcripts]
        return all(isinstance(first, ObjectId) for first in firsts) or len(
            {_sortable(first) for first in firsts}
        ) == len(firsts)

    def is_read_to(self, positions: Positions) -> bool:
        """Whether no document stands behind ``positions``."""
        for transcript in self.transcripts:
            if transcript.last is None or not isinstance(transcript.subpath, str):
                continue
            try:
                if positions[transcript.subpath] < transcript.last:
                    return False
            except (KeyError, TypeError):
                return False
        return True


@dataclass(frozen=True, slots=True)
class SourceEntry:
    """One document of the source: an entry, or the reason why it is none."""

    id: Any
    subpath: str | None
    order: Any
    created_at: datetime | None
    encoded: EncodedEntry | None
    problem: str | None = None

    @property
    def uuid(self) -> str | None:
        """The entry's idempotency key."""
        return self.encoded.uuid if self.encoded else None


class SessionList:
    """All sessions of a source, kept in a file: there may be millions.

    A cursor over them would time out on the server while a long session is adopted.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.sessions = 0
        self.documents = 0

    @classmethod
    async def read(
        cls,
        database: Database,
        source: AdoptionSource,
        projects: Sequence[str] | None,
        file: IO[bytes],
    ) -> SessionList:
        """Put the source's sessions, of some project keys or of all, into ``file``."""
        assert source.collection is not None
        listed = cls(file)
        collection = raw_collection(database, source.collection)
        pipeline = _listing(source, projects)
        cursor: Any = await aggregate(collection, pipeline, allowDiskUse=True, collation=_EXACT)
        async for raw in cursor:
            listed._file.write(raw.raw)
            listed.sessions += 1
            listed.documents += raw["documents"]
        return listed

    def __iter__(self) -> Iterator[SourceSession]:
        self._file.seek(0)
        options = JSON_CODEC.with_options(datetime_conversion=DatetimeConversion.DATETIME_AUTO)
        rows = cast("Iterator[dict[str, Any]]", bson.decode_file_iter(self._file, options))
        for row in rows:
            transcripts = tuple(
                SourceTranscript(each["subpath"], each.get("first"), each.get("last"))
                for each in row["transcripts"]
            )
            newest = row.get("newest")
            yield SourceSession(
                project_key=row["_id"].get("project_key"),
                session_id=row["_id"].get("session_id"),
                documents=row["documents"],
                transcripts=tuple(sorted(transcripts, key=lambda each: str(each.subpath))),
                mtime=epoch_ms(row.get("mtime")) or epoch_ms(newest),
                example=row["example"],
            )


async def session_mtime(
    database: Database, source: AdoptionSource, session: SourceSession
) -> int | None:
    """The session's modification time, by the source's summary if it has one."""
    if source.summaries is not None:
        owner = {source.project_key: session.project_key, source.session_id: session.session_id}
        collection = raw_collection(database, source.summaries)
        row: Mapping[str, Any] | None = await collection.find_one(owner, collation=_EXACT)
        known = None if row is None else epoch_ms(value_at(row, source.mtime))
        if known is not None:
            return known
    return session.mtime


async def batches(
    database: Database,
    source: AdoptionSource,
    session: SourceSession,
    positions: Positions | None = None,
) -> AsyncIterator[list[SourceEntry]]:
    """The documents behind ``positions`` in order, in batches of one transcript each."""
    batch: list[SourceEntry] = []
    subpath: str | None = None
    size = 0
    async for entry in _entries(database, source, session, positions or {}):
        moves_on = None not in (subpath, entry.subpath) and entry.subpath != subpath
        if moves_on or len(batch) >= _BATCH_ENTRIES or size >= _BATCH_BYTES:
            yield batch
            batch, subpath, size = [], None, 0
        batch.append(entry)
        subpath = entry.subpath if subpath is None else subpath
        size += entry.encoded.size if entry.encoded else 0
    if batch:
        yield batch


def epoch_ms(value: Any) -> int | None:
    """Epoch milliseconds of a number of them, a date or an ObjectId; ``None`` of all else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, float)):
        return int(value) if 0 < value < 2**53 else None
    if isinstance(value, ObjectId):
        value = value.generation_time
    if isinstance(value, datetime):
        aware = value if value.tzinfo else value.replace(tzinfo=timezone.utc)
        return (aware - EPOCH) // timedelta(milliseconds=1)
    return None


# Another store's collection may take upper for lower case.
_EXACT = {"locale": "simple"}


def _listing(source: AdoptionSource, projects: Sequence[str] | None) -> list[dict[str, Any]]:
    subpath = {"$ifNull": [f"${source.subpath}", ""]}
    is_main = {"$eq": [subpath, ""]}

    def of_main(path: str) -> dict[str, Any]:
        return {"$max": {"$cond": [is_main, f"${path}", None]}}

    return [
        *([] if projects is None else [{"$match": {source.project_key: {"$in": list(projects)}}}]),
        {
            "$group": {
                "_id": {
                    "project_key": f"${source.project_key}",
                    "session_id": f"${source.session_id}",
                    "subpath": subpath,
                },
                "documents": {"$sum": 1},
                "first": {"$min": f"${source.order}"},
                "last": {"$max": f"${source.order}"},
                "mtime": of_main(source.mtime),
                "newest": of_main("_id"),
                "example": {"$min": "$_id"},
            }
        },
        {
            "$group": {
                "_id": {"project_key": "$_id.project_key", "session_id": "$_id.session_id"},
                "documents": {"$sum": "$documents"},
                "transcripts": {
                    "$push": {"subpath": "$_id.subpath", "first": "$first", "last": "$last"}
                },
                "mtime": {"$max": "$mtime"},
                "newest": {"$max": "$newest"},
                "example": {"$min": "$example"},
            }
        },
    ]


async def _entries(
    database: Database, source: AdoptionSource, session: SourceSession, positions: Positions
) -> AsyncIterator[SourceEntry]:
    assert source.collection is not None
    collection = raw_collection(database, source.collection)
    owner = {source.project_key: session.project_key, source.session_id: session.session_id}
    names = [each.subpath for each in session.transcripts]
    # Transcripts whose order values cannot be compared come one after the other, main first.
    groups = [names] if session.has_one_order else [[name] for name in names]
    for group in groups:
        parts = [_behind(source, name, positions) for name in group]
        query = {**owner, "$or": parts}
        cursor = collection.find(
            query,
            sort=[(source.order, 1)],
            batch_size=_CURSOR_BATCH,
            allow_disk_use=True,
            collation=_EXACT,
        )
        async for raw in cursor:
            yield await _parsed(cast("RawBSONDocument", raw), source)


def _behind(source: AdoptionSource, subpath: Any, positions: Positions) -> dict[str, Any]:
    query: dict[str, Any] = {source.subpath: subpath}
    if subpath == "":
        query = {source.subpath: {"$in": [None, ""]}}
    position = positions.get(subpath) if isinstance(subpath, str) else None
    return query if position is None else {**query, source.order: {"$gt": position}}


async def _parsed(raw: RawBSONDocument, source: AdoptionSource) -> SourceEntry:
    try:
        document_id: Any = raw["_id"]
        if isinstance(document_id, RawBSONDocument):
            document_id = dict(document_id)
        order = value_at(raw, source.order)
        subpath: Any = value_at(raw, source.subpath) or ""
        time = epoch_ms(value_at(raw, source.mtime)) or epoch_ms(document_id)
        content = value_at(raw, source.entry)
    except Exception as error:
        # A damaged document raises whatever its bytes lead the decoder to.
        return SourceEntry(None, None, None, None, None, f"it cannot be decoded ({error})")
    created_at = _date(time)
    problem = _envelope_problem(order, subpath, source)
    if problem is not None:
        return SourceEntry(document_id, None, None, created_at, None, problem)
    try:
        encoded = await _encoded(_json_object(content, source.entry))
    except (ValueError, BSONError, OverflowError) as error:
        return SourceEntry(document_id, subpath, order, created_at, None, str(error))
    return SourceEntry(document_id, subpath, order, created_at, encoded)


def _envelope_problem(order: Any, subpath: Any, source: AdoptionSource) -> str | None:
    if not isinstance(order, (ObjectId, int, float, str, datetime)):
        return f"its {source.order} is {type(order).__name__}, which gives it no place in order"
    if subpath != "":
        try:
            checked_name("subpath", subpath)
        except InvalidKeyError as error:
            return str(error).split(";")[0]
    return None


def _json_object(content: Any, path: str) -> dict[str, Any]:
    if isinstance(content, RawBSONDocument):
        return bson.decode(content.raw, JSON_CODEC)  # pyright: ignore[reportUnknownMemberType]
    if isinstance(content, str):
        content = json.loads(content)
    if not isinstance(content, dict):
        kind = "absent" if content is None else type(content).__name__
        raise NotJsonError(f"its {path} is {kind}, not a JSON object")
    return cast("dict[str, Any]", content)


async def _encoded(entry: dict[str, Any]) -> EncodedEntry:
    try:
        value = encode_native(entry)
    except NotJsonError:
        entry = _without_dbrefs(entry)
        value = encode_native(entry)
    if value is None:
        # Compression of a large entry takes long and needs no interpreter lock.
        value = await asyncio.to_thread(encode_packed, entry)
    return EncodedEntry.of(idempotency_key(entry.get("uuid")), value, entry)


def _without_dbrefs(value: Any) -> Any:
    """``value`` with the JSON objects that PyMongo took for references."""
    if isinstance(value, DBRef):
        return _without_dbrefs(dict(value.as_doc()))
    if isinstance(value, dict):
        members = cast("dict[str, Any]", value).items()
        return {name: _without_dbrefs(member) for name, member in members}
    if isinstance(value, list):
        return [_without_dbrefs(member) for member in cast("list[Any]", value)]
    return value


def _date(ms: int | None) -> datetime | None:
    try:
        return None if ms is None else EPOCH + timedelta(milliseconds=ms)
    except OverflowError:
        return None


def _sortable(value: Any) -> str:
    return repr(float(value)) if isinstance(value, (int, float)) else repr(value)
