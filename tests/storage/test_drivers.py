"""One release for both drivers: what Beanie 1.30 on Motor and Beanie 2 on PyMongo must agree on."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from beanie import init_beanie
from pymongo import AsyncMongoClient, MongoClient
from support.server import connected

from beanie_session_store import (
    DOCUMENT_MODELS,
    BeanieSessionStore,
    DriverMismatchError,
    adopt,
    database_of,
    schema_status,
    set_retention,
    upgrade_schema,
)
from beanie_session_store.app.database.driver import IS_MOTOR, Database
from beanie_session_store.models import TranscriptEntry

KEY: Any = {"project_key": "-app", "session_id": "11111111-1111-4111-8111-111111111111"}


def names_in_handshakes(url: str, application: str) -> list[tuple[str, str]]:
    """Driver name and version, as the server has them from each connection of an application."""
    with MongoClient[dict[str, Any]](url) as client:
        operations = client.admin.aggregate([{"$currentOp": {"idleConnections": True}}])
        drivers = [
            operation["clientMetadata"]["driver"]
            for operation in operations
            if operation.get("appName") == application
        ]
    return [(driver["name"], driver["version"]) for driver in drivers]


def assert_named(url: str, application: str) -> None:
    found = names_in_handshakes(url, application)
    # Older drivers list a name of their own without a version, so the two do not pair up.
    assert found != []
    assert any(
        "beanie-session-store" in names.split("|")
        and version("beanie-session-store") in versions.split("|")
        for names, versions in found
    )
    assert all(("Motor" in names) == IS_MOTOR for names, _ in found)


async def test_a_client_of_the_stores_own_names_it_in_the_handshake(
    mongo_url: str, database_name: str
) -> None:
    url = f"{mongo_url}&appName=own" if "?" in mongo_url else f"{mongo_url}/?appName=own"
    async with BeanieSessionStore.connect(url, database=database_name) as store:
        await store.load(KEY)
        assert_named(mongo_url, "own")


async def test_a_teams_client_names_the_store_in_later_handshakes(
    mongo_url: str, database_name: str
) -> None:
    # Connections that were open before keep the handshake they had.
    async with connected(mongo_url, appName="theirs", maxIdleTimeMS=1) as client:
        await upgrade_schema(client[database_name])
        await init_beanie(database=client[database_name], document_models=DOCUMENT_MODELS)
        store = BeanieSessionStore()
        await store.load(KEY)
        await asyncio.sleep(0.05)
        await store.load(KEY)
        assert_named(mongo_url, "theirs")


REFUSING: dict[str, Callable[[Any], Awaitable[Any]]] = {
    "upgrade_schema": upgrade_schema,
    "schema_status": schema_status,
    "set_retention": lambda database: set_retention(database, None),
    "adopt": lambda database: adopt(database, database, tenant="acme"),
}


@pytest.mark.parametrize("call", REFUSING.values(), ids=REFUSING)
async def test_a_database_of_the_other_driver_is_refused_by_name(
    call: Callable[[Any], Awaitable[Any]], mongo_url: str, database_name: str
) -> None:
    if IS_MOTOR:
        wanted = "AsyncIOMotorClient"
        other: Any = AsyncMongoClient(mongo_url)
    else:
        wanted = "AsyncMongoClient"
        # As in a project that has not taken it out yet.
        other = import_module("motor.motor_asyncio").AsyncIOMotorClient(mongo_url)
    with pytest.raises(DriverMismatchError, match=rf"needs one of .*\.{wanted}; nothing was"):
        await call(other[database_name])
    closing = other.close()
    if IS_MOTOR:
        await closing
    with MongoClient(mongo_url) as client:
        assert database_name not in client.list_database_names()


async def test_the_database_of_a_document_class_is_the_one_beanie_was_given(
    database: Database,
) -> None:
    assert database_of(TranscriptEntry).name == database.name
    assert database_of(TranscriptEntry).client is database.client


# Moving from one driver to the other

OTHER = os.environ.get("SESSION_STORE_OTHER_PYTHON")
"""The interpreter of an environment with this package and the other driver."""

SIDE = Path(__file__).parents[1] / "support" / "moving.py"


def on(python: str, step: str, url: str, database: str) -> str:
    finished = subprocess.run(
        [python, str(SIDE), step, url, database],
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    return finished.stdout


@pytest.mark.skipif(not OTHER, reason="SESSION_STORE_OTHER_PYTHON names no environment")
@pytest.mark.parametrize("moves", ["from here", "to here"])
def test_sessions_are_kept_when_a_team_moves_to_the_other_driver(
    moves: str, mongo_url: str, database_name: str
) -> None:
    assert OTHER is not None
    before, after = (sys.executable, OTHER) if moves == "from here" else (OTHER, sys.executable)
    written = on(before, "write", mongo_url, database_name)
    with MongoClient[dict[str, Any]](mongo_url) as client:
        stored = documents(client[database_name])
    assert on(after, "read", mongo_url, database_name) == written
    # Nothing was migrated by the way; going on and going back work as well.
    with MongoClient[dict[str, Any]](mongo_url) as client:
        assert documents(client[database_name]) == stored
    went_on = on(after, "go on", mongo_url, database_name)
    assert went_on != written
    assert on(before, "read", mongo_url, database_name) == went_on
    drivers = {on(python, "driver", mongo_url, database_name) for python in (before, after)}
    assert drivers == {"motor\n", "pymongo\n"}


def documents(database: Any) -> dict[str, list[Any]]:
    return {
        name: list(database[name].find().sort("_id"))
        for name in sorted(database.list_collection_names())
    }
