"""What an erasure leaves of a session: a tombstone, which holds its key and nothing of what it was.

It stands in the place of the summary, so whoever begins a session meets it: there can be only one
summary of a key. Readers take it for the mark of a deleted session, which it is too until all of
that is swept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from beanie.operators import In
from bson import ObjectId
from bson.int64 import Int64

from ..database.driver import ClientSession, Collection
from ..storage.connection import Connection
from ..storage.criteria import DELETED, NOT_DELETED
from ..transcript_key import TranscriptKey

RECORD_STAYS = timedelta(days=1)
"""How much longer the record stands than the tombstones: a receipt of short ones says it all."""

# What a lease or a sweep adds says nothing of the session.
_FIELDS = (
    *("_id", "tenant", "project_key", "session_id", "next_seq", "first_seq", "created_at"),
    *("expires_at", "erased_until", "erasure", "remains", "lease", "counting"),
)

MORE_THAN_TOMBSTONE: dict[str, Any] = {
    "$or": [
        NOT_DELETED,
        {
            "$expr": {
                "$not": {
                    "$setIsSubset": [
                        {"$map": {"input": {"$objectToArray": "$$ROOT"}, "in": "$$this.k"}},
                        [*_FIELDS],
                    ]
                }
            }
        },
    ]
}
"""Summaries that are of a session, or that something else wrote to since it was erased."""


@dataclass(frozen=True, slots=True)
class Erasing:
    """An erasure under way, which counts what goes in the transaction that it goes in."""

    id: ObjectId
    kept: timedelta
    """How long a tombstone stands, from when its session is gone."""
    at_least: datetime
    """Until when all of them stand."""
    records: Collection
    """Where what it came to is kept."""
    adoptions: Collection
    """How far sessions were adopted; a record outlives its session, but no erasure."""
    one_at_a_time: asyncio.Lock = field(default_factory=asyncio.Lock)
    """All sessions are counted in one record, where two transactions would meet."""

    async def counted(
        self, connection: Connection, key: TranscriptKey, session: ClientSession | None = None
    ) -> dict[str, int]:
        """How many documents there are of a session, remains of earlier ones included."""
        names = [connection.entries.name, connection.summaries.name]
        entries = connection.entries.find(key.of_session, session=session)
        chunks = connection.chunks.find(key.of_session, In("collection", names), session=session)
        return {
            "sessions": 1,
            "entries": await entries.count(),
            "chunks": await chunks.count(),
        }

    def tombstone(self, connection: Connection, key: TranscriptKey) -> dict[str, Any]:
        """What takes the place of a summary."""
        now = connection.server.now()
        return {
            **key.of_session,
            "next_seq": Int64(1),
            "first_seq": Int64(1),
            "created_at": now,
            "expires_at": DELETED,
            # An erasure of millions may take longer than the first tombstones stand.
            "erased_until": max(self.at_least, now + self.kept),
            "erasure": self.id,
        }

    async def note(
        self,
        key: TranscriptKey,
        counts: Mapping[str, int],
        until: datetime,
        session: ClientSession | None,
    ) -> None:
        """Take what is known of a session's adoption too, and add it all up.

        The tombstone stands ``until`` a moment.
        """
        taken = await self.adoptions.delete_many(key.of_session, session=session)
        added = {**counts, "adoption_records": taken.deleted_count}
        await self.records.update_one(
            {"_id": self.id},
            {
                "$inc": {f"counts.{name}": Int64(count) for name, count in added.items()},
                "$max": {"until": until, "expires_at": until + RECORD_STAYS},
            },
            session=session,
        )
