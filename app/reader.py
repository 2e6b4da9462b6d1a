"""Reading transcripts and listings back."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Mapping,
    Sequence,
)
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar, cast

from bson import ObjectId
from bson.timestamp import Timestamp
from pymongo.errors import (
    AutoReconnect,
    CursorNotFound,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
)

from ..models.packing import unpack
from ..models.totals import TEXTS, Account, Tally, carried_in
from .attempts import Attempts
from .codec import idempotency_key
from .connection import Connection
from .driver import (
    Client,
    ClientSession,
    Collection,
    aggregate,
    find_all,
    find_at,
    is_not_ready,
    snapshot,
    with_confirmed_reads,
)
from .elections import confirmed_primary
from .errors import CorruptEntryError, SessionChangedError
from .expiry import NOT_EXPIRED, not_expired_at
from .key import TranscriptKey
from .living import LIVE_FIELDS, MARKED, Live, live_of
from .sdk import (
    SessionKey,
    SessionListSubkeysKey,
    SessionStoreListEntry,
    SessionSummaryEntry,
)
from .shown import shown
from .stored_times import whole_ms
from .summaries import DATA_FIELDS, HIGHEST, STATE_PROJECTION, SessionState

logger = logging.getLogger(__name__)

# Where decoding is slow enough to hold up the other tasks of the event loop.
_LARGE_BYTES = 256 * 1024

# Far from the size that a query may have.
_KEYS_AT_ONCE = 10_000

_SNAPSHOT_UNAVAILABLE = 246
_SNAPSHOT_TOO_OLD = 239

CONTENT = {"_id": 0, "entry": 1, "packed": 1, "chunks": 1, "seq": 1}

_LOADED = {**CONTENT, "expires_at": 1}

T = TypeVar("T")


class StreamedEntry(dict[str, Any]):
    """A transcript entry, equal to the plain dict, that knows its position."""

    __slots__ = ("seq", "subpath")

    seq: int
    """Position within the session, from 1; pass it as ``after`` to go on behind this entry."""
    subpath: str
    """The transcript that it is of: ``""`` for the main one."""


@dataclass(frozen=True, slots=True)
class SessionListing:
    """A session of a tenant, wherever it is."""

    project_key: str
    session_id: str
    mtime: int | None
    """Epoch milliseconds of its last change; ``None`` without a main transcript."""
    title: str | None = None
    """Its title, or how it begins; ``None`` where that is not known."""
    metadata: dict[str, Any] | None = None
    """What its maker put on it."""

    def key(self, subpath: str = "") -> SessionKey:
        """The key of its main transcript, or of a subagent's."""
        key: SessionKey = {"project_key": self.project_key, "session_id": self.session_id}
        return {**key, "subpath": subpath} if subpath else key

    @property
    def subkeys_key(self) -> SessionListSubkeysKey:
        """What ``list_subkeys`` takes."""
        return {"project_key": self.project_key, "session_id": self.session_id}

    def __str__(self) -> str:
        return f"session {shown(self.session_id, 80)} of project {shown(self.project_key, 80)}"


async def load(connection: Connection, key: TranscriptKey) -> list[dict[str, Any]] | None:
    """All entries of a transcript in order, or ``None`` if there are none."""

    transcript = key.transcript_filter()

    async def attempt() -> list[dict[str, Any]]:
        documents, moment = await find_all(
            connection.entries, connection.server, transcript, _LOADED, "seq"
        )
        if _may_be_remains(documents):
            first = await _first_at(connection, key, moment)
            if first is None:
                return []
            documents = [each for each in documents if each["seq"] >= first]
        # Nearly all are native; asking each which it is would show in the time of a long load.
        with contextlib.suppress(KeyError):
            return [document["entry"] for document in documents]
        with contextlib.suppress(KeyError, CorruptEntryError):
            return [
                document["entry"]
                if "entry" in document
                else await _decoded(document["packed"], "an entry")
                for document in documents
            ]
        # What is damaged is named by its position; chunks are found by it, and must be of the
        # same moment as the entry that they belong to.
        async with snapshot(connection.client, connection.server) as session:
            live = await live_of(connection, key, session)
            if live is None:
                return []
            query = {**transcript, **live.in_transcript(key.subpath)}
            cursor = connection.entries.find(query, CONTENT, sort=[("seq", 1)], session=session)
            return [
                await content_of(connection, key, document, session) async for document in cursor
            ]

    return await retried(connection.client, attempt) or None


