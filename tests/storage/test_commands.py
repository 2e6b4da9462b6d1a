"""What goes over the wire, and what the server examines for it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from beanie import init_beanie
from support.database import Databases, prepared
from support.entries import KEY, SUBAGENT, message, turn
from support.server import Commands, connected, profiled

from beanie_session_store import (
    DOCUMENT_MODELS,
    BeanieSessionStore,
    LeaseLostError,
    SchemaOutdatedError,
    upgrade_schema,
)
from beanie_session_store.app.database.driver import Database

OTHER = {**KEY, "session_id": "other"}

ABOUT_THE_SCHEMA = {"hello", "listCollections", "listIndexes", "find"}


@pytest.fixture
def database_name(databases: Databases) -> Iterator[str]:
    with databases.migrated() as name:
        yield name


@pytest.fixture
async def commands(mongo_url: str, database_name: str) -> AsyncIterator[Commands]:
    commands = Commands()
    async with connected(mongo_url, event_listeners=[commands]) as client:
        await prepared(client[database_name])
        commands.sent.clear()
        yield commands


async def test_a_warm_append_sends_three_commands(commands: Commands) -> None:
    store = BeanieSessionStore()
    await store.append(KEY, turn(1))
    for number in range(2, 6):
        commands.sent.clear()
        await store.append(KEY, turn(number))
        assert commands.names == ["update", "insert", "commitTransaction"]
    await store.append(SUBAGENT, turn(7))
    commands.sent.clear()
    await store.append(SUBAGENT, turn(8))
    assert commands.names == ["update", "insert", "commitTransaction"]


async def test_a_new_store_checks_a_known_database_no_second_time(commands: Commands) -> None:
    await BeanieSessionStore().append(KEY, turn(1))
    commands.sent.clear()
    await BeanieSessionStore(tenant="other").append(KEY, turn(2))
    # What is known of the session, whether there are remains of an earlier one, and which
    # retention holds for its project.
    assert commands.names == ["aggregate", "find", "find", "insert", "insert", "commitTransaction"]


async def test_every_filter_begins_with_tenant_and_project(commands: Commands) -> None:
    """So each goes to one shard, and none can reach another tenant's documents."""
    store = BeanieSessionStore(tenant="acme")
    await store.append(KEY, turn(1))
    commands.sent.clear()
    batch = turn(2)
    await store.append(KEY, batch)
    await store.append(KEY, batch)
    await store.append(KEY, [*batch, message("huge" * 5_000_000 + "\ud83d")])
    await store.append(SUBAGENT, turn(3))
    await BeanieSessionStore(tenant="acme").append(SUBAGENT, turn(4))
    await store.load(KEY)
    await store.transcript(KEY)
    assert [entry async for entry in store.stream(KEY)]
    await store.list_sessions("project")
    await store.list_session_summaries("project")
    await store.list_subkeys(KEY)
    assert (await store.verify(KEY)).is_sound
    await store.repair(KEY)
    await store.sessions(project_key="project")
    await store.usage(project_key="project")
    await store.tools(project_key="project")
    async with store.lease(KEY, owner="a") as leased, store.lease(OTHER, owner="b") as other:
        await leased.append(KEY, turn(5))
        await other.append(OTHER, turn(1))
        await other.delete(OTHER)
        await store.lease_of(OTHER)
        await store.break_lease(KEY)
        with pytest.raises(LeaseLostError):
            await leased.append(KEY, turn(6))
    await store.delete(SUBAGENT)
    await store.delete(KEY)

    filters = [
        (name, found)
        for name, sent in commands.sent
        if sent.get("find") != "claude_retention_policies"
        for found in _filters(sent)
    ]
    assert {name for name, _ in filters} == {
        *("find", "update", "delete", "distinct", "aggregate", "findAndModify")
    }
    for name, found in filters:
        fields = list(found)
        assert fields[:2] == ["tenant", "project_key"], f"{name}: {found}"
        assert found["tenant"] == "acme"
        listing = "session_id" not in found
        assert not listing or set(found) <= {
            "tenant",
            "project_key",
            "mtime",
            "expires_at",
            "$expr",
        }
        assert listing or fields[2] == "session_id"
    commands.sent.clear()
    await store.sessions({"$or": [{"tenant": "other"}]}, tag="x")
    await store.usage(metadata={"user_id": "u1"})
    await store.tools(branch="main")
    with pytest.raises(SchemaOutdatedError):
        await store.search("word")
    across_projects = [found for _, sent in commands.sent for found in _filters(sent)]
    # Usage looks for those that were counted by an older release, too.
    assert len(across_projects) == 5
    for found in across_projects:
        assert next(iter(found)) == "tenant"
        assert found["tenant"] == "acme"


