"""MongoDB's own session-store package for the SDK, by its documented sequence of operations.

Its code is not used.

- append: ``findAndModify`` of the transcript's counter (``$inc`` by the number of entries,
  upsert), ``insert`` (unordered), ``find`` of the summary, ``update`` (replace, upsert): four
  commands, three of them acknowledged by a majority, no transaction.
- load: ``find`` sorted by ``position``.
- list_sessions and list_session_summaries: ``find`` in the sidecar by project.

Indexes of the entries: unique order (project_key, session_id, subpath, position), unique partial
uuid (project_key, session_id, subpath, uuid), and (project_key, subpath, session_id, mtime). Of
the sidecar: unique (project_key, session_id), and (project_key, mtime). Of the counters: ``_id``.
"""

from __future__ import annotations

import time
from typing import Any

from bson.int64 import Int64
from claude_agent_sdk import SessionKey, fold_session_summary
from pymongo import ReturnDocument

from ..entries import Entry
from .contender import MongoContender


class MongodbPackage(MongoContender):
    name = "mongodb_package"

    async def prepare(self) -> None:
        self.entries = self.database["claude_session_entries"]
        self.summaries = self.database["claude_session_summaries"]
        self.counters = self.database["claude_session_counters"]
        order = ["project_key", "session_id", "subpath"]
        await self.entries.create_index([*order, "position"], unique=True)
        await self.entries.create_index(
            [*order, "uuid"],
            unique=True,
            partialFilterExpression={"uuid": {"$exists": True}},
        )
        await self.entries.create_index(["project_key", "subpath", "session_id", "mtime"])
        await self.summaries.create_index(["project_key", "session_id"], unique=True)
        await self.summaries.create_index(["project_key", "mtime"])

    async def append(self, key: SessionKey, entries: list[Entry]) -> None:
        counter = await self.counters.find_one_and_update(
            {"_id": f"{key['project_key']}/{key['session_id']}/"},
            {"$inc": {"next": Int64(len(entries))}},
            upsert=True,
            return_document=ReturnDocument.AFTER,
        )
        first = counter["next"] - len(entries)
        mtime = Int64(time.time() * 1000)
        transcript = {**key, "subpath": ""}
        documents: list[dict[str, Any]] = []
        for position, entry in enumerate(entries, first):
            document = {**transcript, "position": Int64(position), "entry": entry, "mtime": mtime}
            if "uuid" in entry:
                document["uuid"] = entry["uuid"]
            documents.append(document)
        await self.entries.insert_many(documents, ordered=False)
        known: Any = await self.summaries.find_one(dict(key))
        if known is not None:
            fields = ("session_id", "mtime", "data")
            known = {name: known[name] for name in fields}
        folded = fold_session_summary(known, key, entries)
        summary = {**key, "mtime": mtime, "data": folded["data"]}
        await self.summaries.replace_one(dict(key), summary, upsert=True)

    async def load(self, key: SessionKey) -> list[Entry]:
        transcript = {**key, "subpath": ""}
        found = self.entries.find(transcript, {"_id": 0, "entry": 1}, sort=[("position", 1)])
        return [document["entry"] for document in await found.to_list()]

    async def list_sessions(self, project_key: str) -> list[Any]:
        fields = {"_id": 0, "session_id": 1, "mtime": 1}
        return await self.summaries.find({"project_key": project_key}, fields).to_list()

    async def list_session_summaries(self, project_key: str) -> list[Any]:
        fields = {"_id": 0, "session_id": 1, "mtime": 1, "data": 1}
        return await self.summaries.find({"project_key": project_key}, fields).to_list()