def _may_be_remains(documents: Sequence[Mapping[str, Any]]) -> bool:
    """Whether one must look at the summary to know that documents are of a session that lives.

    Where nothing has a date none is looked at, unless much is read.
    """
    return bool(documents) and (
        documents[-1]["seq"] > MARKED or any("expires_at" in each for each in documents)
    )


async def _first_at(
    connection: Connection, key: TranscriptKey, moment: Timestamp | None
) -> int | None:
    """Where a transcript began at a moment; ``None`` if its session is gone."""
    query = {**key.session_filter(), **NOT_EXPIRED}
    row = await find_at(connection.summaries, query, LIVE_FIELDS, moment)
    return None if row is None else Live.of(row).first_of(key.subpath)


class LoadedSession(NamedTuple):
    """All of a session at one moment."""

    transcripts: dict[str, list[dict[str, Any]]]
    """The entries of each transcript in order, by subpath."""
    copied: int
    """How many entries at the start of the main one are the history of another session."""
    carried_usd: float
    """What of the accounts of cost was spent in another session."""


async def load_session(connection: Connection, key: TranscriptKey) -> LoadedSession:
    """All entries of a session, with which of them were copied."""

    async def attempt() -> LoadedSession:
        found: dict[str, list[dict[str, Any]]] = {}
        async with snapshot(connection.client, connection.server) as session:
            live = await live_of(connection, key, session)
            if live is None:
                return LoadedSession(found, 0, 0.0)
            cursor = connection.entries.find(
                {**key.session_filter(), **live.in_session()},
                {**CONTENT, "subpath": 1},
                sort=[("subpath", 1), ("seq", 1)],
                session=session,
            )
            for document in await cursor.to_list(None):
                subpath: str = document["subpath"]
                entry: dict[str, Any] | None = document.get("entry")
                if entry is None:
                    transcript = key.with_subpath(subpath)
                    entry = await content_of(connection, transcript, document, session)
                found.setdefault(subpath, []).append(entry)
            told = await told_of_others(connection, key, session)
            copied = max(0, told.copied_until - live.first_seq + 1)
        return LoadedSession(found, copied, told.carried_usd)

    return await retried(connection.client, attempt)


async def stream(
    connection: Connection, key: TranscriptKey, after: int, with_subagents: bool
) -> AsyncGenerator[StreamedEntry]:
    """The entries behind position ``after``, one at a time and in order."""
    attempts = Attempts()
    place = Place(key, after, with_subagents=with_subagents)
    while True:
        try:
            async with (
                confirmed_primary(connection.client),
                snapshot(connection.client, connection.server) as session,
                contextlib.aclosing(read_on(connection, place, session)) as entries,
            ):
                async for entry in entries:
                    yield entry
                    attempts = Attempts()
            return
        except PyMongoError as error:
            # A slow consumer outlives cursors and snapshots; the next one goes on from here.
            if not is_resumable(error) or not await attempts.pause():
                raise


@dataclass(slots=True)
class Place:
    """How far a reader of a transcript has come."""

    key: TranscriptKey
    position: int
    session: ObjectId | None = None
    """The ``_id`` of the session's summary; a session that is made anew has another."""
    with_subagents: bool = False
    """Whether all transcripts of the session are read together, in the order of writing."""

    def query(self, live: Live) -> dict[str, Any]:
        """What is behind it."""
        key = self.key
        if self.with_subagents:
            behind = max(self.position, live.first_seq - 1)
            return {**key.session_filter(), **live.in_session(), "seq": {"$gt": behind}}
        behind = max(self.position, live.first_of(key.subpath) - 1)
        return {**key.transcript_filter(), "seq": {"$gt": behind}}

    def changed(self) -> SessionChangedError:
        """The error for a session that is no longer the one that was read."""
        return SessionChangedError(
            f"Stopped reading {self.key} behind position {self.position}: it expired, was "
            "deleted, or was deleted and made anew in the meantime. What came so far "
            "is from the old session; start again to read what is there now."
        )


