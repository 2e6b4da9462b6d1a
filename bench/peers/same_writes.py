"""Our own writes on bare PyMongo: what they cost without anything that the store adds.

Per append: ``update`` of the summary (matched on what it was last, as the store does),
``insert`` of the entries, ``commitTransaction``. The documents and indexes are the store's. What
is left out: checking and encoding each entry for losslessness, the SDK's fold, counting the
totals, recognising what comes again, retention, trying again, and every error message. A
session's first append makes its summary in the same transaction.

Its load is a bare ``find`` with PyMongo's default decoding.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from bson import ObjectId
from bson.int64 import Int64
from claude_agent_sdk import SessionKey

from beanie_session_store.models.counting.tally import Tally
from beanie_session_store.models.entry import COUNTED_INDEX, ORDER_INDEX, UUID_INDEX
from beanie_session_store.models.retention import EXPIRY_INDEX
from beanie_session_store.models.summary import ACTIVITY_INDEX, LISTING_INDEX, SESSION_INDEX

from ..entries import TURN_ENTRIES, Entry, EntrySource
from .contender import MongoContender

_TENANT = "default"


def _totals() -> dict[str, Any]:
    tally = Tally()
    tally.add(EntrySource().batch(TURN_ENTRIES), "", 1)
    return tally.document(1)


_TOTALS = _totals()
"""What the store writes of a turn; counting it is not among the writes."""


class SameWrites(MongoContender):
    name = "same_writes"

    async def prepare(self) -> None:
        self.entries = self.database["entries"]
        self.summaries = self.database["summaries"]
        await self.entries.create_indexes([ORDER_INDEX, UUID_INDEX, COUNTED_INDEX, EXPIRY_INDEX])
        await self.summaries.create_indexes(
            [SESSION_INDEX, ACTIVITY_INDEX, LISTING_INDEX, EXPIRY_INDEX]
        )
        self._known: dict[tuple[object, ...], tuple[ObjectId, int]] = {}

    async def append(self, key: SessionKey, entries: list[Entry]) -> None:
        owner = {"tenant": _TENANT, **key}
        transcript = {**owner, "subpath": ""}
        now = datetime.now(timezone.utc)
        known = self._known.get(tuple(key.values()))
        summary_id, first = known or (ObjectId(), 1)
        changes: dict[str, Any] = {
            "next_seq": Int64(first + len(entries)),
            "active_at": now,
            "mtime": Int64(now.timestamp() * 1000),
            "totals": {**_TOTALS, "next_seq": Int64(first + len(entries)), "last_at": now},
        }
        documents: list[dict[str, Any]] = []
        for seq, entry in enumerate(entries, first):
            document = {**transcript, "seq": Int64(seq)}
            if "uuid" in entry:
                document["uuid"] = entry["uuid"]
            document["entry"] = entry
            document["created_at"] = now
            documents.append(document)
        async with self.client.start_session() as session:
            await session.start_transaction()
            if known:
                result = await self.summaries.update_one(
                    {**owner, "_id": summary_id, "next_seq": first},
                    {"$set": changes},
                    session=session,
                )
                assert result.matched_count == 1
            else:
                summary = {"_id": summary_id, **owner, **changes, "created_at": now}
                await self.summaries.insert_one(summary, session=session)
            await self.entries.insert_many(documents, session=session)
            await session.commit_transaction()
        self._known[tuple(key.values())] = (summary_id, first + len(entries))

    async def load(self, key: SessionKey) -> list[Entry]:
        transcript = {"tenant": _TENANT, **key, "subpath": ""}
        found = self.entries.find(transcript, {"_id": 0, "entry": 1}, sort=[("seq", 1)])
        return [document["entry"] for document in await found.to_list()]
