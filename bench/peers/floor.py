"""The floor: one ordered ``insert_many`` of native documents, acknowledged by a majority.

Per append: ``insert``. Nothing is counted, summarised, or recognised when it comes again; no
store can be faster and still keep one document per entry. Documents: the key, ``seq`` (counted
in this process alone), ``uuid``, ``entry`` and ``created_at``, with one index, which a load
needs: unique (project_key, session_id, subpath, seq).
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timezone
from typing import Any

from bson.int64 import Int64
from claude_agent_sdk import SessionKey

from ..entries import Entry
from .contender import MongoContender


class Floor(MongoContender):
    name = "floor"

    async def prepare(self) -> None:
        self.entries = self.database["entries"]
        order = ["project_key", "session_id", "subpath", "seq"]
        await self.entries.create_index(order, name="order", unique=True)
        self._counts: Counter[tuple[object, ...]] = Counter()

    async def append(self, key: SessionKey, entries: list[Entry]) -> None:
        place = tuple(key.values())
        first = self._counts[place] + 1
        self._counts[place] += len(entries)
        now = datetime.now(timezone.utc)
        documents: list[dict[str, Any]] = []
        for seq, entry in enumerate(entries, first):
            document = {
                **key,
                "subpath": "",
                "seq": Int64(seq),
                "entry": entry,
                "created_at": now,
            }
            if "uuid" in entry:
                document["uuid"] = entry["uuid"]
            documents.append(document)
        await self.entries.insert_many(documents)

    async def load(self, key: SessionKey) -> list[Entry]:
        transcript = {**key, "subpath": ""}
        found = self.entries.find(transcript, {"_id": 0, "entry": 1}, sort=[("seq", 1)])
        return [document["entry"] for document in await found.to_list()]
