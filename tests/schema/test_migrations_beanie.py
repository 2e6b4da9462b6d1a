"""Beside a team's own migrations and ``init_beanie``: neither way disturbs the other."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from beanie import init_beanie
from beanie.executors import migrate
from beanie.executors.migrate import MigrationSettings, run_migrate
from beanie.migrations.models import RunningDirections
from support.command import SessionStoreCommand
from support.entries import KEY, turn
from support.server import connected

import beanie_session_store
from beanie_session_store import (
    DOCUMENT_MODELS,
    EVERY,
    BeanieSessionStore,
    SchemaOutdatedError,
    SessionSummary,
    TranscriptEntry,
    downgrade_schema,
    schema_status,
    upgrade_schema,
)
from beanie_session_store.app.database.driver import Client, Database
from beanie_session_store.app.retention.script import ScriptClasses, write_retention_script
from beanie_session_store.app.schema import script_stamps
from beanie_session_store.app.schema.migrator import renamed_collections
from beanie_session_store.app.schema.script_copies import copy_scripts
from beanie_session_store.app.schema.versions import schema_history

PACKAGED = Path(beanie_session_store.__file__).parent / "migrations"
NAMES = [path.stem for path in sorted(PACKAGED.glob("2*.py"))]

# A team's migration, which tells how often it ran.
THEIRS = """
from beanie import Document, free_fall_migration
from beanie_session_store import database_of

class Customer(Document):
    class Settings:
        name = "customers"

class Forward:
    @free_fall_migration(document_models=[Customer])
    async def add(self, session):
        await database_of(Customer)["customers"].insert_one({"script": "%s"})

class Backward:
    @free_fall_migration(document_models=[Customer])
    async def remove(self, session):
        await database_of(Customer)["customers"].delete_one({"script": "%s"})
"""


class AcmeEntry(TranscriptEntry):
    class Settings(TranscriptEntry.Settings):
        name = "acme_entries"


class AcmeSummary(SessionSummary):
    class Settings(SessionSummary.Settings):
        name = "acme_sessions"


@pytest.fixture
async def empty(mongo_url: str, database_name: str) -> AsyncIterator[Database]:
    async with connected(mongo_url) as client:
        yield client[database_name]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A team's folder with one migration, older than ours."""
    path = tmp_path / "team"
    path.mkdir()
    add_theirs(path, "20200101000000_first")
    return path


def add_theirs(folder: Path, name: str) -> None:
    (folder / f"{name}.py").write_text(THEIRS % (name, name))


class Beanie:
    """``beanie migrate`` on a team's folder."""

    def __init__(self, url: str, database: Database, folder: Path) -> None:
        self._url = url
        self._database = database
        self._folder = folder

    async def migrate(self, **options: Any) -> None:
        settings = MigrationSettings(
            connection_uri=self._url,
            database_name=self._database.name,
            path=str(self._folder),
            direction=options.pop("direction", RunningDirections.FORWARD),
            **{"use_transaction": False, **options},
        )
        await run_migrate(settings)

    async def ran(self) -> list[str]:
        found = await self._database["customers"].find().sort("_id").to_list()
        return [record["script"] for record in found]


@pytest.fixture
def beanie(mongo_url: str, empty: Database, folder: Path) -> Beanie:
    return Beanie(mongo_url, empty, folder)


async def indexes(database: Database) -> dict[str, Any]:
    """Those of the collections that have a Document class."""
    return {
        name: await database[name].index_information()
        for name in sorted(await database.list_collection_names())
        if name.startswith("claude_") and not name.endswith(("_migrations", "_erasures"))
    }


async def declared_indexes(client: Client, name: str) -> dict[str, Any]:
    """What the models declare, as a database of its own shows it."""
    database = client[f"{name}_declared"]
    await init_beanie(database=database, document_models=DOCUMENT_MODELS)
    try:
        return await indexes(database)
    finally:
        await client.drop_database(database.name)


async def forward_runs(database: Database) -> list[str]:
    return [run.script for run in await schema_history(database) if run.direction == "forward"]


# Beanie's own runner


