"""However an application ends, nothing that it began stands in anybody's way."""

from __future__ import annotations

import asyncio
import json
import random
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient
from support.command import SessionStoreCommand
from support.entries import KEY, assert_summary_is_the_fold, turn
from support.open_transactions import open_transactions
from support.processes import PREPARED
from support.server import connected, failing
from support.watchdog import WATCHDOG_SECONDS

from beanie_session_store import BeanieSessionStore, settled
from beanie_session_store.app.concurrency import cancellation
from beanie_session_store.app.database.driver import IS_MOTOR, Database, close_client
from beanie_session_store.app.storage.client import open_database

ROUNDS = 30
DOCUMENT = Path(__file__).parents[2] / "docs" / "fastapi.md"

# Four sessions that are written to for ever.
WRITES = """
async def write(store):
    async def one(session):
        key = {"project_key": "project", "session_id": f"session-{session}"}
        number = 0
        while True:
            batch = [{"type": "user", "uuid": f"{session}-{number}-{n}"} for n in range(20)]
            await store.append(key, batch)
            number += 1
    await asyncio.gather(*(one(session) for session in range(4)))
"""

SCRIPT = (
    """
import asyncio, sys
from beanie_session_store import BeanieSessionStore
"""
    + WRITES
    + """
async def main(url, database):
    async with BeanieSessionStore.connect(url, database=database, upgrade=False) as store:
        print("ready", flush=True)
        await write(store)

asyncio.run(main(*sys.argv[1:]))
"""
)

# The documented application as it stands there, on the test's database, with one more endpoint.
SERVICE = (
    """
import asyncio, socket
import uvicorn
from block import BeanieSessionStore, app
"""
    + WRITES
    + """
@app.get("/write")
async def endless():
    await write(BeanieSessionStore(tenant="default"))

async def main():
    config = uvicorn.Config(
        app, log_level="warning", ws="none", timeout_graceful_shutdown=1
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        await uvicorn.Server(config).serve(sockets=[listener])

asyncio.run(main())
"""
)


@pytest.fixture(autouse=True)
def nothing_open_before(mongo_url: str) -> None:
    """What tests before have left open would be taken for that of these."""
    with MongoClient[dict[str, Any]](mongo_url) as client:
        client.admin.command("killAllSessions", [])
    assert open_transactions(mongo_url) == 0


async def assert_whole(url: str, database: str, *, was_killed: bool = False) -> None:
    """Batches of 20 entries are there whole, and nothing stands in the way of the next.

    What a process that could not wait has left open, the next writer ends.
    """
    assert was_killed or open_transactions(url) == 0
    async with BeanieSessionStore.connect(url, database=database, upgrade=False) as store:
        listed = await store.list_sessions("project")
        assert listed
        for session in listed:
            key: Any = {"project_key": "project", "session_id": session["session_id"]}
            assert len(await store.load(key) or []) % 20 == 0
            began = time.monotonic()
            await store.append(key, turn(1))
            assert time.monotonic() - began < 30
            await assert_summary_is_the_fold(store, key)


async def until_written(database: Database) -> None:
    """Wait for the first entries, which a busy machine takes long for."""
    while not await database["claude_transcript_entries"].find_one({}):  # noqa: ASYNC110
        await asyncio.sleep(0.02)


async def test_leaving_connect_after_a_cancelled_append_leaves_nothing_open(
    database: Database, mongo_url: str
) -> None:
    rng = random.Random(1)
    for _ in range(ROUNDS):
        async with BeanieSessionStore.connect(
            mongo_url, database=database.name, upgrade=False
        ) as store:
            await store.append(KEY, turn(0))
            append = asyncio.create_task(store.append(KEY, turn(1)))
            await asyncio.sleep(rng.uniform(0, 0.004))
            append.cancel()
        assert open_transactions(mongo_url) == 0


async def test_leaving_connect_waits_for_appends_that_nobody_awaits(
    database: Database, mongo_url: str
) -> None:
    async with BeanieSessionStore.connect(
        mongo_url, database=database.name, upgrade=False
    ) as store:
        await store.append(KEY, turn(0))
        appends = [asyncio.create_task(store.append(KEY, turn(n))) for n in range(1, 9)]
        await asyncio.sleep(0)
    await asyncio.gather(*appends)
    async with BeanieSessionStore.connect(
        mongo_url, database=database.name, upgrade=False
    ) as store:
        assert len(await store.load(KEY) or []) == 9 * 6


