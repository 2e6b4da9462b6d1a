"""``session-store retention`` as its users call it."""

from __future__ import annotations

import importlib
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from beanie.executors.migrate import MigrationSettings, run_migrate
from support.command import SessionStoreCommand
from support.entries import KEY, turn
from support.server import connected

from beanie_session_store import (
    EVERY,
    BeanieSessionStore,
    InvalidKeyError,
    SessionSummary,
    clear_retention,
    retention_policies,
    set_retention,
    upgrade_schema,
)
from beanie_session_store.app.database.driver import Database, collection_of
from beanie_session_store.app.schema.script_copies import copy_scripts

pytestmark = pytest.mark.usefixtures("quick_policies")


@pytest.fixture
def command(mongo_url: str, database: Database) -> Callable[..., Awaitable[str]]:
    call = SessionStoreCommand(mongo_url, database.name)

    async def run(*arguments: str, fails: int = 0) -> str:
        finished = await call(*arguments)
        assert finished.code == fails, finished.errors
        return finished.errors if fails else finished.output

    return run


async def test_set_show_hold_and_release(command, store: BeanieSessionStore) -> None:
    assert "for ever" in await command("retention", "show")
    await store.append(KEY, turn(1))
    await command("retention", "set", "30d", "--tenant", "default", "--yes")
    (row,) = json.loads(await command("--json", "retention", "show"))
    assert (row["tenant"], row["project_key"], row["keep_seconds"]) == ("default", "*", 2592000)
    assert "30d" in await command("retention", "show")
    summary = await SessionSummary.find_one({})
    assert summary is not None
    assert summary.expires_at is not None
    assert "is held" in await command("retention", "hold", "session", "--project", "project")
    assert (await SessionSummary.find_one({"held_at": {"$exists": True}})) is not None
    await command("retention", "release", "session", "--project", "project")
    assert (await SessionSummary.find_one({"held_at": {"$exists": True}})) is None


async def test_a_policy_is_of_the_tenant_that_is_named_or_of_all_where_that_is_said(
    command, monkeypatch: pytest.MonkeyPatch
) -> None:
    await command("retention", "set", "30d", "--all-tenants", "--yes")
    await command("--tenant", "acme", "retention", "set", "60d", "--yes")
    monkeypatch.setenv("SESSION_STORE_TENANT", "globex")
    await command("retention", "set", "90d", "--yes")
    await command("retention", "set", "31d", "--all-tenants", "--yes")
    rows = json.loads(await command("--json", "retention", "show"))
    kept = {row["tenant"]: row["keep_seconds"] // 86400 for row in rows}
    assert kept == {"*": 31, "acme": 60, "globex": 90}
    await command("retention", "clear", "--yes")
    await command("retention", "clear", "--all-tenants", "--yes")
    rows = json.loads(await command("--json", "retention", "show"))
    assert [row["tenant"] for row in rows] == ["acme"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("set", "1s"),
        ("set", "1s", "--tenant", ""),
        ("set", "1s", "--tenant="),
        ("set", "1s", "--tenant", " "),
        ("set", "1s", "--tenant", "*"),
        ("set", "1s", "--tenant", "default", "--project", "*"),
        ("set", "1s", "--tenant", "default", "--project", ""),
        ("set", "1s", "--tenant", "default", "--all-tenants"),
        ("clear",),
        ("clear", "--tenant", ""),
        ("clear", "--tenant", "*"),
        ("clear", "--tenant", "default", "--all-tenants"),
        ("migration", "--keep", "1s", "{folder}"),
        ("migration", "--keep", "1s", "--tenant", "", "{folder}"),
        ("migration", "--keep", "1s", "--tenant", "*", "{folder}"),
    ],
    ids=" ".join,
)
async def test_no_slip_means_everybody(
    command, store: BeanieSessionStore, database: Database, tmp_path: Path, arguments: Any
) -> None:
    await store.append(KEY, turn(1))
    await command("retention", "set", "30d", "--all-tenants", "--yes")
    before = await retention_policies(database)
    given = [each.format(folder=tmp_path) for each in arguments]
    # The command says no although it was told to go ahead.
    agreed = [] if "migration" in arguments else ["--yes"]
    await command("retention", *given, *agreed, fails=2)
    assert await retention_policies(database) == before
    assert list(tmp_path.iterdir()) == []
    assert await store.load(KEY) is not None