async def test_every_document_names_its_tenant(commands: Commands) -> None:
    store = BeanieSessionStore(tenant="acme")
    await store.append(KEY, turn(1))
    await store.append(SUBAGENT, [message("huge" * 5_000_000 + "\ud83d")])
    inserted = [
        document
        for name, sent in commands.sent
        if name == "insert"
        for document in sent["documents"]
    ]
    assert inserted
    assert all(document["tenant"] == "acme" for document in inserted)


def _filters(command: dict[str, Any]) -> list[dict[str, Any]]:
    """The query of a read, or the queries of a write, whatever the command calls it."""
    if "filter" in command:
        return [command["filter"]]
    if "query" in command:
        return [command["query"]]
    if "pipeline" in command:
        return [command["pipeline"][0]["$match"]]
    return [part["q"] for part in (*command.get("updates", ()), *command.get("deletes", ()))]


async def test_writes_wait_for_a_majority_whatever_the_url_says(
    mongo_url: str, database_name: str
) -> None:
    commands = Commands()
    options = {"w": 0, "readPreference": "secondaryPreferred", "event_listeners": [commands]}
    async with connected(mongo_url, **options) as client:
        await upgrade_schema(client[database_name])
        await init_beanie(database=client[database_name], document_models=DOCUMENT_MODELS)
        store = BeanieSessionStore()
        commands.sent.clear()
        await store.append(KEY, turn(1))
        appended = len(commands.sent)
        await store.load(KEY)
    commits = [sent for name, sent in commands.sent if name == "commitTransaction"]
    assert [commit["writeConcern"] for commit in commits] == [{"w": "majority"}]
    loads = commands.sent[appended:]
    finds = [sent for name, sent in loads if name == "find" and "entries" in sent["find"]]
    assert [find["readConcern"]["level"] for find in finds] == ["snapshot"]
    assert all("$readPreference" not in sent for sent in finds)


@pytest.fixture
async def filled(database: Database) -> Database:
    """Sessions before, between and behind those that a read is after."""
    for tenant in ("a", "acme", "z"):
        store = BeanieSessionStore(tenant=tenant)
        for project in ("other", "project", "then"):
            for number in range(5):
                key = {"project_key": project, "session_id": f"session-{number}"}
                await store.append(key, turn(1) + turn(2))
                for agent in range(3):
                    await store.append({**key, "subpath": f"subagents/agent-{agent}"}, turn(3))
    return database


async def test_a_read_examines_only_what_it_returns(filled: Database) -> None:
    store = BeanieSessionStore(tenant="acme")
    key = {"project_key": "project", "session_id": "session-2"}
    await store.list_sessions("project")
    for read, documents, keys in (
        ("load", 12, 12),
        ("stream", 12, 12),
        ("list_sessions", 0, 5),
        ("list_session_summaries", 5, 5),
        ("list_subkeys", 0, 3),
    ):
        operations: list[dict[str, Any]] = []
        async with profiled(filled, operations):
            if read == "stream":
                found: list[Any] = [entry async for entry in store.stream(key)]
            elif read.startswith("list_sess"):
                found = await getattr(store, read)("project")
            else:
                found = await getattr(store, read)(key)
        # What it asked for is told once more with the next.
        await filled["system.profile"].drop()
        assert len(found) == keys, read
        # These two first look whether the session is there, and has not expired.
        looks = read in ("stream", "list_subkeys")
        (operation,) = [op for op in operations if not (looks and "summaries" in op["ns"])]
        assert operation["docsExamined"] == documents, read
        assert operation["keysExamined"] <= keys + 1, read
        assert not operation.get("hasSortStage"), read


async def test_a_stream_goes_on_where_it_stopped_without_reading_what_came_before(
    filled: Database,
) -> None:
    store = BeanieSessionStore(tenant="acme")
    key = {"project_key": "project", "session_id": "session-2"}
    await store.list_sessions("project")
    operations: list[dict[str, Any]] = []
    async with profiled(filled, operations):
        found = [entry async for entry in store.stream(key, after=9)]
    assert [entry.seq for entry in found] == [10, 11, 12]
    (operation,) = [op for op in operations if "entries" in op["ns"]]
    assert operation["docsExamined"] == 3


async def test_an_append_examines_one_document_however_long_the_session(
    filled: Database,
) -> None:
    store = BeanieSessionStore(tenant="acme")
    await store.append(KEY, turn(1))
    operations: list[dict[str, Any]] = []
    async with profiled(filled, operations):
        await store.append(KEY, turn(2))
    (update,) = [op for op in operations if op["op"] == "update"]
    assert update["docsExamined"] == update["nMatched"] == 1
    assert update["keysExamined"] == 1