@pytest.mark.parametrize("theirs_first", [True, False])
async def test_theirs_and_ours_in_turn_run_each_script_once(
    empty: Database, beanie: Beanie, folder: Path, theirs_first: bool
) -> None:
    if not theirs_first:
        assert await upgrade_schema(empty, to=NAMES[0]) == [NAMES[0]]
    await beanie.migrate()
    await upgrade_schema(empty, to=NAMES[0])
    add_theirs(folder, "20300101000000_second")
    await beanie.migrate()
    await upgrade_schema(empty)
    await beanie.migrate()
    assert await upgrade_schema(empty) == []
    assert await beanie.ran() == ["20200101000000_first", "20300101000000_second"]
    assert await forward_runs(empty) == NAMES


async def test_their_command_line_and_ours_in_turn_run_each_script_once(
    mongo_url: str, empty: Database, beanie: Beanie, folder: Path
) -> None:
    async def call(*command: str) -> None:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "SESSION_STORE_MONGODB_URL": mongo_url},
        )
        output, _ = await process.communicate()
        assert process.returncode == 0, output.decode()

    theirs = [str(Path(sys.executable).parent / "beanie"), "migrate", "--no-use-transaction"]
    theirs += ["-uri", mongo_url, "-db", empty.name, "-p", str(folder)]
    ours = SessionStoreCommand(mongo_url, empty.name)
    await call(*theirs)
    assert (await ours("schema", "upgrade")).code == 0
    add_theirs(folder, "20300101000000_second")
    await call(*theirs)
    assert (await ours("schema", "upgrade")).code == 0
    # Ids of two processes may be in any order within a second.
    assert sorted(await beanie.ran()) == ["20200101000000_first", "20300101000000_second"]
    assert await forward_runs(empty) == NAMES


async def test_undoing_ours_leaves_their_place_alone(empty: Database, beanie: Beanie) -> None:
    await beanie.migrate()
    await upgrade_schema(empty)
    await downgrade_schema(empty, steps=len(NAMES))
    await beanie.migrate()
    assert await beanie.ran() == ["20200101000000_first"]
    await beanie.migrate(direction=RunningDirections.BACKWARD, distance=1)
    assert await beanie.ran() == []
    assert await upgrade_schema(empty) == NAMES


# Our scripts in a team's folder


OURS = renamed_collections(TranscriptEntry, SessionSummary)


@pytest.mark.parametrize("use_transaction", [False, True])
async def test_copies_that_their_runner_ran_are_not_run_again_by_ours(
    mongo_url: str, empty: Database, beanie: Beanie, folder: Path, use_transaction: bool
) -> None:
    # Newer than our scripts were when they were written.
    add_theirs(folder, "20261124000000_second")
    await beanie.migrate(use_transaction=use_transaction)
    assert len(copy_scripts(folder, OURS)) == len(NAMES)
    await beanie.migrate(use_transaction=use_transaction)
    status = await schema_status(empty)
    assert status.is_current
    assert all(script.is_unchanged for script in status.scripts)
    assert await upgrade_schema(empty) == []
    await beanie.migrate(use_transaction=use_transaction)
    runs = await schema_history(empty)
    assert [(run.script, run.by, run.pid) for run in runs] == [
        (name, "beanie migrate", os.getpid()) for name in NAMES
    ]
    assert await beanie.ran() == ["20200101000000_first", "20261124000000_second"]
    assert await indexes(empty) == await declared_indexes(empty.client, empty.name)


# What `session-store schema copy` wrote in an earlier release: teams have it in their folders.
COPIED_BEFORE = '''"""Find the latest sessions of a tenant by an index.

Totals of sessions that are stored already are counted when something is appended to them, or by
a repair.
"""

from beanie import Document, free_fall_migration

from beanie_session_store.migrations._operations import create_index, drop_index

SUMMARIES = "claude_transcript_summaries"


class Anchor(Document):
    """Tells the steps below which database they work on.

    It is the log's collection, which has no indexes that Beanie could drop with
    --allow-index-dropping.
    """

    class Settings:
        name = "claude_transcript_migrations"


class Forward:
    @free_fall_migration(document_models=[Anchor])
    async def create_activity_index(self, session):
        await create_index(
            Anchor,
            SUMMARIES,
            [("tenant", 1), ("active_at", -1), ("_id", -1)],
            "session_activity",
        )


class Backward:
    @free_fall_migration(document_models=[Anchor])
    async def drop_activity_index(self, session):
        await drop_index(Anchor, SUMMARIES, "session_activity")


# Added by `session-store schema copy`. It makes `beanie migrate` and `session-store schema` agree
# on what has run; keep it as it is.
from beanie_session_store.migrations._runner import recorded  # noqa: E402

Forward, Backward = recorded(
    Forward,
    Backward,
    script="20261125120000_add_session_activity",
    checksum="b5ebb6b6c194d7f026b1d096c2f1ea799e1cd3f8cf8b0238bf3cd71ca96c3687",
    renamed=None,
)
'''