@pytest.mark.parametrize("change", [("set", "1d"), ("set", "forever"), ("clear",)], ids=" ".join)
async def test_where_there_is_nobody_to_ask_no_policy_changes(
    command, database: Database, change: Any
) -> None:
    await command("retention", "set", "30d", "--all-tenants", "--yes")
    before = await retention_policies(database)
    errors = await command("retention", *change, "--all-tenants", fails=2)
    assert "give --yes" in errors
    assert await retention_policies(database) == before


async def test_what_would_end_at_once_is_counted_before_it_is_agreed_to(
    command, database: Database
) -> None:
    now = datetime.now(timezone.utc)
    ages = {"a": [0, 5, 20, 40, 100], "b": [0, 20, 40], "c": [3, 40]}
    for tenant, days in ages.items():
        for number, day in enumerate(days):
            project = "p" if number % 2 else "q"
            key: Any = {"project_key": project, "session_id": f"s{number}"}
            await BeanieSessionStore(tenant=tenant).append(key, turn(number))
            await collection_of(SessionSummary).update_one(
                {"tenant": tenant, "session_id": f"s{number}"},
                {"$set": {"active_at": now - timedelta(days=day)}},
            )
    # Held, and therefore none of those that end.
    await BeanieSessionStore(tenant="a").hold({"project_key": "q", "session_id": "s4"})

    async def ending(*arguments: str) -> int:
        errors = await command("retention", *arguments, fails=2)
        return int(errors.split()[0])

    async def alive() -> int:
        listed = 0
        for tenant in ages:
            store = BeanieSessionStore(tenant=tenant)
            listed += len([each async for each in store.all_sessions()])
        return listed

    assert await ending("set", "30d", "--all-tenants") == 3
    assert await ending("set", "30d", "--tenant", "a") == 1
    # A tenth longer than asked for, as is promised.
    assert await ending("set", "19d", "--tenant", "a", "--project", "q") == 0
    assert await ending("set", "18d", "--tenant", "a", "--project", "q") == 1
    assert await ending("set", "30d", "--tenant", "a", "--project", "p") == 1
    assert await ending("set", "forever", "--all-tenants") == 0
    # A more specific policy keeps its sessions.
    await command("retention", "set", "forever", "--tenant", "b", "--yes")
    assert await ending("set", "30d", "--all-tenants") == 2
    assert await alive() == 10
    done = json.loads(await command("--json", "retention", "set", "30d", "--all-tenants", "--yes"))
    assert done["ending"] == 2
    assert await alive() == 8
    # What is over already does not end again.
    assert await ending("set", "30d", "--all-tenants") == 0
    # Without its own policy it falls under that of all.
    assert await ending("clear", "--tenant", "b") == 1
    await command("retention", "clear", "--tenant", "b", "--yes")
    assert await alive() == 7


async def test_a_beginning_of_an_id_names_nothing_to_hold_where_nobody_looks_on(
    command, store: BeanieSessionStore
) -> None:
    await store.append({**KEY, "session_id": "session-10"}, turn(1))
    for change in ("hold", "release"):
        errors = await command("retention", change, "session-1", fails=1)
        assert "session-10 begins so, but only a whole id is taken here" in errors
    assert await SessionSummary.find_one({"held_at": {"$exists": True}}) is None
    assert "session-10 is held" in await command("retention", "hold", "session-10")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("retention", "set", "30 days"), 2, "no time"),
        (("retention", "set", "30d"), 2, "Give --tenant, or --all-tenants"),
        (("retention", "clear", "--tenant", "nobody"), 1, "no policy of tenant nobody"),
        (("retention", "hold", "nobody", "--project", "p"), 1, "There is no session nobody"),
        (("retention", "migration", "--keep", "soon", "."), 2, "no time"),
    ],
)
async def test_a_mistake_gives_one_clear_line(
    command, arguments: tuple[str, ...], code: int, said: str
) -> None:
    errors = await command(*arguments, fails=code)
    assert said in errors
    assert len(errors.strip().splitlines()) == 1


