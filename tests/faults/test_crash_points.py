"""A writer killed at any step leaves its batch whole or nothing of it, and nothing in the way."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from faults.crash import POINTS, CrashPoint
from faults.processes import forking
from faults.stored import check_documents
from faults.worker import take_small_steps
from pymongo import MongoClient, monitoring
from support.entries import KEY, SUBAGENT, assert_summary_is_the_fold, message, seqs, turn

from beanie_session_store import BeanieSessionStore, SessionStoreError, sweep_sessions
from beanie_session_store.app.database.driver import Database
from beanie_session_store.app.queries import search
from beanie_session_store.app.reading import load
from beanie_session_store.app.storage.background import gone_on
from beanie_session_store.app.writing import deletion

pytestmark = pytest.mark.faults

OTHER = {**KEY, "session_id": "other"}
DELETES = ("delete entries", "delete summary", "delete chunks")


@pytest.fixture(autouse=True, scope="module")
def short_transactions(mongo_url: str) -> Iterator[None]:
    """MongoDB ends the transaction of a dead client after this time, a minute by default."""
    with MongoClient[dict[str, Any]](mongo_url) as client:
        client.admin.command("setParameter", 1, transactionLifetimeLimitSeconds=2)
        yield
        client.admin.command("setParameter", 1, transactionLifetimeLimitSeconds=60)


def die(url: str, database: str, point: str, sent: list[dict[str, Any]]) -> None:
    """Begin the write that passes the point, and die there."""

    async def write() -> None:
        async with BeanieSessionStore.connect(url, database=database, upgrade=False) as store:
            monitored = point.split(" ", 1)[1]
            if monitored in DELETES:
                await store.delete(KEY)
            else:
                await store.append(OTHER if monitored == "create session" else KEY, sent)
                await gone_on()

    monitoring.register(CrashPoint(point, 1))
    asyncio.run(write())


@pytest.mark.parametrize("point", POINTS)
async def test_a_killed_writer_leaves_all_or_nothing(
    store: BeanieSessionStore, database: Database, mongo_url: str, point: str
) -> None:
    first, sent, third = turn(1), turn(2), turn(3)
    key = OTHER if point.endswith("create session") else KEY
    before = [] if key == OTHER else first
    await store.append(KEY, first)
    # The next append gives the session a date.
    policy = {"tenant": "*", "project_key": "*", "keep_seconds": 3600}
    await database["claude_retention_policies"].insert_one(policy)
    process = forking().Process(target=die, args=(mongo_url, database.name, point, sent))
    process.start()
    await asyncio.to_thread(process.join)
    assert process.exitcode == -signal.SIGKILL, "it never came to that point"
    # Every other point comes before the commit is sent.
    is_late = point == "after commit" or point.endswith(("move entries", "move chunks"))
    stored = before + sent if is_late else before
    assert (await store.load(key) or []) == stored
    await append(key, third)
    assert (await store.load(key) or []) == stored + third
    assert await seqs(key) == list(range(1, len(stored + third) + 1))
    await assert_summary_is_the_fold(store, key)
    await sweep_sessions(database)
    assert check_documents(mongo_url, database.name, is_swept=True) == []
    found = database["claude_transcript_entries"].find({"session_id": key["session_id"]})
    assert len({row.get("expires_at") for row in await found.to_list(None)}) == 1


STEPS = [
    *(("delete", point, nth) for point in ("before update", "after update") for nth in (1,)),
    *(("delete", f"{when} commit", 1) for when in ("before", "after")),
    *(("delete", f"{when} delete entries", nth) for when in ("before", "after") for nth in (1, 3)),
    *(("delete", f"{when} delete summary", 1) for when in ("before", "after")),
    *(("delete", f"{when} delete chunks", 1) for when in ("before", "after")),
    *(("hold", f"{when} update", nth) for when in ("before", "after") for nth in (1, 3)),
    *(("hold", f"{when} move entries", nth) for when in ("before", "after") for nth in (1, 4)),
    *(("hold", f"{when} move chunks", nth) for when in ("before", "after") for nth in (1, 4)),
    *(("hold", f"{when} commit", nth) for when in ("before", "after") for nth in (1, 4)),
    *(("subagent", f"{when} update", nth) for when in ("before", "after") for nth in (1, 2)),
    *(("subagent", f"{when} commit", 1) for when in ("before", "after")),
    *(
        ("subagent", f"{when} delete entries", nth)
        for when in ("before", "after")
        for nth in (1, 2)
    ),
]


def die_in_steps(url: str, database: str, what: str, point: str, nth: int) -> None:
    """Do to a large session what takes many steps, and die at one of them."""

    async def change() -> None:
        async with BeanieSessionStore.connect(url, database=database, upgrade=False) as store:
            if what == "hold":
                await store.hold(KEY, wait=True)
            else:
                await store.delete(KEY if what == "delete" else SUBAGENT, wait=True)
                await gone_on()

    take_small_steps()
    monitoring.register(CrashPoint(point, nth))
    asyncio.run(change())


@pytest.mark.parametrize(("what", "point", "nth"), STEPS)
async def test_a_large_session_is_there_whole_or_gone_and_others_finish(
    store: BeanieSessionStore,
    database: Database,
    mongo_url: str,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
    point: str,
    nth: int,
) -> None:
    for module in (deletion, load, search):
        monkeypatch.setattr(module, "MARKED", 20)
    policy = {"tenant": "*", "project_key": "*", "keep_seconds": 36_000}
    await database["claude_retention_policies"].insert_one(policy)
    main, sub = [message(f"m{n}") for n in range(60)], [message(f"s{n}") for n in range(45)]
    await store.append(KEY, main[:30])
    await store.append(SUBAGENT, sub)
    await store.append(KEY, main[30:])
    job = (mongo_url, database.name, what, point, nth)
    process = forking().Process(target=die_in_steps, args=job)
    process.start()
    await asyncio.to_thread(process.join)
    assert process.exitcode == -signal.SIGKILL, "it never came to that point"
    reader_store = BeanieSessionStore()
    loaded = (await reader_store.load(KEY), await reader_store.load(SUBAGENT))
    gone = {"hold": (main, sub), "subagent": (main, None), "delete": (None, None)}
    assert loaded in ((main, sub), gone[what])
    assert check_documents(mongo_url, database.name) == []
    fresh = [sub[0], message("new"), *turn(5)]
    expected = (loaded[1] or []) + (fresh if loaded[1] is None else fresh[1:])
    await append(SUBAGENT, fresh)
    assert await BeanieSessionStore().load(SUBAGENT) == expected
    assert await BeanieSessionStore().load(KEY) == loaded[0]
    await sweep_sessions(database)
    assert check_documents(mongo_url, database.name, is_swept=True) == []
    assert await store.load(SUBAGENT) == expected
    assert await store.load(KEY) == loaded[0]
    if loaded[0]:
        await assert_summary_is_the_fold(store, KEY)
    assert (await store.verify(KEY)).is_sound


async def append(key: dict[str, str], batch: list[dict[str, Any]]) -> None:
    """As the SDK does: a batch that failed is sent again."""
    while True:
        try:
            return await BeanieSessionStore().append(key, batch)
        except SessionStoreError:
            continue