async def test_leaving_connect_in_a_cancelled_scope_leaves_nothing_open(
    database: Database, mongo_url: str
) -> None:
    """A scope cancels whatever is awaited in it, the exit of connect included."""
    import anyio

    rng = random.Random(2)
    for _ in range(ROUNDS):
        with anyio.move_on_after(0.03) as scope:
            async with BeanieSessionStore.connect(
                mongo_url, database=database.name, upgrade=False
            ) as store:
                scope.deadline = anyio.current_time() + rng.uniform(0, 0.02)
                while True:
                    await store.append(KEY, turn(1))
        # What goes on in the background is waited for by whoever still runs the loop.
        assert await settled() == []
        assert open_transactions(mongo_url) == 0


async def test_settled_before_closing_ones_own_client_leaves_nothing_open(
    database: Database, mongo_url: str
) -> None:
    rng = random.Random(3)
    for number in range(ROUNDS):
        async with connected(mongo_url) as client:
            store = BeanieSessionStore.on(client[database.name])
            await store.append(KEY, turn(number))
            append = asyncio.create_task(store.append(KEY, turn(1)))
            await asyncio.sleep(rng.uniform(0, 0.004))
            append.cancel()
            assert await settled() == []
        assert open_transactions(mongo_url) == 0


async def test_settled_says_what_is_still_under_way(
    store: BeanieSessionStore, database: Database
) -> None:
    await store.append(KEY, turn(0))
    session: Any = database.client.start_session()
    session = session if hasattr(session, "start_transaction") else await session
    async with session:
        begun = session.start_transaction()
        if begun is not None and hasattr(begun, "__await__"):
            await begun
        await database["claude_transcript_summaries"].update_one(
            {"session_id": "session"}, {"$set": {"tag": "theirs"}}, session=session
        )
        append = asyncio.create_task(store.append(KEY, turn(1)))
        await asyncio.sleep(0.1)
        append.cancel()
        began = time.monotonic()
        (left,) = await settled(0.3)
        assert 0.3 <= time.monotonic() - began < 20
        assert left.startswith("append to session session of ")
        assert len(await settled(0)) == 1
        await session.abort_transaction()
    assert await settled() == []
    assert len(await store.load(KEY) or []) == 12
    assert await settled(0) == []


@pytest.mark.parametrize("timeout", [-1, float("nan"), "1", None, True])
async def test_a_timeout_that_is_none_is_refused(timeout: Any) -> None:
    with pytest.raises(ValueError, match="timeout must be a number of seconds"):
        await settled(timeout)