async def read_on(
    connection: Connection, place: Place, session: ClientSession | None
) -> AsyncGenerator[StreamedEntry]:
    """The entries behind a place, which moves with them.

    Raises:
        SessionChangedError: the place is in a session that is gone.
    """
    key = place.key
    live = await live_of(connection, key, session)
    found = None if live is None else live.id
    place.session = place.session or found
    if found != place.session:
        raise place.changed()
    if live is None:
        return
    # The order of one transcript is that of an index, and takes no room to sort.
    several = {"allow_disk_use": True} if place.with_subagents else {}
    async for document in connection.entries.find(
        place.query(live), {**CONTENT, "subpath": 1}, sort=[("seq", 1)], session=session, **several
    ):
        subpath: str = document["subpath"]
        transcript = key if subpath == key.subpath else key.with_subpath(subpath)
        streamed = StreamedEntry(await content_of(connection, transcript, document, session))
        streamed.seq = place.position = document["seq"]
        streamed.subpath = subpath
        yield streamed


async def sessions(
    connection: Connection, tenant: str, project_key: str
) -> list[SessionStoreListEntry]:
    """Id and modification time of every session with a main transcript."""
    fields = {"_id": 0, "session_id": 1, "mtime": 1}

    async def attempt() -> list[SessionStoreListEntry]:
        query = _listed(connection, tenant, project_key)
        found, _ = await find_all(
            connection.summaries, connection.server, query, fields, "session_id"
        )
        return cast("list[SessionStoreListEntry]", found)

    return await retried(connection.client, attempt)


async def session_listings(
    connection: Connection, owner: Mapping[str, str]
) -> AsyncIterator[SessionListing]:
    """The sessions that ``owner``, a query for fields of the key, asks for, in order."""
    order = [("project_key", 1), ("session_id", 1)]
    summaries = with_confirmed_reads(connection.summaries)
    attempts = Attempts()
    behind: dict[str, Any] = {}
    while True:
        try:
            query = {**owner, **NOT_EXPIRED, **behind}
            async with confirmed_primary(connection.client):
                async for row in summaries.find(query, LISTED_FIELDS, sort=order):
                    found = await listing_of(row)
                    yield found
                    attempts = Attempts()
                    same = {
                        "project_key": found.project_key,
                        "session_id": {"$gt": found.session_id},
                    }
                    behind = {"$or": [same, {"project_key": {"$gt": found.project_key}}]}
            return
        except PyMongoError as error:
            # A slow consumer outlives its cursor; the next one goes on from here.
            if not is_resumable(error) or not await attempts.pause():
                raise


LISTED_FIELDS: dict[str, Any] = {
    "_id": 0,
    **dict.fromkeys(("project_key", "session_id", "mtime", "title", "first_prompt"), 1),
    **dict.fromkeys(("metadata", "packed_metadata"), 1),
}
"""Projection of a summary to what a listing is made of."""


async def listing_of(row: Mapping[str, Any]) -> SessionListing:
    """The listing that such a projection gives."""
    project_key, session_id = row["project_key"], row["session_id"]
    titles = (row.get("title"), row.get("first_prompt"))
    title = next((each for each in titles if each and isinstance(each, str)), None)
    metadata = row["metadata"] if isinstance(row.get("metadata"), dict) else None
    # Beanie stores a field without a value as null.
    if metadata is None and row.get("packed_metadata") is not None:
        try:
            metadata = await _decoded(
                row["packed_metadata"], f"the metadata of session {session_id}"
            )
        except CorruptEntryError as error:
            # It must not cost the sessions that are listed behind it.
            logger.warning("%s", error)
    return SessionListing(project_key, session_id, whole_ms(row.get("mtime")), title, metadata)


