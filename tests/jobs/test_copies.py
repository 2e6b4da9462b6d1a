"""Copying from other stores: all that is there, once, in its order."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from claude_agent_sdk import InMemorySessionStore, SessionStore
from support.command import SessionStoreCommand
from support.entries import (
    KEY,
    SUBAGENT,
    assert_summary_is_the_fold,
    marker,
    message,
    seqs,
    turn,
)
from support.server import connected

from beanie_session_store import (
    BeanieSessionStore,
    SessionSummary,
    TranscriptEntry,
    TransferError,
    UnknownSessionError,
    copy_sessions,
    upgrade_schema,
)
from beanie_session_store.app.database.driver import Database

OTHER: Any = {"project_key": "other", "session_id": "session"}


@pytest.fixture
def command(mongo_url: str, database: Database) -> SessionStoreCommand:
    return SessionStoreCommand(mongo_url, database.name)


@pytest.fixture
async def elsewhere(mongo_url: str, database_name: str) -> AsyncIterator[Database]:
    """Another database, to which no Document class is bound."""
    async with connected(mongo_url) as client:
        name = f"{database_name}_source"
        await upgrade_schema(client[name])
        yield client[name]
        await client.drop_database(name)


async def filled(store: Any) -> None:
    await store.append(KEY, [marker("same"), marker("same"), *turn(1)])
    await store.append(SUBAGENT, [*turn(2), {"type": "agent_metadata", "n": 1}])
    await store.append(KEY, [*turn(3), message("half \ud83d")])
    await store.append(OTHER, turn(4))


async def assert_equal(source: Any, target: BeanieSessionStore) -> None:
    for key in (KEY, SUBAGENT, OTHER):
        assert await target.load(key) == await source.load(key)
    for key in (KEY, OTHER):
        await assert_summary_is_the_fold(target, key)


async def test_a_store_of_the_sdk_is_copied_with_order_and_times(
    store: BeanieSessionStore,
) -> None:
    source = InMemorySessionStore()
    await filled(source)
    source._mtimes["other/session"] = 1_700_000_000_000
    report = await copy_sessions(source, store, projects=["project", "other"])
    assert (report.changed, report.failed) == (2, 0)
    await assert_equal(source, store)
    (listed,) = await store.list_sessions("other")
    assert listed["mtime"] == 1_700_000_000_000
    again = await copy_sessions(source, store, projects=["project", "other"])
    assert (again.unchanged, again.entries) == (2, 0)
    await source.append(SUBAGENT, [message("later")])
    assert (await copy_sessions(source, store, projects=["project", "other"])).entries == 1
    await assert_equal(source, store)


async def test_a_tenant_is_copied_to_another_with_interleaving_and_metadata(
    database: Database,
) -> None:
    source = BeanieSessionStore(tenant="a", metadata={"user_id": "u1", "half": "\ud83d"})
    await filled(source)
    target = BeanieSessionStore(tenant="b")
    report = await copy_sessions(source, target)
    assert (report.changed, report.failed) == (2, 0)
    await assert_equal(source, target)
    rows: dict[str, list[Any]] = {}
    for tenant in ("a", "b"):
        found = await TranscriptEntry.find({"tenant": tenant}).sort("project_key", "seq").to_list()
        rows[tenant] = [
            (entry.project_key, entry.seq, entry.subpath, entry.uuid) for entry in found
        ]
    assert rows["a"] == rows["b"]
    times = [await store.list_sessions("project") for store in (source, target)]
    assert times[0] == times[1]
    copied = [listing async for listing in target.all_sessions()]
    assert [listing.metadata for listing in copied] == [source.metadata] * 2
    assert (await copy_sessions(source, target)).entries == 0
    own = BeanieSessionStore(tenant="c", metadata={"user_id": "u2"})
    await copy_sessions(source, own)
    assert await SessionSummary.find({"tenant": "c", "metadata.user_id": "u2"}).count() == 2


async def test_another_database_is_copied_while_ours_is_bound(
    store: BeanieSessionStore, elsewhere: Database
) -> None:
    source = BeanieSessionStore.on(elsewhere, tenant="x")
    await filled(source)
    assert await store.load(KEY) is None
    await copy_sessions(source, store, projects=["project"])
    assert await store.load(KEY) == await source.load(KEY)
    assert await store.load(OTHER) is None
    assert await seqs() == list(range(1, 23))


async def test_a_copy_that_was_cut_off_goes_on(store: BeanieSessionStore) -> None:
    source = BeanieSessionStore(tenant="source")
    await filled(source)

    class CutOffError(Exception):
        pass

    def cut(report: Any) -> None:
        if report.entries > 10:
            raise CutOffError

    other = BeanieSessionStore(tenant="again")
    with pytest.raises(CutOffError):
        await copy_sessions(source, other, workers=1, on_progress=cut)
    await copy_sessions(source, other)
    await assert_equal(source, other)


async def test_one_session_alone(store: BeanieSessionStore) -> None:
    source = InMemorySessionStore()
    await filled(source)
    await source.append({**KEY, "session_id": "another"}, turn(1))
    report = await copy_sessions(source, store, projects=["project"], session_id="another")
    assert report.listed == 1
    assert await store.load(KEY) is None
    with pytest.raises(UnknownSessionError):
        await copy_sessions(source, store, projects=["project"], session_id="nobody")


class Minimal(SessionStore):
    """The two methods that every store has."""

    def __init__(self) -> None:
        self.stored: dict[str, list[Any]] = {}

    async def append(self, key: Any, entries: list[Any]) -> None:
        self.stored.setdefault(key["session_id"], []).extend(entries)

    async def load(self, key: Any) -> list[Any] | None:
        if key["session_id"] == "broken":
            raise RuntimeError("its disk is gone")
        return self.stored.get(key["session_id"])


async def test_a_store_that_lists_nothing_is_copied_session_by_session(
    store: BeanieSessionStore,
) -> None:
    source = Minimal()
    await source.append(KEY, turn(1))
    with pytest.raises(TransferError, match="cannot list their projects"):
        await copy_sessions(source, store)
    with pytest.raises(TransferError, match="cannot list its sessions"):
        await copy_sessions(source, store, projects=["project"])
    report = await copy_sessions(source, store, projects=["project"], session_id="session")
    assert (report.changed, report.problem_count) == (1, 1)
    assert "cannot list subagents" in str(report.problems[0])
    assert await store.load(KEY) == source.stored["session"]


async def test_what_a_source_raises_costs_no_other_session(store: BeanieSessionStore) -> None:
    class Listed(Minimal):
        async def list_sessions(self, project_key: str) -> Any:
            return [{"session_id": name, "mtime": 1} for name in ("broken", "session", "odd\0")]

    source = Listed()
    await source.append(KEY, turn(1))
    report = await copy_sessions(source, store, projects=["project"])
    assert (report.changed, report.failed) == (1, 2)
    assert "RuntimeError: its disk is gone" in "".join(map(str, report.problems))
    assert await store.load(KEY) == source.stored["session"]


class Duck:
    """A store that inherits nothing, with the methods that the SDK asks for alone."""

    def __init__(self, entries: list[Any]) -> None:
        self.entries = entries

    async def append(self, key: Any, entries: list[Any]) -> None:
        raise AssertionError

    async def load(self, key: Any) -> list[Any] | None:
        return self.entries


async def test_a_store_that_inherits_nothing_is_copied(store: BeanieSessionStore) -> None:
    source: Any = Duck(turn(1))
    with pytest.raises(TransferError, match="cannot list its sessions"):
        await copy_sessions(source, store, projects=["project"])
    report = await copy_sessions(source, store, projects=["project"], session_id="session")
    assert (report.changed, report.problem_count) == (1, 1)
    assert await store.load(KEY) == source.entries


@pytest.mark.parametrize(
    "listed",
    [
        pytest.param([{"session_id": "session"}], id="no time"),
        pytest.param([{"session_id": "session", "mtime": None}], id="time is null"),
        pytest.param([{"session_id": "session", "mtime": "noon"}], id="time is no number"),
        pytest.param([{"session_id": "session", "mtime": 1}] * 3, id="several times"),
    ],
)
async def test_an_odd_listing_is_taken_as_far_as_it_goes(
    store: BeanieSessionStore, listed: list[Any]
) -> None:
    class Odd(Minimal):
        async def list_sessions(self, project_key: str) -> Any:
            return listed

    source = Odd()
    await source.append(KEY, [marker()] * 700)
    report = await copy_sessions(source, store, projects=["project"])
    assert (report.changed, report.listed) == (1, 1)
    assert await store.load(KEY) == source.stored["session"]


@pytest.mark.parametrize(
    "listed",
    [
        pytest.param(None, id="nothing"),
        pytest.param([{"mtime": 1}], id="no id"),
    ],
)
async def test_a_listing_that_is_none_is_an_error_of_ours(
    store: BeanieSessionStore, listed: Any
) -> None:
    class Odd(Minimal):
        async def list_sessions(self, project_key: str) -> Any:
            return listed

    with pytest.raises(TransferError, match="could not list"):
        await copy_sessions(Odd(), store, projects=["project"])


async def test_a_project_that_is_named_twice_is_copied_once(store: BeanieSessionStore) -> None:
    source = InMemorySessionStore()
    await source.append(KEY, [marker()] * 700)
    report = await copy_sessions(source, store, projects=["project", "project"])
    assert (report.listed, report.entries) == (1, 700)
    assert await store.load(KEY) == await source.load(KEY)
    assert (await copy_sessions(source, store, projects="project")).unchanged == 1


# The command

STORES = """
from contextlib import asynccontextmanager
from claude_agent_sdk import InMemorySessionStore
from beanie_session_store import BeanieSessionStore

