"""Migrations on a filled database, while another process keeps appending to it."""

from __future__ import annotations

import asyncio
import json
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from beanie import init_beanie
from support.entries import message
from support.processes import PREPARED

import beanie_session_store
from beanie_session_store import (
    DOCUMENT_MODELS,
    BeanieSessionStore,
    downgrade_schema,
    schema_status,
    upgrade_schema,
)
from beanie_session_store.app.database.driver import Database

PACKAGED = Path(beanie_session_store.__file__).parent / "migrations"
NAMES = [path.stem for path in sorted(PACKAGED.glob("2*.py"))]

SESSIONS = 20
MANY_SESSIONS = 200
ENTRIES_PER_SESSION = 1_000

# Appends to one session after another until its input is closed, and tells what was acknowledged.
WRITER = """
    import asyncio, json, sys
    from beanie import init_beanie
    from beanie_session_store import DOCUMENT_MODELS, BeanieSessionStore
    from beanie_session_store.app.storage.client import open_database

    async def main():
        url, name = sys.argv[1:]
        stopped = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        async with open_database(url, name) as database:
            models = {"document_models": DOCUMENT_MODELS, "skip_indexes": True}
            await init_beanie(database=database, **models)
            store, acknowledged, failures = BeanieSessionStore(), {}, []
            number = 0
            while not stopped.done():
                key = {"project_key": "live", "session_id": f"s{number % 7}"}
                uuid = f"u{number}"
                entries = [{"type": "user", "uuid": uuid}, {"type": "mode", "n": number}]
                try:
                    await store.append(key, entries)
                    acknowledged.setdefault(key["session_id"], []).append(number)
                except Exception as error:
                    failures.append(repr(error))
                if number == 0:
                    print("started", flush=True)
                number += 1
            print(json.dumps({"acknowledged": acknowledged, "failures": failures}))

    asyncio.run(main())
"""


@pytest.fixture(
    params=[
        SESSIONS,
        pytest.param(MANY_SESSIONS, marks=[pytest.mark.soak, pytest.mark.timeout(900)]),
    ]
)
async def filled(database: Database, request: pytest.FixtureRequest) -> Database:
    """A migrated database of 20 sessions of 1,000 entries; of 200 in the soak."""
    store = BeanieSessionStore()
    for session in range(request.param):
        key: Any = {"project_key": "filled", "session_id": f"s{session}"}
        await store.append(key, [message(str(n)) for n in range(ENTRIES_PER_SESSION)])
    return database


@asynccontextmanager
async def writing(mongo_url: str, database: Database, told: dict[str, Any]) -> AsyncIterator[None]:
    writer = await asyncio.create_subprocess_exec(
        PREPARED,
        "-c",
        textwrap.dedent(WRITER),
        mongo_url,
        database.name,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert writer.stdout is not None
    assert await writer.stdout.readline() == b"started\n"
    try:
        yield
    finally:
        output, _ = await writer.communicate(b"")
        told.update(json.loads(output))


async def assert_nothing_is_lost(told: dict[str, Any]) -> None:
    store = BeanieSessionStore()
    filled = await store.list_sessions("filled")
    assert len(filled) in (SESSIONS, MANY_SESSIONS)
    for session in filled:
        key: Any = {"project_key": "filled", "session_id": session["session_id"]}
        texts = [entry["message"]["content"] for entry in await store.load(key) or []]  # type: ignore[typeddict-item]
        assert texts == [str(n) for n in range(ENTRIES_PER_SESSION)]
    assert sum(map(len, told["acknowledged"].values())) > 10
    for session_id, numbers in told["acknowledged"].items():
        live: Any = {"project_key": "live", "session_id": session_id}
        stored: list[Any] = await store.load(live) or []
        found = [entry["n"] for entry in stored if entry["type"] == "mode"]
        assert set(numbers) <= set(found)
        assert len(found) == len(set(found))


async def indexes(database: Database) -> dict[str, Any]:
    names = [model.get_settings().name for model in DOCUMENT_MODELS]
    return {name: await database[name].index_information() for name in names}


async def test_down_and_up_while_a_writer_goes_on(mongo_url: str, filled: Database) -> None:
    declared = await indexes(filled)
    told: dict[str, Any] = {}
    async with writing(mongo_url, filled, told):
        for _ in range(3):
            assert await downgrade_schema(filled, to=NAMES[0]) == NAMES[:0:-1]
            await asyncio.sleep(0.2)
            assert await upgrade_schema(filled) == NAMES[1:]
            await asyncio.sleep(0.2)
    assert told["failures"] == []
    await assert_nothing_is_lost(told)
    assert await indexes(filled) == declared
    assert (await schema_status(filled)).is_current


async def test_down_to_nothing_and_up_while_a_writer_goes_on_loses_nothing(
    mongo_url: str, filled: Database
) -> None:
    declared = await indexes(filled)
    told: dict[str, Any] = {}
    async with writing(mongo_url, filled, told):
        await downgrade_schema(filled, steps=len(NAMES))
        await asyncio.sleep(0.3)
        await upgrade_schema(filled)
        await asyncio.sleep(0.3)
    # The collections that were empty and dropped with it are made anew as well.
    await init_beanie(database=filled, document_models=DOCUMENT_MODELS)
    await assert_nothing_is_lost(told)
    assert await indexes(filled) == declared


async def test_what_is_written_while_a_collection_is_dropped_for_being_empty_is_kept(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = BeanieSessionStore()
    key: Any = {"project_key": "live", "session_id": "late"}
    # From here on it is a store that was there before.
    assert await store.load(key) is None
    collection_class = type(database["any"])
    look = collection_class.find_one

    async def look_and_be_overtaken(self: Any, *arguments: Any, **options: Any) -> Any:
        found = await look(self, *arguments, **options)
        if arguments == ({}, {"_id": 1}) and self.name == "claude_transcript_summaries":
            monkeypatch.undo()
            await store.append(key, [message("just in time")])
        return found

    monkeypatch.setattr(collection_class, "find_one", look_and_be_overtaken)
    await downgrade_schema(database, steps=len(NAMES))
    assert collection_class.find_one is look
    await upgrade_schema(database)
    assert len(await store.load(key) or []) == 1
    assert len(await store.list_sessions("live")) == 1
    assert not [name for name in await database.list_collection_names() if "dropping" in name]


async def test_down_to_nothing_leaves_no_empty_collection(database: Database) -> None:
    await downgrade_schema(database, steps=len(NAMES))
    assert await database.list_collection_names() == ["claude_transcript_migrations"]