@pytest.mark.parametrize("is_old", [False, True])
async def test_the_written_migration_runs_forward_and_backward_in_beanies_own_runner(
    command,
    is_old: bool,
    database: Database,
    mongo_url: str,
    tmp_path: Path,
    store: BeanieSessionStore,
) -> None:
    await store.append(KEY, turn(1))
    await command("retention", "set", "30d", "--all-tenants", "--yes")
    written = await command(
        "retention", "migration", "--keep", "90d", "--all-tenants", str(tmp_path)
    )
    (script,) = tmp_path.glob("*.py")
    assert str(script) in written
    assert "TENANT = EVERY" in script.read_text()
    if is_old:
        # As it was written before there was an object for it.
        source = script.read_text().replace("= EVERY", "= '*'").replace("import EVERY, ", "import ")
        assert "EVERY" not in source
        script.write_text(source)
    for direction, days in (("FORWARD", 90), ("BACKWARD", 30)):
        settings = MigrationSettings(
            connection_uri=mongo_url,
            database_name=database.name,
            path=str(tmp_path),
            direction=direction,
            distance=1,
            use_transaction=False,
        )
        await run_migrate(settings)
        (policy,) = await retention_policies(database)
        assert policy["keep_seconds"] == days * 86400
        summary = await SessionSummary.find_one({})
        assert summary is not None
        assert summary.expires_at is not None
        left = summary.expires_at.replace(tzinfo=timezone.utc) - datetime.now(timezone.utc)
        assert timedelta(days=days) < left < timedelta(days=days * 1.1)


async def test_a_migration_of_a_first_policy_is_reversed_by_removing_it(
    command, database: Database, tmp_path: Path
) -> None:
    await command("retention", "migration", "--keep", "1w", str(tmp_path), "--tenant", "acme")
    (script,) = tmp_path.glob("*.py")
    source = script.read_text()
    assert "clear_retention(database" in source
    assert "TENANT = 'acme'" in source
    compile(source, str(script), "exec")


@pytest.mark.parametrize("name", ["*", "", None, 1, b"*", ["*"]])
async def test_no_string_and_nothing_else_stands_for_every_one_in_code(
    database: Database, name: Any
) -> None:
    for change in (
        lambda **owner: set_retention(database, timedelta(days=1), **owner),
        lambda **owner: clear_retention(database, **owner),
    ):
        for field in ("tenant", "project_key"):
            with pytest.raises(InvalidKeyError):
                await change(**{field: name})
    assert await retention_policies(database) == []


async def test_a_stored_policy_for_every_one_reads_as_the_object(database: Database) -> None:
    policies = database["claude_retention_policies"]
    row = {"keep_seconds": 60, "updated_at": datetime.now(timezone.utc)}
    await policies.insert_one({"tenant": "*", "project_key": "*", **row})
    (policy,) = await retention_policies(database)
    assert policy["tenant"] is EVERY
    assert policy["project_key"] is EVERY
    assert (str(EVERY), repr(EVERY)) == ("*", "EVERY")
    assert not isinstance(EVERY, str)
    await set_retention(database, None)
    (stored,) = await policies.find({}).to_list(None)
    assert (stored["tenant"], stored["project_key"]) == ("*", "*")


OWN = """
from beanie_session_store import SessionSummary, TranscriptEntry


class {name}Entry(TranscriptEntry):
    class Settings(TranscriptEntry.Settings):
        name = "{name}_entries"


class {name}Summary(SessionSummary):
    class Settings(SessionSummary.Settings):
        name = "{name}_summaries"
"""


