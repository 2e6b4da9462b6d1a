"""A writer that died in the middle of a write is in nobody's way for more than seconds."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from support.entries import KEY, assert_summary_is_the_fold, seqs, turn
from support.processes import PREPARED
from support.secured import SecuredServer
from support.server import connected, failing
from support.telemetry import recording, said
from support.watchdog import WATCHDOG_SECONDS

from beanie_session_store import BeanieSessionStore, upgrade_schema
from beanie_session_store.app.database import abandoned, attempts
from beanie_session_store.app.database.driver import Database

# Writes one batch and says "open" when its transaction has claimed the session; then it waits
# for a line before it goes on.
WRITER = """
import asyncio, json, os, sys
from pymongo import monitoring
from beanie_session_store import BeanieSessionStore

class Hold(monitoring.CommandListener):
    armed = False
    def started(self, event):
        if self.armed and event.command_name == {command!r}:
            self.armed = False
            print("open", flush=True)
            sys.stdin.readline()
    def succeeded(self, event): pass
    def failed(self, event): pass

hold = Hold()
monitoring.register(hold)

async def main(url, database):
    async with BeanieSessionStore.connect(url, database=database, upgrade=False) as store:
        key, batch = json.loads(sys.stdin.readline())
        hold.armed = True
        await store.append(key, batch)
    print("done", flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


@asynccontextmanager
async def open_writer(
    url: str, database: str, batch: list[dict[str, Any]], command: str = "insert"
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process that stands before a command of its append, with its transaction open."""
    process = await asyncio.create_subprocess_exec(
        *(PREPARED, "-c", WRITER.format(command=command), url, database),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(json.dumps([KEY, batch]).encode() + b"\n")
        assert await process.stdout.readline() == b"open\n"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def go_on(process: asyncio.subprocess.Process) -> None:
    """Let the writer go on to its end."""
    assert process.stdin is not None
    process.stdin.write(b"go\n")
    output, _ = await process.communicate()
    assert output == b"done\n"
    assert process.returncode == 0


async def seconds_of(append: Any) -> float:
    began = time.monotonic()
    await append
    return time.monotonic() - began


@pytest.mark.parametrize("command", ["insert", "commitTransaction"])
async def test_a_killed_writer_blocks_its_session_for_seconds(
    database: Database, mongo_url: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = BeanieSessionStore()
    first, lost, second = turn(1), turn(2), turn(3)
    await store.append(KEY, first)
    async with open_writer(mongo_url, database.name, lost, command) as writer:
        writer.kill()
        with recording(monkeypatch) as recorded:
            assert await seconds_of(store.append(KEY, second)) < 30
    assert recorded.total("dead_writers.ended") == 1
    assert said(recorded.span("append"))["session_store.retries"] > 1
    assert await store.load(KEY) == first + second
    await assert_summary_is_the_fold(store)


async def test_a_user_who_may_only_read_and_write_gets_through_too(
    secured: SecuredServer,
) -> None:
    name = f"dead_{time.time_ns()}"
    _, url = secured.user(("readWrite", name))
    async with connected(secured.url()) as root:
        await upgrade_schema(root[name])
        first, lost, second = turn(1), turn(2), turn(3)
        async with BeanieSessionStore.connect(url, database=name, upgrade=False) as store:
            await store.append(KEY, first)
            async with open_writer(url, name, lost) as writer:
                writer.kill()
                assert await seconds_of(store.append(KEY, second)) < 30
            assert await store.load(KEY) == first + second
        await root.drop_database(name)


async def test_another_users_transaction_is_left_alone(secured: SecuredServer) -> None:
    """The server shows nobody what others do, so this writer waits as it would for a live one."""
    name = f"dead_{time.time_ns()}"
    _, url = secured.user(("readWrite", name))
    _, other = secured.user(("readWrite", name))
    async with connected(secured.url()) as root:
        await upgrade_schema(root[name])
        async with BeanieSessionStore.connect(url, database=name, upgrade=False) as store:
            await store.append(KEY, turn(1))
            async with open_writer(other, name, turn(2)) as writer:
                append = asyncio.create_task(store.append(KEY, turn(3)))
                # More than one whose writer is gone has.
                await asyncio.sleep(abandoned._STILL_SECONDS + 1)
                assert not append.done()
                await go_on(writer)
                await append
            assert len(await store.load(KEY) or []) == 18
        await root.drop_database(name)


@pytest.mark.parametrize("still_seconds", [WATCHDOG_SECONDS, 1.0])
async def test_a_frozen_writer_that_goes_on_loses_and_doubles_nothing(
    database: Database, mongo_url: str, monkeypatch: pytest.MonkeyPatch, still_seconds: float
) -> None:
    """For a while it is waited for; were it taken for dead, it would only try again."""
    monkeypatch.setattr(abandoned, "_STILL_CONNECTED_SECONDS", still_seconds)
    store = BeanieSessionStore()
    first, slow, second = turn(1), turn(2), turn(3)
    await store.append(KEY, first)
    async with open_writer(mongo_url, database.name, slow) as writer:
        writer.send_signal(signal.SIGSTOP)
        append = asyncio.create_task(store.append(KEY, second))
        await asyncio.wait([append], timeout=1 if still_seconds > 1 else None)
        is_taken_for_dead = append.done()
        writer.send_signal(signal.SIGCONT)
        await go_on(writer)
        await append
    assert is_taken_for_dead == (still_seconds == 1.0)
    expected = first + second + slow if is_taken_for_dead else first + slow + second
    assert await store.load(KEY) == expected
    assert await seqs() == list(range(1, 19))
    await assert_summary_is_the_fold(store)


async def test_a_writer_that_is_hit_while_it_commits_stores_its_batch_once(
    database: Database, mongo_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(abandoned, "_STILL_CONNECTED_SECONDS", 0.5)
    store = BeanieSessionStore()
    slow, second = turn(2), turn(3)
    await store.append(KEY, turn(1))
    async with open_writer(mongo_url, database.name, slow, "commitTransaction") as writer:
        await store.append(KEY, second)
        await go_on(writer)
    loaded = await store.load(KEY) or []
    assert loaded[6:] == second + slow
    await assert_summary_is_the_fold(store)


async def test_writers_that_freeze_again_and_again_lose_and_double_nothing(
    database: Database, mongo_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(abandoned, "_STILL_CONNECTED_SECONDS", 0.6)
    monkeypatch.setattr(abandoned, "_PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(abandoned, "_LOOK_EVERY_SECONDS", 0.1)
    store = BeanieSessionStore()
    await store.append(KEY, turn(0))
    sent = [turn(number) for number in range(1, 5)]
    for number, batch in enumerate(sent):
        async with open_writer(mongo_url, database.name, batch) as writer:
            await store.append(KEY, turn(10 + number))
            await go_on(writer)
    loaded = await store.load(KEY) or []
    assert len(loaded) == 6 * 9
    for batch in sent:
        assert loaded.count(batch[1]) == 1
    await assert_summary_is_the_fold(store)


async def test_a_teams_own_transaction_on_the_same_client_is_never_ended(
    database: Database, mongo_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It bears the package's name in its handshake, for its client was given to the store."""
    monkeypatch.setattr(abandoned, "_STILL_CONNECTED_SECONDS", 0.5)
    store = BeanieSessionStore()
    await store.append(KEY, turn(1))
    session: Any = database.client.start_session()
    if not hasattr(session, "start_transaction"):
        session = await session
    async with session:
        begun = session.start_transaction()
        if hasattr(begun, "__await__"):
            await begun
        await database["orders"].insert_one({"_id": 1}, session=session)
        async with open_writer(mongo_url, database.name, turn(2)) as writer:
            writer.kill()
            await store.append(KEY, turn(3))
        await asyncio.sleep(1)
        await database["orders"].insert_one({"_id": 2}, session=session)
        await session.commit_transaction()
    assert await database["orders"].count_documents({}) == 2


async def test_where_a_user_may_not_end_transactions_writers_wait_as_for_a_live_one(
    database: Database, mongo_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(abandoned, "_STILL_CONNECTED_SECONDS", 0.5)
    store = BeanieSessionStore()
    await store.append(KEY, turn(1))
    async with (
        open_writer(mongo_url, database.name, turn(2)) as writer,
        failing(database, "killSessions", {"times": 1000}, errorCode=13),
    ):
        append = asyncio.create_task(store.append(KEY, turn(3)))
        await asyncio.sleep(2)
        assert not append.done()
        await go_on(writer)
        await append
    assert len(await store.load(KEY) or []) == 18


@pytest.mark.parametrize("writers", [8, pytest.param(20, marks=pytest.mark.soak)])
async def test_many_blocked_writers_look_as_often_as_one(
    database: Database, mongo_url: str, writers: int
) -> None:
    await BeanieSessionStore().append(KEY, turn(1))
    looks = 0
    real = abandoned._on_primary

    async def counted(client: Any, command: Any) -> Any:
        nonlocal looks
        looks += "aggregate" in command
        return await real(client, command)

    stores = [BeanieSessionStore() for _ in range(writers)]
    batches = [turn(number) for number in range(2, 2 + writers)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(abandoned, "_on_primary", counted)
        # So many that collide may take long on a busy machine.
        patch.setattr(attempts, "_SECONDS", WATCHDOG_SECONDS)
        async with open_writer(mongo_url, database.name, turn(1)) as writer:
            writer.kill()
            appends = (
                store.append(KEY, batch) for store, batch in zip(stores, batches, strict=True)
            )
            began = time.monotonic()
            await asyncio.gather(*appends)
            seconds = time.monotonic() - began
    # One that finds it, and one that finds it still there.
    assert 2 <= looks <= seconds / abandoned._LOOK_EVERY_SECONDS + 1
    assert len(await stores[0].load(KEY) or []) == 6 * (writers + 1)