async def session_summaries(
    connection: Connection, tenant: str, project_key: str
) -> list[SessionSummaryEntry]:
    """The folded summary of every session with a main transcript."""
    fields = {"_id": 0, "session_id": 1, "mtime": 1, **dict.fromkeys(DATA_FIELDS, 1)}

    async def unpacked(
        rows: list[dict[str, Any]], session: ClientSession | None = None
    ) -> list[SessionSummaryEntry]:
        for row in rows:
            if "data" not in row:
                key = TranscriptKey(tenant, project_key, row["session_id"])
                row["data"] = await _folded(connection, key, row, session)
                row.pop("packed_data", None)
                row.pop("data_chunks", None)
        return cast("list[SessionSummaryEntry]", rows)

    async def attempt() -> list[SessionSummaryEntry]:
        query = _listed(connection, tenant, project_key)
        found, _ = await find_all(
            connection.summaries, connection.server, query, fields, "session_id"
        )
        if not any(row.get("data_chunks") for row in found):
            return await unpacked(found)
        # Chunks must be of the same moment as the summary that they belong to, and may be deleted
        # as soon as the server says that they have expired.
        async with snapshot(connection.client, connection.server) as session:
            cursor = connection.summaries.find({**query, **NOT_EXPIRED}, fields, session=session)
            return await unpacked(await cursor.to_list(None), session)

    return await retried(connection.client, attempt)


async def subkeys(connection: Connection, key: TranscriptKey) -> list[str]:
    """The subpaths of a session, each once."""

    async def attempt() -> list[str]:
        # No snapshot, in which sharded collections have no distinct. What was there before the
        # session was seen to live was whole: nothing of it is swept as long as it does.
        entries = with_confirmed_reads(connection.entries)
        query: dict[str, Any] = {**key.session_filter(), "subpath": {"$gt": ""}}
        found: list[str] = await entries.distinct("subpath", query)
        live = await live_of(confirmed, key, None)
        if live is None:
            return []
        if live.first_seq == 1 and not live.removed:
            return found
        found = await entries.distinct("subpath", {**query, **live.in_session()})
        after = await live_of(confirmed, key, None)
        return found if after is not None and after.id == live.id else []

    # An election can take back what it has seen.
    confirmed = replace(connection, summaries=with_confirmed_reads(connection.summaries))
    return await retried(connection.client, attempt)


async def last_agent_metadata(connection: Connection, key: TranscriptKey) -> dict[str, Any] | None:
    """The last entry of type ``agent_metadata`` of a transcript, ``None`` without one."""
    # What is packed cannot be queried, but is rare.
    kinds = [{"entry.type": "agent_metadata"}, {"entry": {"$exists": False}}]
    owner = {**key.transcript_filter(), "uuid": {"$exists": False}, "$or": kinds}

    async def attempt() -> dict[str, Any] | None:
        entries = with_confirmed_reads(connection.entries)
        live = await live_of(connection, key, None)
        if live is None:
            return None
        query = {**owner, **live.in_transcript(key.subpath)}
        async for document in entries.find(query, sort=[("seq", -1)]):
            entry = await content_of(connection, key, document)
            if entry.get("type") == "agent_metadata":
                return entry
        return None

    return await retried(connection.client, attempt)


async def state(connection: Connection, key: TranscriptKey) -> SessionState | None:
    """What the summary of the key's session says now, or ``None`` without one."""

    async def attempt() -> SessionState | None:
        row = await _state_row(connection, key.session_filter())
        if row is None or row.get("data_chunks") is None:
            return await _state(connection, key, row, None)
        # Chunks and the count of them must be of one moment.
        async with snapshot(connection.client, connection.server) as session:
            return await state_in(connection, key, session)

    return await retried(connection.client, attempt)


async def state_in(
    connection: Connection, key: TranscriptKey, session: ClientSession | None
) -> SessionState | None:
    """The same as :func:`state`, as a client session sees it."""
    row = await _state_row(connection, key.session_filter(), session)
    return await _state(connection, key, row, session)


