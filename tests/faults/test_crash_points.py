"""A writer killed at any step leaves its batch whole or nothing of it, and nothing in the way."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from faults.crash import POINTS, CrashPoint
from faults.processes import forking
from pymongo import MongoClient, monitoring
from support.entries import KEY, assert_summary_is_the_fold, seqs, turn

from beanie_session_store import BeanieSessionStore, SessionStoreError
from beanie_session_store.app.driver import Database

pytestmark = pytest.mark.faults

OTHER = {**KEY, "session_id": "other"}
DELETES = ("delete entries", "delete summary")


@pytest.fixture(autouse=True, scope="module")
def short_transactions(mongo_url: str) -> Iterator[None]:
    """MongoDB ends the transaction of a dead client after this time, a minute by default."""
    with MongoClient[dict[str, Any]](mongo_url) as client:
        client.admin.command("setParameter", 1, transactionLifetimeLimitSeconds=2)
        yield
        client.admin.command("setParameter", 1, transactionLifetimeLimitSeconds=60)


def die(url: str, database: str, point: str, sent: list[dict[str, Any]]) -> None:
    """Begin the write that passes the point, and die there."""

    async def write() -> None:
        async with BeanieSessionStore.connect(url, database=database, upgrade=False) as store:
            monitored = point.split(" ", 1)[1]
            if monitored in DELETES:
                await store.delete(KEY)
            else:
                await store.append(OTHER if monitored == "create session" else KEY, sent)

    monitoring.register(CrashPoint(point, 1))
    asyncio.run(write())


@pytest.mark.parametrize("point", POINTS)
async def test_a_killed_writer_leaves_all_or_nothing(
    store: BeanieSessionStore, database: Database, mongo_url: str, point: str
) -> None:
    first, sent, third = turn(1), turn(2), turn(3)
    key = OTHER if point.endswith("create session") else KEY
    before = [] if key == OTHER else first
    await store.append(KEY, first)
    # The next append gives the session a date.
    policy = {"tenant": "*", "project_key": "*", "keep_seconds": 3600}
    await database["claude_retention_policies"].insert_one(policy)
    process = forking().Process(target=die, args=(mongo_url, database.name, point, sent))
    process.start()
    await asyncio.to_thread(process.join)
    assert process.exitcode == -signal.SIGKILL, "it never came to that point"
    # Every point but one comes before the commit is sent.
    stored = before + sent if point == "after commit" else before
    assert (await store.load(key) or []) == stored
    await append(key, third)
    assert (await store.load(key) or []) == stored + third
    assert await seqs(key) == list(range(1, len(stored + third) + 1))
    await assert_summary_is_the_fold(store, key)
    found = database["claude_transcript_entries"].find({"session_id": key["session_id"]})
    assert len({row.get("expires_at") for row in await found.to_list(None)}) == 1


async def append(key: dict[str, str], batch: list[dict[str, Any]]) -> None:
    """As the SDK does: a batch that failed is sent again."""
    while True:
        try:
            return await BeanieSessionStore().append(key, batch)
        except SessionStoreError:
            continue
