"""A member that has just been elected does not know yet what a majority has."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
from beanie import init_beanie
from faults.cluster import Cluster
from support.entries import KEY, message, turn
from support.server import connected

from beanie_session_store import (
    DOCUMENT_MODELS,
    BeanieSessionStore,
    UnreachableError,
    upgrade_schema,
)
from beanie_session_store.app.database.driver import Database

pytestmark = pytest.mark.faults

OTHER = {**KEY, "session_id": "other"}

# What it takes until the answer of the primary comes to the member that follows it.
_DELAY_SECONDS = 0.5
# Far longer than a read takes that does not wait.
_READ_SECONDS = 1.5


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster(transaction_seconds=60) as cluster:
        yield cluster


@pytest.fixture
async def database(cluster: Cluster) -> AsyncIterator[Database]:
    async with connected(cluster.url, heartbeatFrequencyMS=500) as client:
        database = client[f"test_{uuid.uuid4().hex[:8]}"]
        await upgrade_schema(database)
        await init_beanie(database=database, document_models=DOCUMENT_MODELS)
        yield database


class Successor:
    """The member that has the last append, but was never told that a majority has it."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.old = cluster.primary()
        self.index = (self.old + 1) % 3
        self._other = (self.old + 2) % 3

    async def take_over(self, append: Callable[[], Awaitable[None]]) -> None:
        """Run an append, and elect the member before it hears that the append is confirmed."""
        self._replicate(False)
        late = {"delay": _DELAY_SECONDS, "from": self.index, "to": self.old, "way": "answers"}
        self._cluster.links(late)
        await append()
        self._cluster.links({"reset": True, "from": self.index, "to": self.old})
        self._cluster.kill(self.old)
        while not self._cluster.client(self.index).admin.command("hello")["isWritablePrimary"]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    def confirm(self) -> None:
        """Let the other member follow, so that a majority has what the new primary has."""
        self._replicate(True)

    def recover(self) -> None:
        self._cluster.links()
        self._cluster.restart(self.old)

    def _replicate(self, yes: bool) -> None:
        admin = self._cluster.client(self._other).admin
        admin.command("configureFailPoint", "stopReplProducer", mode="off" if yes else "alwaysOn")


async def _streamed(store: BeanieSessionStore) -> list[Any]:
    return [entry async for entry in store.stream(KEY)]


async def _conversation(store: BeanieSessionStore) -> list[Any]:
    transcript = await store.transcript(KEY)
    assert transcript is not None
    return list(transcript.entries)


READS: dict[str, Callable[[BeanieSessionStore], Awaitable[Any]]] = {
    "load": lambda store: store.load(KEY),
    "stream": _streamed,
    "transcript": _conversation,
    "list_sessions": lambda store: store.list_sessions(KEY["project_key"]),
    "list_session_summaries": lambda store: store.list_session_summaries(KEY["project_key"]),
    "list_subkeys": lambda store: store.list_subkeys(OTHER),
    "sessions": lambda store: store.sessions(),
    "verify": lambda store: store.verify(KEY),
}


async def test_reads_have_every_append_that_the_last_primary_acknowledged(
    cluster: Cluster, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = BeanieSessionStore()
    await store.append(KEY, turn(1))
    await store.append(OTHER, turn(1))
    before = {name: await read(store) for name, read in READS.items()}
    successor = Successor(cluster)

    async def append() -> None:
        subagent = {**OTHER, "subpath": "subagents/agent-a1"}
        await asyncio.gather(
            store.append(subagent, [message("to a subagent")]), store.append(KEY, turn(2))
        )

    await successor.take_over(append)
    reads = {name: asyncio.create_task(read(store)) for name, read in READS.items()}
    early, _ = await asyncio.wait(reads.values(), timeout=_READ_SECONDS)
    with monkeypatch.context() as patch:
        patch.setattr("beanie_session_store.app.database.attempts._SECONDS", 0.2)
        with pytest.raises(UnreachableError, match=r"Check .* a majority of its members is up"):
            await store.load(KEY)
    successor.confirm()
    during = {name: await task for name, task in reads.items()}
    successor.recover()
    cluster.wait_healthy()
    after = {name: await read(store) for name, read in READS.items()}
    assert [name for name in READS if during[name] != after[name]] == []
    assert [name for name in READS if before[name] == after[name]] == []
    assert not early
