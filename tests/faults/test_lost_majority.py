"""What a primary alone has is not stored yet, whoever asks for it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from datetime import datetime, timezone
from typing import Any

import pytest
from beanie import init_beanie
from faults.cluster import Cluster
from pymongo import WriteConcern, monitoring
from support.entries import KEY, assert_summary_is_the_fold, marker, message, turn
from support.server import connected

from beanie_session_store import (
    DOCUMENT_MODELS,
    BeanieSessionStore,
    SessionStoreError,
    upgrade_schema,
)
from beanie_session_store.app.database.driver import Database

pytestmark = pytest.mark.faults

ENTRIES = "claude_transcript_entries"

WRITER = """
import asyncio, json, sys
from beanie_session_store import BeanieSessionStore

async def main(url, database, key, batch):
    async with BeanieSessionStore.connect(url, database=database, upgrade=False) as store:
        print("ready", flush=True)
        sys.stdin.readline()
        await store.append(json.loads(key), json.loads(batch))

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def servers() -> Iterator[Cluster]:
    # Servers notice only after the usual ten seconds that they have lost their majority.
    with Cluster(transaction_seconds=60, election_seconds=10) as cluster:
        yield cluster


@pytest.fixture
def cluster(servers: Cluster) -> Iterator[Cluster]:
    yield servers
    servers.links()
    servers.wait_healthy()


@pytest.fixture
async def database(cluster: Cluster) -> AsyncIterator[Database]:
    async with connected(cluster.url) as client:
        database = client[f"test_{uuid.uuid4().hex[:8]}"]
        await upgrade_schema(database)
        await init_beanie(database=database, document_models=DOCUMENT_MODELS)
        yield database


@pytest.fixture
def store(database: Database) -> BeanieSessionStore:
    return BeanieSessionStore()


@pytest.fixture
def writer(cluster: Cluster, database: Database) -> Iterator[Any]:
    """Another process that begins an append when it is told to."""
    command = [sys.executable, "-c", WRITER, cluster.url, database.name]
    command += map(json.dumps, (KEY, turn(2)))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield process
        process.kill()


def cut_off(cluster: Cluster, member: int) -> None:
    """From the other members, not from clients."""
    others = [{"stall": True, "from": index, "to": member} for index in range(3)]
    cluster.links(*others, {"stall": True, "from": member})


async def append_elsewhere(cluster: Cluster, database: Database, writer: Any) -> int:
    """Cut the primary off, and let the other process append what then only the primary has."""
    old = cluster.primary()
    entries = cluster.client(old)[database.name][ENTRIES]
    before = entries.count_documents({})
    cut_off(cluster, old)
    writer.stdin.write(b"go\n")
    writer.stdin.flush()
    while entries.count_documents({}) == before:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    return old


async def test_a_replay_is_acknowledged_only_when_a_majority_has_it(
    cluster: Cluster, store: BeanieSessionStore, database: Database, writer: Any
) -> None:
    await store.append(KEY, turn(1))
    old = await append_elsewhere(cluster, database, writer)
    sent = [row["entry"] for row in cluster.client(old)[database.name][ENTRIES].find()][6:]
    replay = asyncio.create_task(store.append(KEY, sent))
    # The driver ends an abort that waits for the majority after five seconds.
    await asyncio.wait([replay], timeout=8)
    acknowledged = replay.done() and replay.exception() is None
    writer.kill()
    while cluster.primary() == old:  # noqa: ASYNC110
        await asyncio.sleep(0.1)
    if acknowledged:
        assert (await store.load(KEY) or [])[6:] == sent
    cluster.links()
    await replay
    assert (await store.load(KEY) or [])[6:] == sent
    await assert_summary_is_the_fold(store)


async def test_readers_see_only_what_a_majority_has(
    cluster: Cluster, store: BeanieSessionStore, database: Database, writer: Any
) -> None:
    await store.append(KEY, turn(1))
    before = await store.list_sessions(KEY["project_key"])
    await append_elsewhere(cluster, database, writer)
    assert await store.load(KEY) is not None
    assert len(await store.load(KEY) or []) == 6
    assert await store.list_sessions(KEY["project_key"]) == before


@pytest.mark.parametrize("name", ["delete", "hold"])
async def test_what_a_primary_alone_has_is_not_done_already(
    cluster: Cluster, store: BeanieSessionStore, database: Database, name: str
) -> None:
    await store.append(KEY, turn(1))
    old = cluster.primary()
    alone = cluster.client(old)[database.name]
    summaries = alone["claude_transcript_summaries"].with_options(write_concern=WriteConcern(1))
    cut_off(cluster, old)
    if name == "delete":
        alone[ENTRIES].with_options(write_concern=WriteConcern(1)).delete_many({})
        summaries.delete_many({})
    else:
        summaries.update_many({}, {"$set": {"held_at": datetime.now(timezone.utc)}})
    call = asyncio.create_task(getattr(store, name)(KEY))
    await asyncio.wait([call], timeout=4)
    assert not call.done() or call.exception() is not None
    while cluster.primary() == old:  # noqa: ASYNC110
        await asyncio.sleep(0.1)
    cluster.links()
    cluster.wait_healthy()
    with contextlib.suppress(SessionStoreError):
        await call
        summary = await store.summary(KEY)
        assert summary is None if name == "delete" else summary is not None and summary.held_at


class LateCommit(monitoring.CommandListener):
    """Stalls the client's links just before its next commit is sent."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.armed = False

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        if self.armed and event.command_name == "commitTransaction":
            self.armed = False
            self.cluster.links({"stall": True, "from": "client"})

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        pass

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        pass


@pytest.mark.parametrize(
    "batch",
    [
        pytest.param([marker("only"), marker("only")], id="without-uuid"),
        pytest.param([marker(), message()], id="mixed"),
    ],
)
async def test_a_commit_that_lands_during_the_retry_stores_the_batch_once(
    cluster: Cluster,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    batch: list[dict[str, Any]],
) -> None:
    """What TCP sends again after an outage arrives when its sender has long given up."""
    late = LateCommit(cluster)
    options = {
        "connectTimeoutMS": 3000,
        "socketTimeoutMS": 3000,
        "serverSelectionTimeoutMS": 3000,
        "heartbeatFrequencyMS": 500,
        "event_listeners": [late],
    }
    async with connected(cluster.url, **options) as client:
        own = client[database.name]
        await init_beanie(database=own, document_models=DOCUMENT_MODELS)
        store = BeanieSessionStore()
        await store.append(KEY, turn(1))
        late.armed = True
        with monkeypatch.context() as patch:
            patch.setattr("beanie_session_store.app.database.attempts._SECONDS", 0.5)
            with pytest.raises(SessionStoreError, match="not known"):
                await store.append(KEY, batch)
        # New connections work again, while the commit is still on its way.
        cluster.links({"stall": True, "from": "client", "before": time.monotonic()})
        await asyncio.sleep(2)
        retry = asyncio.create_task(store.append(KEY, batch))
        await asyncio.sleep(2)
        cluster.links()
        await retry
        assert (await store.load(KEY) or [])[6:] == batch
        await assert_summary_is_the_fold(store)
