"""The schema is made by migrations, checked before use, and reversible."""

from __future__ import annotations

import asyncio
import importlib.util
from pathlib import Path
from typing import Any

import pytest
from beanie import init_beanie
from pymongo import AsyncMongoClient
from pymongo.asynchronous.database import AsyncDatabase
from support.entries import KEY, turn

import beanie_session_store
from beanie_session_store import (
    DOCUMENT_MODELS,
    BeanieSessionStore,
    SchemaOutdatedError,
    SchemaTooNewError,
    upgrade_schema,
)

SCRIPTS = sorted((Path(beanie_session_store.__file__).parent / "migrations").glob("2*.py"))


@pytest.fixture
async def empty(mongo_url: str, database_name: str) -> Any:
    async with AsyncMongoClient(mongo_url) as client:
        yield client[database_name]


async def indexes(database: AsyncDatabase) -> dict[str, Any]:
    return {
        name: await database[name].index_information()
        for name in sorted(await database.list_collection_names())
        if name.startswith("claude_transcript") and "migrations" not in name
    }


async def test_upgrade_makes_what_the_models_declare(empty: AsyncDatabase) -> None:
    assert await upgrade_schema(empty) == [script.stem for script in SCRIPTS]
    migrated = await indexes(empty)
    await empty.client.drop_database(empty.name)
    await init_beanie(database=empty, document_models=DOCUMENT_MODELS)
    assert migrated == await indexes(empty)


async def test_upgrade_again_does_nothing(empty: AsyncDatabase) -> None:
    await upgrade_schema(empty)
    before = await indexes(empty)
    assert await upgrade_schema(empty) == []
    assert await indexes(empty) == before


async def test_many_upgrades_at_once_are_one(empty: AsyncDatabase) -> None:
    await asyncio.gather(*(upgrade_schema(empty) for _ in range(5)))
    log = await empty["claude_transcript_migrations"].find().to_list()
    assert [record["script"] for record in log] == [script.stem for script in SCRIPTS]


async def test_collections_are_compressed_with_zstd(empty: AsyncDatabase) -> None:
    await upgrade_schema(empty)
    stats = await empty.command("collStats", "claude_transcript_entries")
    assert "block_compressor=zstd" in stats["wiredTiger"]["creationString"]


@pytest.mark.parametrize("beanie_first", [True, False])
async def test_init_beanie_and_upgrade_work_in_either_order(
    empty: AsyncDatabase, beanie_first: bool
) -> None:
    steps = [
        lambda: init_beanie(database=empty, document_models=DOCUMENT_MODELS),
        lambda: upgrade_schema(empty),
    ]
    for step in steps if beanie_first else reversed(steps):
        await step()
    await BeanieSessionStore().append(KEY, turn(1))
    assert len(await BeanieSessionStore().load(KEY) or []) == 6


async def test_the_log_is_not_the_one_of_beanies_own_runner(empty: AsyncDatabase) -> None:
    await upgrade_schema(empty)
    assert "migrations_log" not in await empty.list_collection_names()


async def test_scripts_run_backward_and_forward_and_keep_what_is_stored(
    empty: AsyncDatabase,
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


async def run(script: Path, direction: str, database: AsyncDatabase) -> None:
    """As Beanie's runner does it, for a team that copied the script."""
    spec = importlib.util.spec_from_file_location(script.stem, script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    async with database.client.start_session() as session:
        for step in vars(getattr(module, direction)).values():
            if hasattr(step, "models"):
                await init_beanie(database=database, document_models=step.models)
                await step.run(session=session)


async def test_store_refuses_a_database_without_its_indexes(empty: AsyncDatabase) -> None:
    await init_beanie(database=empty, document_models=DOCUMENT_MODELS, skip_indexes=True)
    store = BeanieSessionStore()
    with pytest.raises(SchemaOutdatedError, match="upgrade_schema"):
        await store.append(KEY, turn(1))
    assert await empty["claude_transcript_entries"].count_documents({}) == 0
    await upgrade_schema(empty)
    await store.append(KEY, turn(1))
    assert len(await store.load(KEY) or []) == 6


async def test_store_refuses_a_database_of_a_newer_release(empty: AsyncDatabase) -> None:
    await upgrade_schema(empty)
    await init_beanie(database=empty, document_models=DOCUMENT_MODELS)
    await empty["claude_transcript_migrations"].insert_one(
        {"entries": "claude_transcript_entries", "script": "29990101000000_from_the_future"}
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
