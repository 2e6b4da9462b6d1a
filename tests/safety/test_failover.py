"""The primary goes away, or a writer dies half-way: no entry is lost, doubled or out of order."""

from __future__ import annotations

import asyncio
import subprocess

from beanie import init_beanie
from pymongo.errors import PyMongoError
from support.entries import KEY, assert_summary_is_the_fold, seqs, turn
from support.processes import PREPARED
from support.server import connected, failing

from beanie_session_store import (
    DOCUMENT_MODELS,
    BeanieSessionStore,
    EmbeddedMongo,
    SessionStoreError,
    upgrade_schema,
)
from beanie_session_store.app.database.driver import Client, Database


async def test_appends_go_on_while_the_primary_steps_down() -> None:
    async with EmbeddedMongo(members=3) as mongo, connected(mongo.url) as client:
        database = client["failover"]
        await upgrade_schema(database)
        await init_beanie(database=database, document_models=DOCUMENT_MODELS)
        store = BeanieSessionStore()
        before = await primary(client)

        async def step_down() -> None:
            rounds = 0
            # On a busy machine the same one may be elected again.
            while rounds < 2 or len(changes - {None}) < 2:
                rounds += 1
                await asyncio.sleep(0.5)
                try:
                    await client.admin.command("replSetStepDown", 5, force=True)
                except PyMongoError:
                    # An old primary may hang up instead of answering.
                    continue
                await asyncio.sleep(5)

        written: list[dict] = []
        changes: set[object] = {before}
        elections = asyncio.create_task(step_down())
        number = 0
        while not elections.done():
            batch = turn(number)
            await store.append(KEY, batch)
            written += batch
            changes.add(await primary(client))
            number += 1
            await asyncio.sleep(0.02)
        await elections
        assert await store.load(KEY) == written
        assert await seqs() == list(range(1, len(written) + 1))
        await assert_summary_is_the_fold(store)


async def primary(client: Client) -> object:
    """The member that calls itself the primary, or ``None`` while there is none."""
    try:
        return (await client.admin.command("hello")).get("me")
    except PyMongoError:
        return None


async def has_open_transaction(database: Database) -> bool:
    """Whether a client has a transaction under way on the database's server."""
    operations = [
        {"$currentOp": {"idleSessions": True}},
        {"$match": {"transaction": {"$exists": 1}}},
    ]
    found = await database.client.admin.command("aggregate", 1, pipeline=operations, cursor={})
    return bool(found["cursor"]["firstBatch"])


WRITER = """
import asyncio, sys
from beanie_session_store import BeanieSessionStore

async def main(url, database):
    async with BeanieSessionStore.connect(url, database=database) as store:
        print("appending", flush=True)
        key = {"project_key": "project", "session_id": "session"}
        await store.append(key, [{"type": "user", "uuid": f"dead-{n}"} for n in range(3)])

asyncio.run(main(*sys.argv[1:]))
"""


async def test_a_writer_killed_inside_its_transaction_leaves_nothing_and_blocks_nobody_for_long(
    store: BeanieSessionStore, database: Database, mongo_url: str
) -> None:
    first, second = turn(1), turn(2)
    await store.append(KEY, first)
    admin = database.client.admin
    # MongoDB ends the transaction of a dead client after this time, a minute by default.
    await admin.command("setParameter", 1, transactionLifetimeLimitSeconds=4)
    try:
        async with failing(database, "insert", blockConnection=True, blockTimeMS=3000) as met:
            writer = await asyncio.create_subprocess_exec(
                *(PREPARED, "-c", WRITER, mongo_url, database.name), stdout=subprocess.PIPE
            )
            assert writer.stdout is not None
            assert await writer.stdout.readline() == b"appending\n"
            await met(1)
            assert await has_open_transaction(database)
            writer.kill()
            await writer.wait()
            while True:
                try:
                    await BeanieSessionStore().append(KEY, second)
                    break
                except SessionStoreError:
                    # The SDK tries again, too.
                    continue
    finally:
        await admin.command("setParameter", 1, transactionLifetimeLimitSeconds=60)
    loaded = await store.load(KEY) or []
    assert loaded == first + second
    await assert_summary_is_the_fold(store)
