"""One side of a move between drivers: writes or reads sessions under the installed one."""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import timedelta
from typing import Any

from beanie_session_store import (
    BeanieSessionStore,
    TranscriptEntry,
    database_of,
    retention_policies,
    set_retention,
)
from beanie_session_store.app.database.driver import IS_MOTOR

MAIN: Any = {"project_key": "-app", "session_id": "11111111-1111-4111-8111-111111111111"}
SUBAGENT: Any = {**MAIN, "subpath": "subagents/agent-a1"}
ENTRIES = [
    {"type": "user", "uuid": "u1", "timestamp": "2026-01-01T00:00:00Z", "text": "native"},
    {"type": "mode", "mode": "without uuid"},
    {"type": "user", "uuid": "u2", "text": "cut inside an emoji \ud83d"},
    {"type": "user", "uuid": "u3", "text": "large " + "x" * 1000, "n": 2**70, "deep": [[[[]]]]},
    {"type": "custom-title", "customTitle": "Moving"},
]


async def seen(store: BeanieSessionStore) -> str:
    """All that the store says of what is stored, as text."""
    policies = await retention_policies(database_of(TranscriptEntry))
    entries = await TranscriptEntry.find_all().sort("seq").to_list()
    return json.dumps(
        {
            "main": await store.load(MAIN),
            "subagent": await store.load(SUBAGENT),
            "subkeys": await store.list_subkeys(MAIN),
            "sessions": await store.list_sessions("-app"),
            "summaries": await store.list_session_summaries("-app"),
            "policies": str(policies),
            "documents": [(entry.seq, entry.uuid, str(entry.created_at)) for entry in entries],
        },
        sort_keys=True,
    )


async def main(step: str, url: str, database: str) -> None:
    async with BeanieSessionStore.connect(url, database=database) as store:
        if step == "driver":
            print("motor" if IS_MOTOR else "pymongo")
            return
        if step == "write":
            await set_retention(database_of(TranscriptEntry), timedelta(days=30))
            await store.append(MAIN, ENTRIES)
            await store.append(SUBAGENT, [{"type": "user", "uuid": "u1", "agent": True}])
        if step == "go on":
            # The retry of a batch that the other driver stored, with one new entry behind it.
            await store.append(MAIN, [*ENTRIES, {"type": "user", "uuid": "u4"}])
        print(await seen(store))


asyncio.run(main(*sys.argv[1:]))