async def test_a_copy_that_a_team_has_had_for_long_still_runs_both_ways(
    empty: Database, beanie: Beanie, folder: Path
) -> None:
    await upgrade_schema(empty, to=NAMES[1])
    (folder / "20261126000000_add_session_activity.py").write_text(COPIED_BEFORE)
    await beanie.migrate()
    assert "session_activity" in (await indexes(empty))["claude_transcript_summaries"]
    (run,) = [run for run in await schema_history(empty) if run.by == "beanie migrate"]
    assert run.script == "20261125120000_add_session_activity"
    # The checksum in it is that of the script that is packaged today.
    assert all(script.is_unchanged for script in (await schema_status(empty)).scripts)
    assert await upgrade_schema(empty) == NAMES[3:]
    await beanie.migrate(direction=RunningDirections.BACKWARD, distance=1)
    assert "session_activity" not in (await indexes(empty))["claude_transcript_summaries"]


async def test_copies_do_nothing_where_ours_ran_before(
    empty: Database, beanie: Beanie, folder: Path
) -> None:
    await upgrade_schema(empty)
    copy_scripts(folder, OURS)
    await beanie.migrate()
    assert await forward_runs(empty) == NAMES
    assert await beanie.ran() == ["20200101000000_first"]


async def test_copies_are_undone_by_either_runner(
    empty: Database, beanie: Beanie, folder: Path
) -> None:
    copy_scripts(folder, OURS)
    await beanie.migrate()
    await beanie.migrate(direction=RunningDirections.BACKWARD, distance=1)
    assert (await schema_status(empty)).pending == (NAMES[-1],)
    await beanie.migrate()
    assert (await schema_status(empty)).is_current
    assert await downgrade_schema(empty, steps=len(NAMES)) == NAMES[::-1]
    await beanie.migrate(direction=RunningDirections.BACKWARD, distance=len(NAMES))
    await beanie.migrate()
    assert (await schema_status(empty)).is_current


async def test_their_runner_drops_no_index_of_ours(
    empty: Database, beanie: Beanie, folder: Path
) -> None:
    copy_scripts(folder, OURS)
    await beanie.migrate(allow_index_dropping=True)
    declared = await declared_indexes(empty.client, empty.name)
    assert await indexes(empty) == declared
    await beanie.migrate(direction=RunningDirections.BACKWARD, distance=1)
    await beanie.migrate(allow_index_dropping=True)
    assert await indexes(empty) == declared


async def test_copies_for_document_classes_of_their_own_work_on_those(
    empty: Database, beanie: Beanie, folder: Path
) -> None:
    copy_scripts(folder, renamed_collections(AcmeEntry, AcmeSummary))
    await beanie.migrate()
    classes: Any = {"entries": AcmeEntry, "summaries": AcmeSummary}
    assert (await schema_status(empty, **classes)).is_current
    assert await upgrade_schema(empty, **classes) == []
    assert "transcript_order" in await empty["acme_entries"].index_information()
    assert "claude_transcript_entries" not in await empty.list_collection_names()


def test_copies_come_after_what_is_there_and_only_once(folder: Path) -> None:
    add_theirs(folder, "20991231235958_from_a_clock_ahead")
    before = {path.name: path.read_text() for path in folder.iterdir()}
    copied = copy_scripts(folder, OURS)
    assert [path.stem.partition("_")[2] for path in copied] == [
        name.partition("_")[2] for name in NAMES
    ]
    assert sorted(folder.iterdir())[-len(NAMES) :] == copied
    assert {name: (folder / name).read_text() for name in before} == before
    assert copied[0].name.startswith("2099123123595901_")
    copied[0].rename(folder / "20991231235959_renamed_by_the_team.py")
    assert copy_scripts(folder, OURS) == []