async def session_entries(
    connection: Connection, key: TranscriptKey, session: ClientSession | None, after: int = 0
) -> AsyncIterator[tuple[str, int, dict[str, Any]]]:
    """Subpath, position and content of a session's entries, in the order of writing."""
    live = await live_of(connection, key, session)
    if live is None:
        return
    fields = {**CONTENT, "subpath": 1}
    query = {**key.session_filter(), **live.in_session()}
    if after:
        query["seq"] = {"$gt": max(after, live.first_seq - 1)}
    # No index has the order of all transcripts together, and what is sorted may be large.
    cursor = connection.entries.find(
        query, fields, sort=[("seq", 1)], session=session, allow_disk_use=True
    )
    async for document in cursor:
        subpath: str = document["subpath"]
        transcript = key.with_subpath(subpath)
        entry = await content_of(connection, transcript, document, session)
        yield subpath, document["seq"], entry


class ToldOfOthers(NamedTuple):
    """What a summary says of other sessions, which shows in none of its own entries."""

    copied_until: int
    """The position to which the main transcript was copied from another one."""
    carried: dict[float, Account | None]
    """What accounts of cost had come to in another session."""

    @property
    def carried_usd(self) -> float:
        """What of the accounts was spent there, as far as it is known."""
        return sum(account.total for account in self.carried.values() if account is not None)


async def told_of_others(
    connection: Connection, key: TranscriptKey, session: ClientSession | None
) -> ToldOfOthers:
    """What the summary of a session says of others."""
    fields = {"_id": 0, "totals.copied_until": 1, "totals.in_flight.carried": 1}
    row = await connection.summaries.find_one(key.session_filter(), fields, session=session)
    totals: dict[str, Any] = (row or {}).get("totals") or {}
    return ToldOfOthers(totals.get("copied_until", 0), carried_in(totals))


async def stored_before(
    connection: Connection,
    key: TranscriptKey,
    uuids: Iterable[str],
    seq: int,
    session: ClientSession | None,
) -> set[str]:
    """Those of the uuids that entries of a transcript have which stand before a position."""
    by_key = {idempotency_key(uuid): uuid for uuid in uuids}
    keys = list(by_key)
    entries = connection.entries if session else with_confirmed_reads(connection.entries)
    found: set[str] = set()
    live = await live_of(connection, key, session)
    if live is None:
        return found
    for start in range(0, len(keys), _KEYS_AT_ONCE):
        query = {
            **key.transcript_filter(),
            "uuid": {"$in": keys[start : start + _KEYS_AT_ONCE]},
            "seq": {"$gte": live.first_of(key.subpath), "$lt": seq},
        }
        async for document in entries.find(query, {"_id": 0, "uuid": 1}, session=session):
            found.add(by_key[document["uuid"]])
    return found


async def _state_row(
    connection: Connection, query: dict[str, Any], session: ClientSession | None = None
) -> dict[str, Any] | None:
    # An aggregation, for not every engine knows $$NOW in the projection of a find.
    pipeline: list[dict[str, Any]] = [{"$match": query}, {"$project": STATE_PROJECTION}]
    options = {} if session is None else {"session": session}
    rows = await (await aggregate(connection.summaries, pipeline, **options)).to_list(None)
    return rows[0] if rows else None


async def retried(client: Client, attempt: Callable[[], Awaitable[T]]) -> T:
    """Run a read, from its start again after an election, a lost cursor or a lost snapshot."""
    attempts = Attempts()
    while True:
        try:
            async with confirmed_primary(client):
                return await attempt()
        except PyMongoError as error:
            if not is_resumable(error) or not await attempts.pause():
                raise


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
            connection, connection.entries, key, document["seq"], document, "chunks", session, what
        )
    return await _decoded(packed, what)


def _listed(connection: Connection, tenant: str, project_key: str) -> dict[str, Any]:
    """A query for the sessions that are listed."""
    return {
        "tenant": tenant,
        "project_key": project_key,
        # An index tells what is compared, but not whether a field is there.
        "mtime": {"$gte": -math.inf},
        **not_expired_at(connection.server.now()),
    }