async def test_what_does_not_end_in_time_is_rolled_back(
    database: Database, mongo_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here the server holds the write back; a close without more would leave it open."""
    monkeypatch.setattr(cancellation.ended, "__defaults__", (0.2,))
    store = BeanieSessionStore()
    await store.append(KEY, turn(0))
    block = {"blockConnection": True, "blockTimeMS": 1500}
    async with open_database(mongo_url, database.name) as theirs:
        other = BeanieSessionStore.on(theirs)
        await other.append(KEY, turn(1))
        async with failing(database, "commitTransaction", **block) as met:
            append = asyncio.create_task(other.append(KEY, turn(2)))
            await met(1)
            append.cancel()
            began = time.monotonic()
    assert time.monotonic() - began < 20
    # While it is held back it is not idle, and not counted.
    await asyncio.sleep(1.5)
    # Long before the server would end one that was left open.
    ended = time.monotonic() + 30
    while open_transactions(mongo_url) and time.monotonic() < ended:  # noqa: ASYNC110
        await asyncio.sleep(0.1)
    assert open_transactions(mongo_url) == 0
    await store.append(KEY, turn(3))
    assert len(await store.load(KEY) or []) in (18, 24)


async def test_two_that_close_at_once_do_not_wait_for_each_other(
    database: Database, mongo_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def one() -> None:
        async with open_database(mongo_url, database.name) as opened:
            await opened.command("ping")

    monkeypatch.setattr(cancellation.ended, "__defaults__", (2 * WATCHDOG_SECONDS,))
    await asyncio.wait_for(asyncio.gather(*(one() for _ in range(5))), WATCHDOG_SECONDS)


@pytest.mark.parametrize("again", [False, True], ids=["once", "twice"])
@pytest.mark.parametrize(
    "seconds",
    [0.1, 0.107, *(pytest.param(seconds, marks=pytest.mark.soak) for seconds in (0.103, 0.115))],
)
async def test_a_script_that_is_interrupted_leaves_nothing_open(
    database: Database, mongo_url: str, seconds: float, again: bool
) -> None:
    process = await asyncio.create_subprocess_exec(
        *(PREPARED, "-c", SCRIPT, mongo_url, database.name),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    await process.stdout.readline()
    await until_written(database)
    await asyncio.sleep(seconds)
    process.send_signal(signal.SIGINT)
    ends = asyncio.create_task(process.communicate())
    if again:
        await asyncio.sleep(0.001)
        # A second one hits Python's own event loop anywhere, which may then wait for what has
        # happened already, until the next.
        while not ends.done():
            process.send_signal(signal.SIGINT)
            await asyncio.wait([ends], timeout=15)
    _, errors = await ends
    assert b"KeyboardInterrupt" in errors
    await assert_whole(mongo_url, database.name, was_killed=again)


async def test_a_script_that_is_terminated_blocks_its_sessions_for_seconds(
    database: Database, mongo_url: str
) -> None:
    """Python ends at once on SIGTERM, so it is one more dead writer."""
    process = await asyncio.create_subprocess_exec(
        *(PREPARED, "-c", SCRIPT, mongo_url, database.name), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    await process.stdout.readline()
    await asyncio.sleep(0.2)
    process.terminate()
    assert await process.wait() == -signal.SIGTERM
    store = BeanieSessionStore()
    began = time.monotonic()
    await asyncio.gather(
        *(store.append({**KEY, "session_id": f"session-{n}"}, turn(n)) for n in range(4))
    )
    assert time.monotonic() - began < 30


@pytest.mark.skipif(IS_MOTOR, reason="the documented application is of Beanie 2")
@pytest.mark.parametrize(
    ("sent", "seconds"),
    [
        (signal.SIGINT, 0.1),
        (signal.SIGTERM, 0.107),
        pytest.param(signal.SIGINT, 0.107, marks=pytest.mark.soak),
        pytest.param(signal.SIGTERM, 0.1, marks=pytest.mark.soak),
    ],
)
async def test_the_documented_service_that_is_stopped_leaves_nothing_open(
    mongo_url: str,
    database_name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sent: signal.Signals,
    seconds: float,
) -> None:
    (block,) = re.findall(r"```python\n(.*?FastAPI.*?)```", DOCUMENT.read_text(), re.DOTALL)[:1]
    assert "settled()" in block
    block = block.replace('client["app"]', f'client["{database_name}"]')
    (tmp_path / "block.py").write_text(block.replace('"/srv"', f'"{tmp_path}"'))
    monkeypatch.setenv("MONGODB_URL", mongo_url)
    process = await asyncio.create_subprocess_exec(
        *(PREPARED, "-c", SERVICE),
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    port = int(await asyncio.wait_for(process.stdout.readline(), WATCHDOG_SECONDS))
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /write HTTP/1.1\r\nHost: x\r\n\r\n")
    async with connected(mongo_url) as client:
        await until_written(client[database_name])
    await asyncio.sleep(seconds)
    process.send_signal(sent)
    _, errors = await asyncio.wait_for(process.communicate(), WATCHDOG_SECONDS)
    writer.close()
    # Its own timeout cancels the request, in the middle of four appends.
    assert b"graceful shutdown exceeded" in errors, errors
    await assert_whole(mongo_url, database_name)


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_a_command_that_is_stopped_leaves_nothing_open(
    database: Database, mongo_url: str, tmp_path: Path, sent: signal.Signals, code: int
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    for session in range(24):
        entry = {"type": "user", "sessionId": str(session), "text": "x" * 700}
        # Large enough that they are not stored several at once.
        lines = [json.dumps({**entry, "uuid": f"{session}-{n}"}) for n in range(100)]
        (project / f"{session:08}-0000-4000-8000-000000000000.jsonl").write_text("\n".join(lines))
    command = SessionStoreCommand(mongo_url, database.name)
    # So it is not done before it is stopped.
    async with failing(database, "insert", {"times": 1000}, blockConnection=True, blockTimeMS=1000):
        process = await command.started("import", tmp_path)
        await until_written(database)
        process.send_signal(sent)
        _, errors = await asyncio.wait_for(process.communicate(), WATCHDOG_SECONDS)
    assert process.returncode == code, errors
    assert b"Traceback" not in errors
    assert open_transactions(mongo_url) == 0
    finished = await command("import", tmp_path)
    assert finished.code == 0, finished.errors[-1500:]
    assert await database["claude_transcript_entries"].count_documents({}) == 2400


async def test_closing_after_all_is_over_takes_no_time(mongo_url: str) -> None:
    async with connected(mongo_url) as client:
        assert await asyncio.wait_for(settled(2 * WATCHDOG_SECONDS), WATCHDOG_SECONDS) == []
        await asyncio.wait_for(close_client(client), WATCHDOG_SECONDS)
