"""Reading transcripts and listings back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

from claude_agent_sdk.types import SessionStoreListEntry, SessionSummaryEntry
from pymongo.errors import (
    AutoReconnect,
    CursorNotFound,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
)

from ..models.packing import unpack
from .attempts import Attempts
from .connection import Connection
from .driver import ClientSession, Collection, snapshot
from .errors import CorruptEntryError, SessionChangedError
from .expiry import NOT_EXPIRED
from .key import TranscriptKey
from .summaries import DATA_FIELDS, STATE_PROJECTION, SessionState

# Where decoding is slow enough to hold up the other tasks of the event loop.
_LARGE_BYTES = 256 * 1024

_SNAPSHOT_UNAVAILABLE = 246
_SNAPSHOT_TOO_OLD = 239

CONTENT = {"_id": 0, "seq": 1, "entry": 1, "packed": 1, "chunks": 1}

T = TypeVar("T")


class StreamedEntry(dict[str, Any]):
    """A transcript entry, equal to the plain dict, that knows its position."""

    __slots__ = ("seq",)

    seq: int
    """Position within the session, from 1; pass it as ``after`` to go on behind this entry."""


async def load(connection: Connection, key: TranscriptKey) -> list[dict[str, Any]] | None:
    """All entries of a transcript in order, or ``None`` if there are none."""

    async def attempt() -> list[dict[str, Any]]:
        async with snapshot(connection.client, connection.server) as session:
            documents = await connection.entries.find(
                {**key.transcript_filter(), **NOT_EXPIRED},
                CONTENT,
                sort=[("seq", 1)],
                session=session,
            ).to_list()
            return [
                document["entry"]
                if "entry" in document
                else await content_of(connection, key, document, session)
                for document in documents
            ]

    return await retried(attempt) or None


async def stream(
    connection: Connection, key: TranscriptKey, after: int
) -> AsyncIterator[StreamedEntry]:
    """The entries behind position ``after``, one at a time and in order."""
    attempts = Attempts()
    first: Any = None
    position = after
    while True:
        try:
            async with snapshot(connection.client, connection.server) as session:
                summary = await connection.summaries.find_one(
                    {**key.session_filter(), **NOT_EXPIRED}, {"_id": 1}, session=session
                )
                now = summary and summary["_id"]
                first = first or now
                if now != first:
                    raise SessionChangedError(
                        f"Stopped streaming {key} behind position {position}: it expired, was "
                        "deleted, or was deleted and made anew in the meantime. What came so far "
                        "is from the old session; start again to read what is there now."
                    )
                query = {**key.transcript_filter(), "seq": {"$gt": position}, **NOT_EXPIRED}
                async for document in connection.entries.find(
                    query, CONTENT, sort=[("seq", 1)], session=session
                ):
                    entry = await content_of(connection, key, document, session)
                    streamed = StreamedEntry(entry)
                    streamed.seq = position = document["seq"]
                    yield streamed
                    attempts = Attempts()
            return
        except PyMongoError as error:
            # A slow consumer outlives cursors and snapshots; the next one goes on from here.
            if not _is_resumable(error) or not await attempts.pause():
                raise


async def sessions(
    connection: Connection, tenant: str, project_key: str
) -> list[SessionStoreListEntry]:
    """Id and modification time of every session with a main transcript."""

    async def attempt() -> list[SessionStoreListEntry]:
        fields = {"session_id": 1, "mtime": 1}
        found = await _listed(connection, tenant, project_key, fields, None)
        return [{"session_id": row["session_id"], "mtime": row["mtime"]} for row in found]

    return await retried(attempt)


async def session_summaries(
    connection: Connection, tenant: str, project_key: str
) -> list[SessionSummaryEntry]:
    """The folded summary of every session with a main transcript."""
    fields = {"session_id": 1, "mtime": 1, **dict.fromkeys(DATA_FIELDS, 1)}

    async def attempt() -> list[SessionSummaryEntry]:
        async with snapshot(connection.client, connection.server) as session:
            return [
                {
                    "session_id": row["session_id"],
                    "mtime": row["mtime"],
                    "data": row["data"]
                    if "data" in row
                    else await _folded(
                        connection,
                        TranscriptKey(tenant, project_key, row["session_id"]),
                        row,
                        session,
                    ),
                }
                for row in await _listed(connection, tenant, project_key, fields, session)
            ]

    return await retried(attempt)


async def subkeys(connection: Connection, key: TranscriptKey) -> list[str]:
    """The subpaths of a session, each once."""

    async def attempt() -> list[str]:
        # On the entries a filter by date would read every one of them.
        alive = {**key.session_filter(), **NOT_EXPIRED}
        if await connection.summaries.find_one(alive, {"_id": 1}) is None:
            return []
        query = {**key.session_filter(), "subpath": {"$gt": ""}}
        return await connection.entries.distinct("subpath", query)

    return await retried(attempt)


async def state(connection: Connection, key: TranscriptKey) -> SessionState | None:
    """What the summary of the key's session says now, or ``None`` without one."""

    async def attempt() -> SessionState | None:
        query = key.session_filter()
        row = await connection.summaries.find_one(query, STATE_PROJECTION)
        if row is None or "data_chunks" not in row:
            return await _state(connection, key, row, None)
        # Chunks and the count of them must be of one moment.
        async with snapshot(connection.client, connection.server) as session:
            row = await connection.summaries.find_one(query, STATE_PROJECTION, session=session)
            return await _state(connection, key, row, session)

    return await retried(attempt)


async def retried(attempt: Callable[[], Awaitable[T]]) -> T:
    """Run a read, from its start again after an election, a lost cursor or a lost snapshot."""
    attempts = Attempts()
    while True:
        try:
            return await attempt()
        except PyMongoError as error:
            if not _is_resumable(error) or not await attempts.pause():
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


async def _listed(
    connection: Connection,
    tenant: str,
    project_key: str,
    fields: dict[str, int],
    session: ClientSession | None,
) -> list[dict[str, Any]]:
    owner = {"tenant": tenant, "project_key": project_key}
    query = {**owner, "mtime": {"$exists": True}, **NOT_EXPIRED}
    return await connection.summaries.find(query, {"_id": 0, **fields}, session=session).to_list()


async def _state(
    connection: Connection,
    key: TranscriptKey,
    row: dict[str, Any] | None,
    session: ClientSession | None,
) -> SessionState | None:
    if row is None:
        return None
    field = next((name for name in DATA_FIELDS if name in row), None)
    data = row.get("data")
    if field is not None and data is None:
        data = await _folded(connection, key, row, session)
    return SessionState(
        id=row["_id"],
        next_seq=row["next_seq"],
        mtime=row.get("mtime", 0),
        data=data,
        data_field=field,
        expires_at=row.get("expires_at"),
        held_at=row.get("held_at"),
        is_expired=row["is_expired"],
    )


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
    except ValueError as error:
        raise CorruptEntryError(
            f"Cannot read {what}: {error}. If a newer release wrote it, install that release; "
            "else restore it from a backup, or delete the session."
        ) from error


def _is_resumable(error: PyMongoError) -> bool:
    if isinstance(error, OperationFailure):
        return isinstance(error, CursorNotFound) or error.code in (
            _SNAPSHOT_TOO_OLD,
            _SNAPSHOT_UNAVAILABLE,
        )
    # The driver has waited its full time already when it selects no server.
    return isinstance(error, AutoReconnect) and not isinstance(error, ServerSelectionTimeoutError)
