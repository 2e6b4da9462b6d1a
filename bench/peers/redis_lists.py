"""The SDK's Redis reference adapter, by its documented sequence of operations.

Its code is not used. One list of JSON lines per transcript, one sorted set of sessions per
project, scored by mtime, and one hash of folds per project.

- append: ``HGET`` of the fold, then one pipeline of ``RPUSH``, ``ZADD`` and ``HSET``, sent as
  MULTI/EXEC: two round trips.
- load: ``LRANGE``, and ``json.loads`` of each line.
- list_sessions: ``ZRANGE`` with scores; list_session_summaries: that and ``HGETALL``.

The server writes its log to disk before it answers (``appendfsync always``); it is not replicated.
"""

from __future__ import annotations

import json
import time
from typing import Any

from claude_agent_sdk import SessionKey, fold_session_summary
from redis.asyncio import BlockingConnectionPool, Redis

from ..entries import Entry
from .contender import POOL_SIZE, Contender


class RedisLists(Contender):
    name = "redis"

    def __init__(self, client: Any, prefix: str) -> None:
        self._client = client
        self._prefix = prefix

    @classmethod
    async def open(cls, port: int, prefix: str) -> RedisLists:
        """A contender that is ready to append."""
        pool = BlockingConnectionPool(
            host="127.0.0.1", port=port, max_connections=POOL_SIZE, decode_responses=True
        )
        return cls(Redis.from_pool(pool), prefix)

    async def append(self, key: SessionKey, entries: list[Entry]) -> None:
        project, session_id = self._place(key["project_key"]), key["session_id"]
        stored: str | None = await self._client.hget(f"{project}:folds", session_id)
        known: Any = stored and json.loads(stored)
        folded = fold_session_summary(known, key, entries)
        mtime = int(time.time() * 1000)
        summary = {"session_id": session_id, "mtime": mtime, "data": folded["data"]}
        async with self._client.pipeline(transaction=True) as pipeline:
            pipeline.rpush(f"{project}:{session_id}", *[json.dumps(entry) for entry in entries])
            pipeline.zadd(f"{project}:sessions", {session_id: mtime})
            pipeline.hset(f"{project}:folds", session_id, json.dumps(summary))
            await pipeline.execute()

    async def load(self, key: SessionKey) -> list[Entry]:
        place = f"{self._place(key['project_key'])}:{key['session_id']}"
        return [json.loads(line) for line in await self._client.lrange(place, 0, -1)]

    async def list_sessions(self, project_key: str) -> list[Any]:
        place = f"{self._place(project_key)}:sessions"
        found = await self._client.zrange(place, 0, -1, withscores=True)
        return [{"session_id": name, "mtime": int(score)} for name, score in found]

    async def list_session_summaries(self, project_key: str) -> list[Any]:
        found = await self._client.hgetall(f"{self._place(project_key)}:folds")
        return [json.loads(summary) for summary in found.values()]

    async def clone(self, key: SessionKey, names: list[str]) -> None:
        project, session_id = self._place(key["project_key"]), key["session_id"]
        score = await self._client.zscore(f"{project}:sessions", session_id)
        fold = json.loads(await self._client.hget(f"{project}:folds", session_id))
        for at in range(0, len(names), 1000):
            async with self._client.pipeline(transaction=False) as pipeline:
                for name in names[at : at + 1000]:
                    pipeline.copy(f"{project}:{session_id}", f"{project}:{name}")
                    pipeline.zadd(f"{project}:sessions", {name: score})
                    summary = json.dumps({**fold, "session_id": name})
                    pipeline.hset(f"{project}:folds", name, summary)
                await pipeline.execute()

    def _place(self, project_key: str) -> str:
        return f"{self._prefix}:{project_key}"

    async def close(self) -> None:
        await self._client.flushall()
        await self._client.aclose(close_connection_pool=True)
