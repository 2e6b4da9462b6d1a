"""The schema is made by migrations, checked before use, and reversible."""

from __future__ import annotations

import asyncio
import importlib.util
import shutil
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from beanie import init_beanie
from support.entries import KEY, turn
from support.server import connected

import beanie_session_store
from beanie_session_store import (
    DOCUMENT_MODELS,
    BeanieSessionStore,
    InvalidMigrationError,
    SchemaOutdatedError,
    SchemaTooNewError,
    ServerError,
    SessionSummary,
    TranscriptEntry,
    downgrade_schema,
    schema_status,
    upgrade_schema,
)
from beanie_session_store.app.database.driver import Database, start_session
from beanie_session_store.app.schema.migrator import Migrator

SCRIPTS = sorted((Path(beanie_session_store.__file__).parent / "migrations").glob("2*.py"))


@pytest.fixture
async def empty(mongo_url: str, database_name: str) -> Any:
    async with connected(mongo_url) as client:
        yield client[database_name]


async def indexes(database: Database) -> dict[str, Any]:
    return {
        name: await database[name].index_information()
        for name in sorted(await database.list_collection_names())
        if name.startswith("claude_transcript") and not name.endswith(("_migrations", "_erasures"))
    }


async def test_upgrade_makes_what_the_models_declare(empty: Database) -> None:
    assert await upgrade_schema(empty) == [script.stem for script in SCRIPTS]
    migrated = await indexes(empty)
    await empty.client.drop_database(empty.name)
    await init_beanie(database=empty, document_models=DOCUMENT_MODELS)
    assert migrated == await indexes(empty)


async def test_upgrade_again_does_nothing(empty: Database) -> None:
    await upgrade_schema(empty)
    before = await indexes(empty)
    assert await upgrade_schema(empty) == []
    assert await indexes(empty) == before


async def test_many_upgrades_at_once_are_one(empty: Database) -> None:
    await asyncio.gather(*(upgrade_schema(empty) for _ in range(5)))
    log = await empty["claude_transcript_migrations"].find().to_list()
    assert [record["script"] for record in log] == [script.stem for script in SCRIPTS]


async def test_collections_are_compressed_with_zstd(empty: Database) -> None:
    await upgrade_schema(empty)
    stats = await empty.command("collStats", "claude_transcript_entries")
    assert "block_compressor=zstd" in stats["wiredTiger"]["creationString"]


@pytest.mark.parametrize("beanie_first", [True, False])
async def test_init_beanie_and_upgrade_work_in_either_order(
    empty: Database, beanie_first: bool
) -> None:
    steps = [
        lambda: init_beanie(database=empty, document_models=DOCUMENT_MODELS),
        lambda: upgrade_schema(empty),
    ]
    for step in steps if beanie_first else reversed(steps):
        await step()
    await BeanieSessionStore().append(KEY, turn(1))
    assert len(await BeanieSessionStore().load(KEY) or []) == 6


async def test_the_log_is_not_the_one_of_beanies_own_runner(empty: Database) -> None:
    await upgrade_schema(empty)
    assert "migrations_log" not in await empty.list_collection_names()


async def test_scripts_run_backward_and_forward_and_keep_what_is_stored(
    empty: Database,
) -> None:
    await upgrade_schema(empty)
    migrated = await indexes(empty)
    await init_beanie(database=empty, document_models=DOCUMENT_MODELS)
    await BeanieSessionStore().append(KEY, turn(1))
    for script in reversed(SCRIPTS):
        await run(script, "Backward", empty)
    assert list((await indexes(empty))["claude_transcript_entries"]) == ["_id_"]
    assert await empty["claude_transcript_entries"].count_documents({}) == 6
    for script in SCRIPTS:
        await run(script, "Forward", empty)
    assert await indexes(empty) == migrated


