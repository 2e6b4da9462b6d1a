"""The MongoDB reference adapter that was proposed to the SDK as its pull request 1014.

Its code is not used. What is known of it: one document per entry, ordered by ``_id``; the
entries go in with one ordered ``insert_many``; a sidecar document per session holds the SDK's
fold, which is read, folded on and replaced; sessions are listed from the entries. So

- append: ``insert`` (ordered), ``find`` of the summary, ``update`` (replace, upsert): three
  commands, the first and last of them acknowledged by a majority, no transaction.
- load: ``find`` sorted by ``_id``.
- list_sessions: ``aggregate`` over the project's main entries: group by session, largest mtime.
- list_session_summaries: ``find`` in the sidecar by project.

Where its shape is not known it gets what is fastest for it: no counter, no uuid index, and as
indexes only one for loads, (project_key, session_id, subpath, _id), one that covers the listing,
(project_key, subpath, session_id, mtime), and the sidecar's unique (project_key, session_id).
"""

from __future__ import annotations

import time
from typing import Any

from bson.int64 import Int64
from claude_agent_sdk import SessionKey, fold_session_summary

from ..entries import Entry
from .contender import MongoContender


class PullRequest1014(MongoContender):
    name = "pr1014"

    async def prepare(self) -> None:
        self.entries = self.database["session_entries"]
        self.summaries = self.database["session_summaries"]
        await self.entries.create_index(["project_key", "session_id", "subpath", "_id"])
        await self.entries.create_index(["project_key", "subpath", "session_id", "mtime"])
        await self.summaries.create_index(["project_key", "session_id"], unique=True)

    async def append(self, key: SessionKey, entries: list[Entry]) -> None:
        mtime = Int64(time.time() * 1000)
        transcript = {**key, "subpath": ""}
        await self.entries.insert_many(
            [{**transcript, "entry": entry, "mtime": mtime} for entry in entries]
        )
        known: Any = await self.summaries.find_one(dict(key))
        if known is not None:
            fields = ("session_id", "mtime", "data")
            known = {name: known[name] for name in fields}
        folded = fold_session_summary(known, key, entries)
        summary = {**key, "mtime": mtime, "data": folded["data"]}
        await self.summaries.replace_one(dict(key), summary, upsert=True)

    async def load(self, key: SessionKey) -> list[Entry]:
        transcript = {**key, "subpath": ""}
        found = self.entries.find(transcript, {"_id": 0, "entry": 1}, sort=[("_id", 1)])
        return [document["entry"] for document in await found.to_list()]

    async def list_sessions(self, project_key: str) -> list[Any]:
        found = await self.entries.aggregate(
            [
                {"$match": {"project_key": project_key, "subpath": ""}},
                {"$group": {"_id": "$session_id", "mtime": {"$max": "$mtime"}}},
            ]
        )
        return [{"session_id": row["_id"], "mtime": row["mtime"]} for row in await found.to_list()]

    async def list_session_summaries(self, project_key: str) -> list[Any]:
        fields = {"_id": 0, "session_id": 1, "mtime": 1, "data": 1}
        return await self.summaries.find({"project_key": project_key}, fields).to_list()