@pytest.fixture
async def own(
    mongo_url: str,
    database_name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[tuple[Database, BeanieSessionStore, tuple[str, ...]]]:
    """A database with a session of own classes alone, and the options that name these."""
    name = f"own{uuid.uuid4().hex[:8]}"
    (tmp_path / f"{name}.py").write_text(OWN.format(name=name))
    monkeypatch.syspath_prepend(str(tmp_path))
    module = importlib.import_module(name)
    classes = {
        "entries": getattr(module, f"{name}Entry"),
        "summaries": getattr(module, f"{name}Summary"),
    }
    options = tuple(
        part for role, each in classes.items() for part in (f"--{role}", f"{name}:{each.__name__}")
    )
    async with connected(mongo_url) as client:
        database = client[database_name]
        await upgrade_schema(database, **classes)
        store = BeanieSessionStore.on(database, **classes)
        await store.append(KEY, turn(1))
        yield database, store, options


async def test_a_written_migration_dates_the_sessions_of_the_classes_that_were_named(
    own: Any, mongo_url: str, tmp_path: Path
) -> None:
    database, store, options = own
    folder = tmp_path / "migrations"
    folder.mkdir()
    call = SessionStoreCommand(mongo_url, database.name)
    done = await call(
        *options, "retention", "migration", "--keep", "90d", "--all-tenants", str(folder)
    )
    assert done.code == 0, done.errors
    (script,) = folder.glob("*.py")
    summaries = database[store._binding.models.summaries.Settings.name]
    for direction, is_dated in (("FORWARD", True), ("BACKWARD", False)):
        await run_migrate(
            MigrationSettings(
                connection_uri=mongo_url,
                database_name=database.name,
                path=str(folder),
                direction=direction,
                distance=1,
                use_transaction=False,
            )
        )
        (row,) = await summaries.find({}).to_list(None)
        assert ("expires_at" in row) == is_dated, (direction, row)
    assert not set(await database.list_collection_names()) & {
        "claude_transcript_entries",
        "claude_transcript_summaries",
    }
    # A later script of whoever comes after all of them.
    assert copy_scripts(folder, {})[0].name > script.name


async def test_a_class_that_cannot_be_imported_writes_no_migration(command, tmp_path: Path) -> None:
    for name in ("nothing.here:Entry", "datetime:datetime"):
        options = ("--entries", name, "retention", "migration", "--keep", "1d", "--all-tenants")
        assert name.partition(":")[2] in await command(*options, str(tmp_path), fails=2)
    assert list(tmp_path.iterdir()) == []


async def test_sessions_of_other_classes_that_keep_their_dates_are_named(
    own: Any, mongo_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    database, store, options = own
    entries = store._binding.models.entries.Settings.name
    # The default collections are there as well, as after init_beanie.
    await upgrade_schema(database)
    done = await set_retention(database, timedelta(days=30))
    assert (done.sessions, done.others) == (0, (entries,))
    (said,) = [each.getMessage() for each in caplog.records if entries in each.getMessage()]
    assert "entries=..." in said
    caplog.clear()
    call = SessionStoreCommand(mongo_url, database.name)
    arguments = ("retention", "set", "20d", "--all-tenants", "--yes")
    named = await call("--json", *arguments)
    assert (named.json["sessions"], named.json["others"]) == (0, [entries])
    caplog.clear()
    right = await call("--json", *options, *arguments)
    assert (right.json["sessions"], right.json["others"]) == (1, [])
    assert entries not in caplog.text
    # Where both are used, either call says what it leaves alone.
    await BeanieSessionStore.on(database).append(KEY, turn(1))
    done = await clear_retention(
        database, entries=store._binding.models.entries, summaries=store._binding.models.summaries
    )
    assert done.others == ("claude_transcript_entries",)
    # An empty collection, or one of another kind, is nobody's business.
    await database[entries].delete_many({})
    await database["theirs"].insert_one({"tenant": "x"})
    await database.create_collection("seen", viewOn=entries)
    assert (await set_retention(database, None)).others == ()
