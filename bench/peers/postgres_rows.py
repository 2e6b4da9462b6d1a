"""The SDK's PostgreSQL reference adapter, by its documented sequence of operations.

Its code is not used. One row per entry: a serial id, the key, the entry as ``jsonb`` and mtime.

- append: one ``INSERT`` of all rows, which is a transaction by itself: one round trip.
- load: ``SELECT`` ordered by id, and ``json.loads`` of each entry.
- list_sessions: ``SELECT ... GROUP BY session_id`` over the entries.

It keeps no fold, so it has no list_session_summaries: the SDK then loads every session listed.
Indexes: the id, (project_key, session_id, subpath, id), and (project_key, subpath, session_id,
mtime). The server writes its log to disk before it answers; it is not replicated.
"""

from __future__ import annotations

import json
import time
from typing import Any

import asyncpg
from claude_agent_sdk import SessionKey

from ..entries import Entry
from .contender import POOL_SIZE, Contender

_SCHEMA = """
CREATE TABLE {0}_entries (
    id bigserial PRIMARY KEY, project_key text NOT NULL, session_id text NOT NULL,
    subpath text NOT NULL, entry jsonb NOT NULL, mtime bigint NOT NULL
);
CREATE INDEX ON {0}_entries (project_key, session_id, subpath, id);
CREATE INDEX ON {0}_entries (project_key, subpath, session_id, mtime);
"""


class PostgresRows(Contender):
    name = "postgres"

    def __init__(self, pool: Any, prefix: str) -> None:
        self._pool = pool
        self._table = f"{prefix}_entries"

    @classmethod
    async def open(cls, port: int, prefix: str) -> PostgresRows:
        """A contender that is ready to append."""
        pool = await asyncpg.create_pool(
            host="127.0.0.1",
            port=port,
            user="bench",
            database="postgres",
            min_size=1,
            max_size=POOL_SIZE,
        )
        await pool.execute(_SCHEMA.format(prefix))
        return cls(pool, prefix)

    async def append(self, key: SessionKey, entries: list[Entry]) -> None:
        await self._pool.execute(
            f"INSERT INTO {self._table} (project_key, session_id, subpath, entry, mtime) "
            "SELECT $1, $2, '', entry, $3 FROM unnest($4::jsonb[]) WITH ORDINALITY "
            "AS given (entry, place) ORDER BY place",
            key["project_key"],
            key["session_id"],
            int(time.time() * 1000),
            [json.dumps(entry) for entry in entries],
        )

    async def load(self, key: SessionKey) -> list[Entry]:
        rows = await self._pool.fetch(
            f"SELECT entry FROM {self._table} "
            "WHERE project_key = $1 AND session_id = $2 AND subpath = '' ORDER BY id",
            key["project_key"],
            key["session_id"],
        )
        return [json.loads(row[0]) for row in rows]

    async def list_sessions(self, project_key: str) -> list[Any]:
        rows = await self._pool.fetch(
            f"SELECT session_id, max(mtime) FROM {self._table} "
            "WHERE project_key = $1 AND subpath = '' GROUP BY session_id",
            project_key,
        )
        return [{"session_id": row[0], "mtime": row[1]} for row in rows]

    async def clone(self, key: SessionKey, names: list[str]) -> None:
        await self._pool.execute(
            f"INSERT INTO {self._table} (project_key, session_id, subpath, entry, mtime) "
            f"SELECT project_key, name, subpath, entry, mtime FROM {self._table}, "
            "unnest($3::text[]) AS name WHERE project_key = $1 AND session_id = $2",
            key["project_key"],
            key["session_id"],
            names,
        )
        await self._pool.execute(f"VACUUM ANALYZE {self._table}")

    async def close(self) -> None:
        await self._pool.execute(f"DROP TABLE {self._table}")
        await self._pool.close()