@pytest.mark.parametrize("hours", [0, -8, 9], ids=["UTC", "Los Angeles", "Tokyo"])
@pytest.mark.parametrize("there", ["nothing", "an old one", "one of this second", "no time"])
def test_whatever_is_made_after_the_copies_comes_after_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hours: int, there: str
) -> None:
    now = datetime(2026, 11, 27, 23, 59, 59, 500_000, tzinfo=timezone.utc)

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return now if tz else now.replace(tzinfo=None) + timedelta(hours=hours)

    def pass_by(seconds: float) -> None:
        nonlocal now
        now += timedelta(seconds=seconds)

    monkeypatch.setattr(migrate, "datetime", Clock)
    monkeypatch.setattr(script_stamps, "datetime", Clock)
    # Other threads of this process sleep too.
    monkeypatch.setattr(script_stamps, "time", SimpleNamespace(sleep=pass_by))

    def by_beanie(name: str) -> None:
        migrate.new_migration.callback(name, str(tmp_path))  # type: ignore[misc]

    def by_us(keep: timedelta | None) -> None:
        write_retention_script(tmp_path, keep, [], "acme", EVERY, ScriptClasses())

    if there == "an old one":
        add_theirs(tmp_path, "20200101000000_first")
    elif there == "one of this second":
        by_beanie("first")
    elif there == "no time":
        add_theirs(tmp_path, "00009999999999_first")
    made = sorted(tmp_path.iterdir())
    began = now
    for make in (
        lambda: copy_scripts(tmp_path, OURS),
        lambda: by_beanie("add_something"),
        lambda: by_us(None),
        lambda: by_us(timedelta(days=1)),
        lambda: by_beanie("and_something_else"),
    ):
        before = set(tmp_path.iterdir())
        make()
        made += sorted(set(tmp_path.iterdir()) - before)
    assert made == sorted(tmp_path.iterdir())
    assert len(made) == len(NAMES) + 4 + (there != "nothing")
    assert now - began < timedelta(seconds=3.5)


# init_beanie


@pytest.mark.parametrize(
    "options",
    [{}, {"skip_indexes": True}, {"allow_index_dropping": True}],
    ids=["plain", "skip_indexes", "allow_index_dropping"],
)
async def test_init_beanie_before_and_after_every_migration_loses_no_index(
    empty: Database, options: dict[str, bool]
) -> None:
    declared = await declared_indexes(empty.client, empty.name)
    await init_beanie(database=empty, document_models=DOCUMENT_MODELS, **options)
    for name in NAMES:
        await upgrade_schema(empty, to=name)
        migrated = await indexes(empty)
        await init_beanie(database=empty, document_models=DOCUMENT_MODELS, **options)
        after = await indexes(empty)
        for collection, stored in migrated.items():
            assert stored.items() <= after[collection].items()
        await BeanieSessionStore().append(KEY, turn(1))
    assert await indexes(empty) == declared
    for name in reversed(NAMES[:-1]):
        await downgrade_schema(empty, to=name)
        await init_beanie(database=empty, document_models=DOCUMENT_MODELS, **options)
        assert "transcript_order" in (await indexes(empty))["claude_transcript_entries"]
    await upgrade_schema(empty)
    await init_beanie(database=empty, document_models=DOCUMENT_MODELS, **options)
    assert await indexes(empty) == declared
    assert await BeanieSessionStore().load(KEY) is not None


# The store, while a new release is rolled out


@pytest.mark.parametrize("name", NAMES)
async def test_the_store_works_on_this_schema_and_the_one_before(
    empty: Database, name: str
) -> None:
    await upgrade_schema(empty, to=name)
    await init_beanie(database=empty, document_models=DOCUMENT_MODELS, skip_indexes=True)
    store = BeanieSessionStore()
    await store.append(KEY, turn(1))
    assert len(await store.load(KEY) or []) == 6


async def test_the_store_works_on_a_database_that_only_init_beanie_made(
    empty: Database,
) -> None:
    await init_beanie(database=empty, document_models=DOCUMENT_MODELS)
    await BeanieSessionStore().append(KEY, turn(1))
    status = await schema_status(empty)
    assert list(status.pending) == NAMES
    assert await upgrade_schema(empty) == NAMES


async def test_a_schema_too_old_is_refused_with_the_command_to_run(
    empty: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A later release, whose store cannot do without the last migration.
    schema = "beanie_session_store.app.schema.versions"
    monkeypatch.setattr(f"{schema}.MINIMUM_SCRIPT", NAMES[-1])
    await upgrade_schema(empty, to=NAMES[0])
    await init_beanie(database=empty, document_models=DOCUMENT_MODELS, skip_indexes=True)
    with pytest.raises(SchemaOutdatedError, match="Run 'session-store schema upgrade'"):
        await BeanieSessionStore().load(KEY)
    await upgrade_schema(empty)
    assert await BeanieSessionStore().load(KEY) is None
