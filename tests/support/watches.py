"""What watchers keep open at the server."""

from __future__ import annotations

import asyncio
import time

from beanie_session_store.app.database.driver import Database

from .watchdog import WATCHDOG_SECONDS


async def open_watches(database: Database) -> int:
    """How many change streams of the database the server has, waiting or at rest."""
    reply = await database.client.admin.command(
        "aggregate",
        1,
        pipeline=[
            {"$currentOp": {"idleCursors": True, "allUsers": True}},
            {"$match": {"ns": f"{database.name}.claude_transcript_summaries"}},
            {"$match": {"cursor.originatingCommand.pipeline.0.$changeStream": {"$exists": True}}},
        ],
        cursor={},
    )
    return len(reply["cursor"]["firstBatch"])


async def until_watched(database: Database, count: int) -> None:
    """Wait until there are ``count`` of them."""
    deadline = time.monotonic() + WATCHDOG_SECONDS
    while (found := await open_watches(database)) != count:
        assert time.monotonic() < deadline, f"{found} watches are open, not {count}"
        await asyncio.sleep(0.05)
