"""Which sessions there are, and which transcripts of subagents they have."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any, ClassVar, cast

from pymongo.errors import PyMongoError

from ..database.attempts import Attempts
from ..database.commands import find_all
from ..database.driver import ClientSession, with_confirmed_reads
from ..database.elections import confirmed_primary
from ..database.reads import is_resumable, retried
from ..database.transactions import snapshot
from ..errors import CorruptEntryError, KeyDestroyedError
from ..sdk import SessionKey, SessionListSubkeysKey, SessionStoreListEntry, SessionSummaryEntry
from ..storage.connection import Connection
from ..storage.criteria import NOT_EXPIRED, KeyRow, behind, listed
from ..storage.living import live_of
from ..storage.seals import opened_folds
from ..storage.shown_texts import shown_texts
from ..storage.state import DATA_FIELDS
from ..storage.values import decoded, folded_data
from ..stored_times import whole_ms
from ..text import shown
from ..transcript_key import TranscriptKey

logger = logging.getLogger("beanie_session_store.reading")


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


async def sessions(
    connection: Connection, tenant: str, project_key: str
) -> list[SessionStoreListEntry]:
    """Id and modification time of every session with a main transcript."""
    fields = {"_id": 0, "session_id": 1, "mtime": 1}

    async def attempt() -> list[SessionStoreListEntry]:
        query = listed(tenant, project_key, connection.server.now())
        # One command and one decode for all of them: Beanie would make an object of each.
        found, _ = await find_all(
            connection.summaries.collection, connection.server, query, fields, "session_id"
        )
        return cast("list[SessionStoreListEntry]", found)

    return await retried(connection.client, attempt)


async def session_listings(
    connection: Connection, query: Mapping[str, Any]
) -> AsyncIterator[SessionListing]:
    """The living sessions that a query of one tenant's finds, in order."""
    order = [("project_key", 1), ("session_id", 1)]
    summaries = connection.summaries.confirmed
    attempts = Attempts()
    after: dict[str, Any] = {}
    while True:
        try:
            rows = summaries.find(
                query, NOT_EXPIRED, after, rows=listed_rows(connection), sort=order
            )
            async with confirmed_primary(connection.client):
                async for row in rows:
                    if not row.is_of_session:
                        continue
                    found = await listing_of(connection, row)
                    yield found
                    attempts = Attempts()
                    after = behind(project_key=found.project_key, session_id=found.session_id)
            return
        except PyMongoError as error:
            # A slow consumer outlives its cursor; the next one goes on from here.
            if not is_resumable(error) or not await attempts.pause(error):
                raise


class ListedRow(KeyRow):
    """What a listing is made of, as a summary has it."""

    mtime: Any = None
    title: Any = None
    first_prompt: Any = None
    metadata: Any = None
    packed_metadata: Any = None


class SealedListedRow(ListedRow):
    """The same, with what is sealed of it."""

    sealed: Any = None
    totals: Any = None

    class Settings:
        """The parts of fields that are read, as Beanie looks for them."""

        projection: ClassVar[dict[str, int]] = {
            "_id": 0,
            **dict.fromkeys(("tenant", "project_key", "session_id", "mtime"), 1),
            **dict.fromkeys(("title", "first_prompt", "metadata", "packed_metadata"), 1),
            "sealed": 1,
            "totals.next_seq": 1,
        }


def listed_rows(connection: Connection) -> type[ListedRow]:
    """What is read of each summary for a listing."""
    return ListedRow if connection.keyring is None else SealedListedRow


async def listing_of(connection: Connection, row: ListedRow) -> SessionListing:
    """The listing that a summary gives."""
    session_id = row.session_id
    titles = (row.title, row.first_prompt)
    if isinstance(row, SealedListedRow) and row.sealed is not None:
        texts = await shown_texts(connection, row.key, {"sealed": row.sealed, "totals": row.totals})
        titles = (texts.get("title"), texts.get("first_prompt"))
    title = next((each for each in titles if each and isinstance(each, str)), None)
    is_plain = isinstance(row.metadata, dict)
    metadata = cast("dict[str, Any]", row.metadata) if is_plain else None
    # Beanie stores a field without a value as null.
    if metadata is None and row.packed_metadata is not None:
        try:
            metadata = await decoded(row.packed_metadata, f"the metadata of session {session_id}")
        except CorruptEntryError as error:
            # It must not cost the sessions that are listed behind it.
            logger.warning("%s", error)
    return SessionListing(row.project_key, session_id, whole_ms(row.mtime), title, metadata)


async def session_summaries(
    connection: Connection, tenant: str, project_key: str
) -> list[SessionSummaryEntry]:
    """The folded summary of every session with a main transcript."""
    fields = {"_id": 0, "session_id": 1, "mtime": 1, **dict.fromkeys(DATA_FIELDS, 1)}

    async def unpacked(
        rows: list[dict[str, Any]], session: ClientSession | None = None
    ) -> list[SessionSummaryEntry]:
        kept: list[dict[str, Any]] = []
        folds: Sequence[Any] = ()
        if connection.keyring is not None:
            folds = await opened_folds(connection, tenant, project_key, rows)
        for row, fold in zip_longest(rows, folds):
            if fold is not None:
                row["data"] = fold
                del row["packed_data"]
            elif "data" not in row or connection.keyring is not None:
                key = TranscriptKey(tenant, project_key, row["session_id"])
                try:
                    row["data"] = await folded_data(connection, key, row, session)
                except KeyDestroyedError:
                    # Nobody can read it any more; it must not cost the other sessions.
                    continue
                row.pop("packed_data", None)
                row.pop("data_chunks", None)
            kept.append(row)
        return cast("list[SessionSummaryEntry]", kept)

    async def attempt() -> list[SessionSummaryEntry]:
        query = listed(tenant, project_key, connection.server.now())
        found, _ = await find_all(
            connection.summaries.collection, connection.server, query, fields, "session_id"
        )
        if not any(row.get("data_chunks") for row in found):
            return await unpacked(found)
        # Chunks must be of the same moment as the summary that they belong to, and may be deleted
        # as soon as the server says that they have expired.
        async with snapshot(connection.client, connection.server) as session:
            # The driver's own, as above: a model of each would take longer than all the rest.
            cursor = connection.summaries.collection.find(
                {**query, **NOT_EXPIRED}, fields, session=session
            )
            return await unpacked(await cursor.to_list(None), session)

    return await retried(connection.client, attempt)


async def subkeys(connection: Connection, key: TranscriptKey) -> list[str]:
    """The subpaths of a session, each once."""

    async def attempt() -> list[str]:
        # No snapshot, in which sharded collections have no distinct. What was there before the
        # session was seen to live was whole: nothing of it is swept as long as it does.
        # The driver's own, for Beanie 1 has no distinct.
        entries = with_confirmed_reads(connection.entries.collection)
        query: dict[str, Any] = {**key.of_session, "subpath": {"$gt": ""}}
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
    confirmed = replace(connection, summaries=connection.summaries.confirmed)
    return await retried(connection.client, attempt)