async def run(script: Path, direction: str, database: Database) -> None:
    """As Beanie's runner does it, for a team that copied the script."""
    spec = importlib.util.spec_from_file_location(script.stem, script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    session = await start_session(database.client)
    async with session:
        for step in vars(getattr(module, direction)).values():
            if hasattr(step, "models"):
                await init_beanie(database=database, document_models=step.models)
                await step.run(session=session)


async def test_store_refuses_a_database_without_its_indexes(empty: Database) -> None:
    await init_beanie(database=empty, document_models=DOCUMENT_MODELS, skip_indexes=True)
    store = BeanieSessionStore()
    with pytest.raises(SchemaOutdatedError, match="upgrade_schema"):
        await store.append(KEY, turn(1))
    assert await empty["claude_transcript_entries"].count_documents({}) == 0
    await upgrade_schema(empty)
    await store.append(KEY, turn(1))
    assert len(await store.load(KEY) or []) == 6


async def test_store_refuses_a_database_of_a_newer_release(empty: Database) -> None:
    await upgrade_schema(empty)
    await init_beanie(database=empty, document_models=DOCUMENT_MODELS)
    await empty["claude_transcript_migrations"].insert_one(
        {
            "entries": "claude_transcript_entries",
            "script": "29990101000000_from_the_future",
            "applied_at": datetime.now(timezone.utc),
        }
    )
    with pytest.raises(SchemaTooNewError, match="29990101000000_from_the_future"):
        await BeanieSessionStore().load(KEY)
    with pytest.raises(SchemaTooNewError, match="Install the newer release"):
        await upgrade_schema(empty)


async def test_connect_upgrades_or_refuses(mongo_url: str, database_name: str) -> None:
    with pytest.raises(SchemaOutdatedError):
        async with BeanieSessionStore.connect(mongo_url, database=database_name, upgrade=False):
            pass
    async with BeanieSessionStore.connect(mongo_url, database=database_name) as store:
        await store.append(KEY, turn(1))
    connecting = BeanieSessionStore.connect(mongo_url, database=database_name, upgrade=False)
    async with connecting as store:
        assert len(await store.load(KEY) or []) == 6


# What it tells


async def test_status_says_what_was_applied_and_when(empty: Database) -> None:
    names = [script.stem for script in SCRIPTS]
    before = await schema_status(empty)
    assert list(before.pending) == names
    assert not before.is_current
    assert await empty.list_collection_names() == []
    await upgrade_schema(empty, to=names[0])
    half = await schema_status(empty)
    assert list(half.pending) == names[1:]
    (applied_at,) = [script.applied_at for script in half.scripts if script.applied_at]
    assert abs(datetime.now(timezone.utc) - applied_at) < timedelta(minutes=1)
    await upgrade_schema(empty)
    after = await schema_status(empty)
    assert after.is_current
    assert all(script.applied_at and script.is_unchanged for script in after.scripts)


async def test_a_dry_run_lists_what_would_run_and_changes_nothing(empty: Database) -> None:
    names = [script.stem for script in SCRIPTS]
    assert await upgrade_schema(empty, dry_run=True) == names
    assert await upgrade_schema(empty, to=names[0], dry_run=True) == names[:1]
    assert await empty.list_collection_names() == []
    await upgrade_schema(empty)
    before = await indexes(empty)
    assert await downgrade_schema(empty, steps=len(names), dry_run=True) == names[::-1]
    assert await indexes(empty) == before
    assert (await schema_status(empty)).is_current


async def test_a_script_that_was_edited_since_is_noticed(
    empty: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await upgrade_schema(empty)
    for script in SCRIPTS:
        shutil.copy(script, tmp_path)
    edited = tmp_path / SCRIPTS[0].name
    edited.write_text(edited.read_text() + "# edited\n")
    migrator = Migrator(empty, TranscriptEntry, SessionSummary, scripts=tmp_path)
    status = await migrator.status()
    assert [script.is_unchanged for script in status.scripts] == [
        script is not SCRIPTS[0] for script in SCRIPTS
    ]
    assert status.is_current
    assert await migrator.upgrade(None, False) == []
    assert f"Migration {edited.stem} of this release is not the one" in caplog.text
    # Other line ends are no edit.
    edited.write_bytes(SCRIPTS[0].read_bytes().replace(b"\n", b"\r\n"))
    assert all(script.is_unchanged for script in (await migrator.status()).scripts)


async def test_progress_tells_of_every_step_and_of_long_index_builds(
    empty: Database,
) -> None:
    key = {"tenant": "t", "project_key": "p", "session_id": "s", "subpath": ""}
    await empty["claude_transcript_entries"].insert_many(
        [{**key, "seq": seq} for seq in range(1000)]
    )
    admin = empty.client.admin
    hang = {"configureFailPoint": "hangIndexBuildDuringCollectionScanPhaseBeforeInsertion"}
    await admin.command({**hang, "mode": "alwaysOn", "data": {"fieldsToMatch": {"seq": 700}}})
    said: list[str] = []
    try:
        work = asyncio.create_task(upgrade_schema(empty, on_progress=said.append))
        while not any("of 1,000 (" in each for each in said):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        assert not work.done()
    finally:
        await admin.command({**hang, "mode": "off"})
    await work
    assert said[0] == f"{SCRIPTS[0].stem}: forward"
    doing = "building index transcript_order on claude_transcript_entries"
    assert doing in said
    assert any(message.startswith(f"{doing}: ") and "of 1,000 (" in message for message in said)


# What it refuses


async def test_migrations_that_do_not_exist_are_refused(empty: Database) -> None:
    for wrong in ("nonsense", "", "2"):
        with pytest.raises(InvalidMigrationError, match="Known are"):
            await upgrade_schema(empty, to=wrong)
    steps: Any
    for steps in (0, -1, 1.5, True, "1"):
        with pytest.raises(InvalidMigrationError, match="steps must be"):
            await downgrade_schema(empty, steps=steps)
    with pytest.raises(InvalidMigrationError, match="not both"):
        await downgrade_schema(empty, steps=1, to=SCRIPTS[0].stem)
    assert await empty.list_collection_names() == []


async def test_a_refused_step_says_why_and_that_the_rest_is_kept(empty: Database) -> None:
    twice = {"tenant": "t", "project_key": "p", "session_id": "s"}
    await empty["claude_transcript_summaries"].insert_many([dict(twice), dict(twice)])
    with pytest.raises(ServerError, match=r"code 11000.*what was done so far is kept"):
        await upgrade_schema(empty)
    assert "transcript_order" in await empty["claude_transcript_entries"].index_information()
    assert not (await schema_status(empty)).is_current
    await empty["claude_transcript_summaries"].delete_many({})
    assert len(await upgrade_schema(empty)) == len(SCRIPTS)


async def test_a_lost_index_is_noticed_and_brought_back(empty: Database) -> None:
    await upgrade_schema(empty)
    before = await indexes(empty)
    await empty["claude_transcript_entries"].drop_index("transcript_uuid")
    status = await schema_status(empty)
    assert status.lost_indexes == ("claude_transcript_entries.transcript_uuid",)
    assert not status.is_current
    await upgrade_schema(empty)
    assert await indexes(empty) == before
    assert (await schema_status(empty)).is_current