async def _state(
    connection: Connection,
    key: TranscriptKey,
    row: dict[str, Any] | None,
    session: ClientSession | None,
) -> SessionState | None:
    if row is None:
        return None
    field = next((name for name in DATA_FIELDS if row.get(name) is not None), None)
    data = row.get("data")
    if field is not None and data is None:
        data = await _folded(connection, key, row, session)
    removed = row.get("removed") or ()
    first_seq = row.get("first_seq") or 1
    lowest = max(first_seq, *(each["before"] for each in removed)) if removed else first_seq
    stored_seq = row.get("next_seq")
    is_position = type(stored_seq) is int and lowest <= stored_seq <= HIGHEST
    return SessionState(
        id=row["_id"],
        next_seq=cast("int", stored_seq) if is_position else 0,
        stored_next_seq=stored_seq,
        lowest=lowest,
        nulls=tuple([name for name, value in row.items() if value is None]),
        mtime=whole_ms(row.get("mtime")),
        data=data,
        data_field=field,
        totals=_totals(row),
        stored_totals=row.get("totals"),
        texts={name: row.get(name) for name in TEXTS},
        expires_at=row.get("expires_at"),
        held_at=row.get("held_at"),
        is_expired=row["is_expired"],
        backstop=row.get("backstop"),
        first_seq=first_seq,
        has_remains=bool(row.get("remains") or removed),
    )


def _totals(row: dict[str, Any]) -> Tally | None:
    """The totals of a summary, unless an older release has appended since they were counted."""
    try:
        totals = row["totals"]
        return Tally.of(totals, row) if totals["next_seq"] == row["next_seq"] else None
    except Exception:
        # There are none, or something else has written them: to be counted anew.
        return None


async def _folded(
    connection: Connection,
    key: TranscriptKey,
    row: dict[str, Any],
    session: ClientSession | None,
) -> dict[str, Any]:
    what = f"the summary of {key}"
    packed = row.get("packed_data")
    if packed is None:
        packed = await _joined(
            connection, connection.summaries, key.session, 0, row, "data_chunks", session, what
        )
    return await _decoded(packed, what)


async def _joined(
    connection: Connection,
    owner: Collection,
    key: TranscriptKey,
    seq: int,
    document: dict[str, Any],
    count_field: str,
    session: ClientSession | None,
    what: str,
) -> bytes:
    query = {
        **key.session_filter(),
        "collection": owner.name,
        "subpath": key.subpath,
        "seq": seq,
    }
    cursor = connection.chunks.find(
        query, {"_id": 0, "data": 1}, sort=[("part", 1)], session=session
    )
    parts: list[bytes] = [chunk["data"] async for chunk in cursor]
    if len(parts) != document.get(count_field):
        raise CorruptEntryError(
            f"Cannot read {what}: of its {document.get(count_field)} chunks {len(parts)} are in "
            f"{connection.chunks.name}. Restore them from a backup, or delete the session."
        )
    return b"".join(parts)


async def _decoded(packed: bytes, what: str) -> dict[str, Any]:
    try:
        if len(packed) > _LARGE_BYTES:
            return await asyncio.to_thread(unpack, packed)
        return unpack(packed)
    except (ValueError, TypeError) as error:
        raise CorruptEntryError(
            f"Cannot read {what}: {error}. If a newer release wrote it, install that release; "
            "else restore it from a backup, or delete the session."
        ) from error


def is_resumable(error: PyMongoError) -> bool:
    """Whether a read may be tried again after an election or a lost cursor or snapshot."""
    if is_not_ready(error):
        return True
    if isinstance(error, OperationFailure):
        return isinstance(error, CursorNotFound) or error.code in (
            _SNAPSHOT_TOO_OLD,
            _SNAPSHOT_UNAVAILABLE,
        )
    # The driver has waited its full time already when it selects no server.
    return isinstance(error, AutoReconnect) and not isinstance(error, ServerSelectionTimeoutError)
