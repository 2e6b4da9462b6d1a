"""Transcripts and sessions read back whole."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from bson.timestamp import Timestamp

from ...models.counting.cost_accounts import Account, carried_in
from ..database.commands import find_all, find_at
from ..database.documents import Row
from ..database.driver import ClientSession, with_confirmed_reads
from ..database.reads import retried
from ..database.transactions import snapshot
from ..errors import CorruptEntryError
from ..storage.connection import Connection
from ..storage.criteria import NOT_EXPIRED
from ..storage.living import LIVE_FIELDS, MARKED, Live, LiveRow, live_of
from ..storage.uuids import idempotency_key
from ..storage.values import CONTENT, content_of, decoded, opened_entries
from ..transcript_key import TranscriptKey

# Far from the size that a query may have.
_KEYS_AT_ONCE = 10_000

_LOADED = {**CONTENT, "expires_at": 1}


async def load(connection: Connection, key: TranscriptKey) -> list[dict[str, Any]] | None:
    """All entries of a transcript in order, or ``None`` if there are none."""

    transcript = key.of_transcript

    async def attempt() -> list[dict[str, Any]]:
        # One command and one decode for all of them: Beanie would make an object of each.
        documents, moment = await find_all(
            connection.entries.collection, connection.server, transcript, _LOADED, "seq"
        )
        if _may_be_remains(documents):
            first = await _first_at(connection, key, moment)
            if first is None:
                return []
            if documents[0]["seq"] < first:
                documents = [each for each in documents if each["seq"] >= first]
        if connection.keyring is not None:
            with contextlib.suppress(KeyError):
                return await opened_entries(connection, key, documents)
            return await one_by_one()
        # Nearly all are native; asking each which it is would show in the time of a long load.
        with contextlib.suppress(KeyError):
            return [document["entry"] for document in documents]
        with contextlib.suppress(KeyError, CorruptEntryError):
            return [
                document["entry"]
                if "entry" in document
                else await decoded(document["packed"], "an entry")
                for document in documents
            ]
        return await one_by_one()

    async def one_by_one() -> list[dict[str, Any]]:
        # What is damaged is named by its position; chunks are found by it, and must be of the
        # same moment as the entry that they belong to.
        async with snapshot(connection.client, connection.server) as session:
            live = await live_of(connection, key, session)
            if live is None:
                return []
            query = {**transcript, **live.in_transcript(key.subpath)}
            # Here and below the driver's own: a model of each entry takes as long as reading it.
            cursor = connection.entries.collection.find(
                query, CONTENT, sort=[("seq", 1)], session=session
            )
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
    query = {**key.of_session, **NOT_EXPIRED}
    row = await find_at(connection.summaries.collection, query, LIVE_FIELDS, moment)
    return None if row is None else Live.of(LiveRow.model_validate(row)).first_of(key.subpath)


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
            cursor = connection.entries.collection.find(
                {**key.of_session, **live.in_session()},
                {**CONTENT, "subpath": 1},
                sort=[("subpath", 1), ("seq", 1)],
                session=session,
            )
            for document in await cursor.to_list(None):
                subpath: str = document["subpath"]
                entry: dict[str, Any] | None = document.get("entry")
                if entry is None or connection.keyring is not None:
                    transcript = key.with_subpath(subpath)
                    entry = await content_of(connection, transcript, document, session)
                found.setdefault(subpath, []).append(entry)
            told = await told_of_others(connection, key, session)
            copied = max(0, told.copied_until - live.first_seq + 1)
        return LoadedSession(found, copied, told.carried_usd)

    return await retried(connection.client, attempt)


async def last_agent_metadata(connection: Connection, key: TranscriptKey) -> dict[str, Any] | None:
    """The last entry of type ``agent_metadata`` of a transcript, ``None`` without one."""
    # What is packed cannot be queried, but is rare.
    kinds = [{"entry.type": "agent_metadata"}, {"entry": {"$exists": False}}]
    owner = {**key.of_transcript, "uuid": {"$exists": False}, "$or": kinds}

    async def attempt() -> dict[str, Any] | None:
        entries = with_confirmed_reads(connection.entries.collection)
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


async def session_entries(
    connection: Connection, key: TranscriptKey, session: ClientSession | None, after: int = 0
) -> AsyncIterator[tuple[str, int, dict[str, Any]]]:
    """Subpath, position and content of a session's entries, in the order of writing."""
    live = await live_of(connection, key, session)
    if live is None:
        return
    fields = {**CONTENT, "subpath": 1}
    query = {**key.of_session, **live.in_session()}
    if after:
        query["seq"] = {"$gt": max(after, live.first_seq - 1)}
    # No index has the order of all transcripts together, and what is sorted may be large.
    cursor = connection.entries.collection.find(
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


class _ToldRow(Row):
    totals: Any = None

    class Settings:
        """The parts of the field that are read, as Beanie looks for them."""

        projection: ClassVar[dict[str, int]] = {
            "_id": 0,
            "totals.copied_until": 1,
            "totals.in_flight.carried": 1,
        }


async def told_of_others(
    connection: Connection, key: TranscriptKey, session: ClientSession | None
) -> ToldOfOthers:
    """What the summary of a session says of others."""
    row = await connection.summaries.find_one(key.of_session, rows=_ToldRow, session=session)
    totals: dict[str, Any] = row.totals or {} if row else {}
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
    entries = (
        connection.entries.collection
        if session
        else with_confirmed_reads(connection.entries.collection)
    )
    found: set[str] = set()
    live = await live_of(connection, key, session)
    if live is None:
        return found
    for start in range(0, len(keys), _KEYS_AT_ONCE):
        query = {
            **key.of_transcript,
            "uuid": {"$in": keys[start : start + _KEYS_AT_ONCE]},
            "seq": {"$gte": live.first_of(key.subpath), "$lt": seq},
        }
        async for document in entries.find(query, {"_id": 0, "uuid": 1}, session=session):
            found.add(by_key[document["uuid"]])
    return found
