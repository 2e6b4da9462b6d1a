"""What watchers keep open at the server."""

from __future__ import annotations

import asyncio

import pytest

from beanie_session_store.app.driver import Database

_TRIES = 1000


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
    for _ in range(_TRIES):
        if await open_watches(database) == count:
            return
        await asyncio.sleep(0.05)
    pytest.fail(f"{await open_watches(database)} watches are open, not {count}")