KEY = {"project_key": "project", "session_id": "session"}
instance = InMemorySessionStore()

async def made():
    await instance.append(KEY, [{"type": "user", "uuid": "1"}])
    return instance

@asynccontextmanager
async def opened():
    yield await made()

def fails():
    raise ValueError("no password")

number = 42
"""


@pytest.mark.parametrize("name", ["made", "opened"])
async def test_the_command_copies_from_whatever_a_name_stands_for(
    command: SessionStoreCommand, store: BeanieSessionStore, tmp_path: Path, name: str
) -> None:
    (tmp_path / "acme_stores.py").write_text(STORES)
    arguments = ("copy", "--from-store", f"acme_stores:{name}", "--project", "project")
    done = await command.process("--json", *arguments, cwd=tmp_path)
    assert (done.code, done.json["changed"], done.json["entries"]) == (0, 1, 1)
    assert await store.load(KEY) == [{"type": "user", "uuid": "1"}]
    again = await command.process("--json", *arguments, cwd=tmp_path)
    assert (again.code, again.json["unchanged"]) == (0, 1)


async def test_the_command_copies_between_tenants_and_databases(
    command: SessionStoreCommand, store: BeanieSessionStore, elsewhere: Database, mongo_url: str
) -> None:
    await filled(store)
    done = await command("--json", "--tenant", "b", "copy", "--from-tenant", "default")
    assert (done.code, done.json["changed"]) == (0, 2)
    await assert_equal(store, BeanieSessionStore(tenant="b"))
    there = BeanieSessionStore.on(elsewhere)
    await there.append({**KEY, "session_id": "there"}, turn(1))
    done = await command("--json", "copy", "--from-database", elsewhere.name)
    assert (done.code, done.json["changed"]) == (0, 1)
    done = await command(
        *("--json", "copy", "--from-url", mongo_url, "--from-database", elsewhere.name)
    )
    assert (done.code, done.json["unchanged"]) == (0, 1)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        pytest.param((), "copy from where?", id="nothing"),
        pytest.param(("--from-store", "a:b", "--from-tenant", "c"), "whole source", id="both"),
        pytest.param(("--from-store", "nowhere:at_all"), "There is no store", id="no module"),
        pytest.param(("--from-store", "acme_stores"), "There is no store", id="no name"),
        pytest.param(("--from-store", "acme_stores:fails"), "no password", id="fails"),
        pytest.param(("--from-store", "acme_stores:number"), "is a int", id="no store"),
        pytest.param(("--from-store", "acme_stores:instance"), "cannot list", id="no project"),
        pytest.param(("--from-tenant", "default"), "source is the target", id="itself"),
        pytest.param(("--from-tenant", "nobody"), "no sessions", id="empty"),
        pytest.param(("--from-url", "http://x"), "cannot be used", id="url"),
    ],
)
async def test_what_users_get_wrong_is_one_line(
    command: SessionStoreCommand, tmp_path: Path, arguments: tuple[str, ...], says: str
) -> None:
    (tmp_path / "acme_stores.py").write_text(STORES)
    done = await command.process("copy", *arguments, cwd=tmp_path)
    assert done.code in (1, 2)
    assert done.errors.startswith("error: ")
    assert says in done.errors
    assert done.errors.count("\n") == 1


async def test_an_old_source_is_told_what_to_do(
    command: SessionStoreCommand, mongo_url: str, database_name: str
) -> None:
    done = await command("copy", "--from-database", f"{database_name}_nothing")
    assert done.code == 1
    assert "session-store schema upgrade" in done.errors
