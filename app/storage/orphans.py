"""Entries without a summary: of a session that expired, or of one whose summary something took.

MongoDB takes the summary of an expired session before its entries, and as long as a summary has a
date every entry has one: where one has none, the session did not expire. A deleted session keeps
a mark in the place of its summary until it is swept, and of its entries none without a date is
left among the first ones; the same goes for a deleted subagent. So a session whose entries have
no dates, and each of whose transcripts begins among the first ones, was neither deleted nor has
it expired. Of anything else that cannot be told.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from beanie.operators import In

from ..database.reads import retried
from ..database.transactions import snapshot
from ..transcript_key import TranscriptKey
from .connection import Connection, StoreDocuments
from .criteria import BY_KEY, KeyRow
from .living import MARKED

_PAGE = 100


@dataclass(frozen=True, slots=True)
class Orphan:
    """What is there of a session without a summary."""

    entries: int
    dated: int
    """How many of them MongoDB is to take."""
    last_seq: int
    begins_early: bool
    """Whether each transcript has an entry among those that go together with a summary."""
    created_at: datetime
    active_at: datetime

    @property
    def may_have_expired(self) -> bool:
        """Whether MongoDB may have taken the summary itself."""
        return self.dated == self.entries

    @property
    def is_lost(self) -> bool:
        """Whether something else than expiry or a deletion took the summary, for certain."""
        return not self.dated and self.begins_early


async def orphan_of(connection: Connection, key: TranscriptKey) -> Orphan | None:
    """What is there of a session, if it has no summary; ``None`` if it has one, or no entries."""
    transcripts = {
        "_id": "$subpath",
        "entries": {"$sum": 1},
        "dated": {"$sum": {"$cond": [{"$eq": [{"$type": "$expires_at"}, "date"]}, 1, 0]}},
        "first_seq": {"$min": "$seq"},
        "last_seq": {"$max": "$seq"},
        "created_at": {"$min": "$created_at"},
        "active_at": {"$max": "$created_at"},
    }
    entries = connection.entries.find(key.of_session)
    summary = connection.summaries.find_one(key.of_session)

    async def attempt() -> Orphan | None:
        async with snapshot(connection.client, connection.server) as session:
            rows = await entries.aggregate([{"$group": transcripts}], session=session).to_list()
            # Behind the entries: without snapshots, a session that is begun meanwhile has one.
            if not rows or await summary.exists(session):
                return None
        return Orphan(
            entries=sum(row["entries"] for row in rows),
            dated=sum(row["dated"] for row in rows),
            last_seq=max(row["last_seq"] for row in rows),
            begins_early=all(row["first_seq"] <= MARKED for row in rows),
            created_at=min(row["created_at"] for row in rows),
            active_at=max(row["active_at"] for row in rows),
        )

    return await retried(connection.client, attempt)


@dataclass(frozen=True, slots=True)
class Owned:
    """A session that has entries."""

    key: TranscriptKey
    has_summary: bool
    is_dated: bool
    """Whether MongoDB is to take the first of them."""


class _FirstEntryRow(KeyRow):
    expires_at: Any = None


async def sessions_with_entries(
    documents: StoreDocuments, owner: Mapping[str, str]
) -> AsyncGenerator[Owned]:
    """The sessions that have entries in the order of their keys, each by a seek in the index."""
    page: list[_FirstEntryRow] = []
    async for row in _first_entries(documents, owner):
        page.append(row)
        if len(page) == _PAGE:
            for each in await _owned(documents, page):
                yield each
            page = []
    for each in await _owned(documents, page):
        yield each


async def lost_sessions(
    connection: Connection, owner: Mapping[str, str], with_expired: bool
) -> AsyncIterator[TranscriptKey]:
    """The sessions that have entries and no summary, but for those that may have expired."""
    async for each in sessions_with_entries(connection, owner):
        if each.has_summary:
            continue
        orphan = await orphan_of(connection, each.key)
        if orphan is not None and (with_expired or not orphan.may_have_expired):
            yield each.key


async def _first_entries(
    documents: StoreDocuments, owner: Mapping[str, str]
) -> AsyncIterator[_FirstEntryRow]:
    order = [*BY_KEY, ("subpath", 1), ("seq", 1)]
    after: dict[str, Any] = {}
    while True:
        row = await documents.entries.find_one(owner, after, rows=_FirstEntryRow, sort=order)
        if row is None:
            return
        if row.is_of_session:
            yield row
        after = row.behind


async def _owned(documents: StoreDocuments, rows: list[_FirstEntryRow]) -> list[Owned]:
    owned: set[TranscriptKey] = set()
    for tenant, project_key in {(row.tenant, row.project_key) for row in rows}:
        project = {"tenant": tenant, "project_key": project_key}
        ids = [row.session_id for row in rows if row.key[:2] == (tenant, project_key)]
        async for row in documents.summaries.find(project, In("session_id", ids), rows=KeyRow):
            owned.add(row.key)
    return [Owned(row.key, row.key in owned, isinstance(row.expires_at, datetime)) for row in rows]
