"""Real servers for all tests: one replica set and one standalone, started when first asked for."""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from support.database import Databases, bound
from support.order import place_of
from support.processes import PREPARED
from support.secured import SecuredServer, secured_server
from support.server import connected

from beanie_session_store import (
    BeanieSessionStore,
    EmbeddedMongo,
)
from beanie_session_store.app.database import change_streams
from beanie_session_store.app.database.driver import Database
from beanie_session_store.app.storage import codec
from beanie_session_store.demo import agent

# To import the SDK takes a host longer than its agent runs; `python -m demo` does begin anew.
agent.PYTHON = (PREPARED, "-I")

# How long an example takes tells how busy the machine is, and nothing about the promise.
settings.register_profile(
    "untimed", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("untimed")

# Many hundred watches are left.
change_streams.MOTOR_WAIT_MS = 50

# Fail points let a test break a chosen command.
SERVER_PARAMETERS = {
    "enableTestCommands": 1,
    "ttlMonitorSleepSecs": 1,
    # What was deleted is kept as long for readers of the past, and the tests after it look
    # through it.
    "minSnapshotHistoryWindowInSeconds": 10,
}

_MEMORY = Path("/dev/shm")
# More than one server comes to, with its files for operations and journals.
_ROOM_BYTES = 2 * 1024**3


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest; the others keep their order."""
    items.sort(key=lambda item: place_of(item.path))


def pytest_collection_finish() -> None:
    """Spare the garbage collector what lives as long as the tests: modules, and the tests."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def mongo_url() -> Iterator[str]:
    """A replica set: the one named by SESSION_STORE_MONGODB_URL, or one of our own."""
    given = os.environ.get("SESSION_STORE_MONGODB_URL")
    if given:
        yield given
        return
    yield from _server_in_memory()


@pytest.fixture(scope="session")
def standalone_url() -> Iterator[str]:
    """A server without transactions."""
    yield from _server_in_memory(replica_set=False)


def _server_in_memory(*, replica_set: bool = True) -> Iterator[str]:
    """A server for as long as the tests take. What it keeps need not last, and a disk is slow."""
    mongo = EmbeddedMongo(replica_set=replica_set, set_parameters=SERVER_PARAMETERS)
    before = tempfile.tempdir
    if _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > _ROOM_BYTES:
        tempfile.tempdir = str(_MEMORY)
    try:
        mongo.start()
    finally:
        tempfile.tempdir = before
    yield mongo.url
    mongo.stop()


@pytest.fixture(scope="session")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredServer]:
    """A replica set that lets nobody in without a password."""
    with secured_server(tmp_path_factory.mktemp("secured")) as server:
        yield server


@pytest.fixture(scope="session")
def databases(mongo_url: str) -> Iterator[Databases]:
    """The databases of the replica set."""
    yield from _databases(mongo_url)


@pytest.fixture(scope="session")
def standalone_databases(standalone_url: str) -> Iterator[Databases]:
    """The databases of the standalone server."""
    yield from _databases(standalone_url)


def _databases(url: str) -> Iterator[Databases]:
    databases = Databases(url, lambda: f"test_{uuid.uuid4().hex[:16]}")
    yield databases
    databases.close()


@pytest.fixture
def database_name(databases: Databases, request: pytest.FixtureRequest) -> Iterator[str]:
    """A database of the test's own, not there yet unless the test asks for ``database`` too."""
    is_migrated = "database" in request.fixturenames
    with databases.migrated() if is_migrated else databases.bare() as name:
        yield name


@pytest.fixture
async def database(mongo_url: str, database_name: str) -> AsyncIterator[Database]:
    """A migrated database on the replica set, with Beanie initialised on it."""
    # A failure that the server only pretends is over at once, so look again soon.
    async with connected(mongo_url, heartbeatFrequencyMS=500) as client:
        yield await bound(client[database_name])


@pytest.fixture
def standalone_database_name(standalone_databases: Databases) -> Iterator[str]:
    """A migrated database of the test's own on the standalone server."""
    with standalone_databases.migrated() as name:
        yield name


@pytest.fixture
async def standalone_database(
    standalone_url: str, standalone_database_name: str
) -> AsyncIterator[Database]:
    """A migrated database on the standalone server, with Beanie initialised on it."""
    async with connected(standalone_url) as client:
        yield await bound(client[standalone_database_name])


@pytest.fixture
def quick_policies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stores look at policies again soon, and whoever changes one waits for them as long."""
    for module in ("storage.expiry", "retention.policies"):
        monkeypatch.setattr(f"beanie_session_store.app.{module}.CACHE_SECONDS", 0.2)


@pytest.fixture(params=[16, pytest.param(1, marks=pytest.mark.soak)])
def smaller_limits(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many times smaller sizes are from which values are packed or cut.

    For what does not depend on the sizes: to write and read tens of megabytes takes seconds.
    """
    times: int = request.param
    for name in ("MAX_VALUE_BYTES", "CHUNK_BYTES"):
        monkeypatch.setattr(codec, name, getattr(codec, name) // times)
    return times


@pytest.fixture
def store(database: Database) -> BeanieSessionStore:
    """A store of the default tenant on the replica set."""
    return BeanieSessionStore()
