"""Entries without a summary: of a session that expired, or of one whose summary something took.

MongoDB takes the summary of an expired session before its entries, and as long as a summary has a
date every entry has one: where one has none, the session did not expire. A deleted session keeps
a mark in the place of its summary until it is swept, and of its entries none is left among the
first ones; the same goes for a deleted subagent. So a session whose entries have no dates, and
each of whose transcripts begins among the first ones, was neither deleted nor has it expired. Of
anything else that cannot be told.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from .connection import Connection
from .criteria import BY_KEY, behind
from .driver import ClientSession, Collection, aggregate
from .key import TranscriptKey
from .living import MARKED
from .reads import retried
from .transactions import snapshot

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
    pipeline: list[dict[str, Any]] = [
        {"$match": key.session_filter()},
        {
            "$group": {
                "_id": "$subpath",
                "entries": {"$sum": 1},
                "dated": {"$sum": {"$cond": [{"$eq": [{"$type": "$expires_at"}, "date"]}, 1, 0]}},
                "first_seq": {"$min": "$seq"},
                "last_seq": {"$max": "$seq"},
                "created_at": {"$min": "$created_at"},
                "active_at": {"$max": "$created_at"},
            }
        },
    ]

    async def attempt() -> Orphan | None:
        async with snapshot(connection.client, connection.server) as session:
            options = {} if session is None else {"session": session}
            found = await aggregate(connection.entries, pipeline, **options)
            rows = await found.to_list(None)
            # Behind the entries: without snapshots, a session that is begun meanwhile has one.
            if not rows or await _has_summary(connection, key, session):
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


async def _has_summary(
    connection: Connection, key: TranscriptKey, session: ClientSession | None
) -> bool:
    query = key.session_filter()
    return await connection.summaries.find_one(query, {"_id": 1}, session=session) is not None


@dataclass(frozen=True, slots=True)
class Owned:
    """A session that has entries."""

    key: TranscriptKey
    has_summary: bool
    is_dated: bool
    """Whether MongoDB is to take the first of them."""


async def sessions_with_entries(
    entries: Collection, summaries: Collection, owner: Mapping[str, str]
) -> AsyncGenerator[Owned]:
    """The sessions that have entries in the order of their keys, each by a seek in the index."""
    page: list[Mapping[str, Any]] = []
    async for row in _first_entries(entries, owner):
        page.append(row)
        if len(page) == _PAGE:
            for each in await _owned(summaries, page):
                yield each
            page = []
    for each in await _owned(summaries, page):
        yield each


async def lost_sessions(
    connection: Connection, owner: Mapping[str, str], with_expired: bool
) -> AsyncIterator[TranscriptKey]:
    """The sessions that have entries and no summary, but for those that may have expired."""
    async for each in sessions_with_entries(connection.entries, connection.summaries, owner):
        if each.has_summary:
            continue
        orphan = await orphan_of(connection, each.key)
        if orphan is not None and (with_expired or not orphan.may_have_expired):
            yield each.key


async def _first_entries(
    entries: Collection, owner: Mapping[str, str]
) -> AsyncIterator[Mapping[str, Any]]:
    after: dict[str, Any] = {}
    order = [(name, 1) for name in (*BY_KEY, "subpath", "seq")]
    fields = {"_id": 0, **dict.fromkeys((*BY_KEY, "expires_at"), 1)}
    while True:
        row = await entries.find_one({**owner, **after}, fields, sort=order)
        if row is None:
            return
        yield row
        after = behind(**{name: row[name] for name in BY_KEY})


async def _owned(summaries: Collection, rows: list[Mapping[str, Any]]) -> list[Owned]:
    keys = [TranscriptKey(*(row[name] for name in BY_KEY)) for row in rows]
    owned: set[TranscriptKey] = set()
    for tenant, project_key in {(key.tenant, key.project_key) for key in keys}:
        ids = [key.session_id for key in keys if key[:2] == (tenant, project_key)]
        query = {"tenant": tenant, "project_key": project_key, "session_id": {"$in": ids}}
        async for row in summaries.find(query, {"_id": 0, "session_id": 1}):
            owned.add(TranscriptKey(tenant, project_key, row["session_id"]))
    return [
        Owned(key, key in owned, isinstance(row.get("expires_at"), datetime))
        for key, row in zip(keys, rows, strict=True)
    ]
