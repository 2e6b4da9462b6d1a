"""A lease outlives the primary that gave it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any

import pytest
from beanie import init_beanie
from faults.cluster import Cluster
from support.entries import KEY, turn
from support.server import connected

from beanie_session_store import (
    DOCUMENT_MODELS,
    BeanieSessionStore,
    LeaseLostError,
    SessionBusyError,
    UnreachableError,
    upgrade_schema,
)
from beanie_session_store.app.database.driver import Database

pytestmark = pytest.mark.faults

# Elections take some seconds here, and longer where the machine does something else.
TTL = timedelta(seconds=20)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster() as cluster:
        yield cluster


@pytest.fixture
async def database(cluster: Cluster) -> AsyncIterator[Database]:
    cluster.wait_healthy()
    async with connected(cluster.url, heartbeatFrequencyMS=500) as client:
        database = client[f"test_{uuid.uuid4().hex[:8]}"]
        await upgrade_schema(database)
        await init_beanie(database=database, document_models=DOCUMENT_MODELS)
        yield database


async def rival_gets_it(store: BeanieSessionStore, stop: asyncio.Event) -> Any:
    while not stop.is_set():
        try:
            async with store.lease(KEY, owner="rival") as leased:
                return leased.lease
        except (SessionBusyError, UnreachableError):
            await asyncio.sleep(0.1)
    return None


@pytest.mark.parametrize(
    ("fault", "is_there"),
    [("step down", True), ("step down", False), ("killed", True), ("frozen", True)],
)
async def test_renewals_survive_the_loss_of_the_primary(
    cluster: Cluster, database: Database, fault: str, is_there: bool
) -> None:
    store, first, second, third = BeanieSessionStore(), turn(1), turn(2), turn(3)
    written = []
    if is_there:
        await store.append(KEY, first)
        written += first
    stop = asyncio.Event()
    async with store.lease(KEY, owner="holder", ttl=TTL) as leased:
        rival = asyncio.create_task(rival_gets_it(BeanieSessionStore(), stop))
        before, primary = leased.until, cluster.primary()
        if fault == "step down":
            cluster.step_down(primary, 5)
        elif fault == "killed":
            cluster.kill(primary)
        else:
            cluster.freeze(primary)
        await leased.append(KEY, second)
        # The new primary has renewed it, and again.
        while leased.until < before + TTL / 2:  # noqa: ASYNC110
            await asyncio.sleep(0.2)
        if fault == "killed":
            cluster.restart(primary)
        elif fault == "frozen":
            cluster.thaw(primary)
        await leased.append(KEY, third)
        assert not leased.lost.is_set()
        held = await store.lease_of(KEY)
        assert held is not None
        assert (held.owner, held.since) == ("holder", leased.lease.since)
        stop.set()
        assert await rival is None
    assert await store.load(KEY) == [*written, *second, *third]
    assert await store.lease_of(KEY) is None


async def test_a_holder_that_reaches_no_server_has_lost_it_before_others_get_it(
    cluster: Cluster, database: Database
) -> None:
    """By its own clock, for nobody tells it; what it appends when all is well again is refused."""
    told = asyncio.Event()
    async with connected(cluster.url, heartbeatFrequencyMS=500) as client:
        other = BeanieSessionStore.on(client[database.name])
        ttl = timedelta(seconds=4)
        async with other.lease(KEY, owner="holder", ttl=ttl, on_lost=told.set) as leased:
            until = leased.until
            for index in range(3):
                cluster.freeze(index)
            await told.wait()
            assert leased.lost.is_set()
            for index in range(3):
                cluster.thaw(index)
            cluster.wait_healthy()
            wait = timedelta(minutes=2)
            async with BeanieSessionStore().lease(KEY, owner="next", wait=wait) as next_one:
                assert next_one.lease.since >= until
                with pytest.raises(LeaseLostError, match="could not be renewed"):
                    await leased.append(KEY, turn(1))
                await next_one.append(KEY, turn(2))
