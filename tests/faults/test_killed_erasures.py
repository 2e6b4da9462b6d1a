"""An erasure killed at any step is finished by the next one, whoever writes to it meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import bson
import pytest
from faults.crash import CrashPoint
from faults.processes import forking
from faults.worker import take_small_steps
from pymongo import MongoClient, monitoring
from support.entries import message

from beanie_session_store import (
    BeanieSessionStore,
    ErasureReceipt,
    SessionErasedError,
    SessionStoreError,
)
from beanie_session_store.app.database.driver import Database

pytestmark = pytest.mark.faults

MINE = {"user_id": "u1"}
CANARY = "canary-7f3a"
NAMES = ("small-1", "small-2", "large")

STEPS = [
    *((f"{when} insert erasure", 1) for when in ("before", "after")),
    *((f"{when} put tombstone", nth) for when in ("before", "after") for nth in (1, 2, 3)),
    *((f"{when} count erased", nth) for when in ("before", "after") for nth in (1, 3, 4)),
    *((f"{when} delete entries", nth) for when in ("before", "after") for nth in (1, 3, 4)),
    *((f"{when} commit", nth) for when in ("before", "after") for nth in (1, 2, 3, 4)),
]


@pytest.fixture(autouse=True, scope="module")
def short_transactions(mongo_url: str) -> Iterator[None]:
    """MongoDB ends the transaction of a dead client after this time, a minute by default."""
    with MongoClient[dict[str, Any]](mongo_url) as client:
        client.admin.command("setParameter", 1, transactionLifetimeLimitSeconds=2)
        yield
        client.admin.command("setParameter", 1, transactionLifetimeLimitSeconds=60)


def key(session: str) -> dict[str, str]:
    return {"project_key": "project", "session_id": session}


def die(url: str, database: str, point: str, nth: int) -> None:
    """Begin the erasure, and die at one of its steps."""

    async def erase() -> None:
        async with BeanieSessionStore.connect(url, database=database, upgrade=False) as store:
            await store.erase(metadata=MINE, by="first")

    take_small_steps()
    monitoring.register(CrashPoint(point, nth))
    asyncio.run(erase())


def write_on(url: str, database: str, ready: str) -> None:
    """Append to the sessions, from states that this process remembers, until all are erased."""

    async def write() -> int:
        async with BeanieSessionStore.connect(
            url, database=database, upgrade=False, metadata=MINE
        ) as store:
            erased: set[str] = set()
            for number in count():
                for name in NAMES:
                    try:
                        await store.append(key(name), [message(f"{CANARY} more {number}")])
                        assert name not in erased, "it came back"
                    except SessionErasedError:
                        erased.add(name)
                    except SessionStoreError:
                        # A dead eraser's transaction is in its way.
                        continue
                if number == 0:
                    Path(ready).touch()
                if len(erased) == len(NAMES) and number > 50:
                    return 0
                await asyncio.sleep(0.01)
        return 1

    take_small_steps()
    raise SystemExit(asyncio.run(write()))


async def fill() -> int:
    """Store the sessions, and return how many entries."""
    mine = BeanieSessionStore(metadata={**MINE, "name": CANARY})
    for name in NAMES[:2]:
        await mine.append(key(name), [message(CANARY), message(CANARY)])
    await mine.append(key("large"), [message(CANARY) for _ in range(70)])
    await BeanieSessionStore(tenant="acme", metadata=MINE).append(key("large"), [message("a")])
    return 74


async def remaining(database: Database) -> dict[str, int]:
    """Documents of the tenant by collection, but for tombstones; none may hold the canary."""
    found: dict[str, int] = {}
    for name in await database.list_collection_names():
        async for row in database[name].find():
            assert CANARY.encode() not in bson.encode(row)
            is_theirs = row.get("tenant") == "default" and "session_id" in row
            if is_theirs and "erased_until" not in row:
                found[name] = found.get(name, 0) + 1
    return found


async def erased_at_last(store: BeanieSessionStore) -> ErasureReceipt:
    """The receipt of the call that nothing is in the way of any more."""
    for _ in range(50):
        # A dead eraser's transaction may be in its way.
        with contextlib.suppress(SessionStoreError):
            receipt = await store.erase(metadata=MINE, by="second")
            if not receipt.failed:
                return receipt
    pytest.fail("it never came to its end")


@pytest.mark.parametrize(("point", "nth"), STEPS)
async def test_the_next_call_finishes_it_with_a_receipt_of_both(
    store: BeanieSessionStore, database: Database, mongo_url: str, point: str, nth: int
) -> None:
    take = await fill()
    job = (mongo_url, database.name, point, nth)
    process = forking().Process(target=die, args=job)
    process.start()
    await asyncio.to_thread(process.join)
    assert process.exitcode == -signal.SIGKILL, "it never came to that point"
    receipt = await erased_at_last(store)
    assert receipt.is_whole
    assert [each["session_id"] for each in receipt.sessions] == sorted(NAMES)
    assert receipt.counts == {
        "sessions": 3,
        "entries": take,
        "chunks": 0,
        "adoption_records": 0,
    }
    assert await remaining(database) == {}
    assert (await store.verify_erasure(receipt)).holds
    assert len(await BeanieSessionStore(tenant="acme").load(key("large")) or []) == 1


@pytest.mark.parametrize("point", ["before commit", "after commit", "after delete entries"])
async def test_a_writer_that_runs_through_a_killed_erasure_stays_erased(
    store: BeanieSessionStore, database: Database, mongo_url: str, tmp_path: Path, point: str
) -> None:
    await fill()
    ready = tmp_path / "ready"
    writer = forking().Process(target=write_on, args=(mongo_url, database.name, str(ready)))
    writer.start()
    while not ready.exists():
        assert writer.is_alive()
        await asyncio.sleep(0.02)
    eraser = forking().Process(target=die, args=(mongo_url, database.name, point, 2))
    eraser.start()
    await asyncio.to_thread(eraser.join)
    assert eraser.exitcode == -signal.SIGKILL
    receipt = await erased_at_last(store)
    await asyncio.to_thread(writer.join)
    assert writer.exitcode == 0
    assert await remaining(database) == {}
    assert receipt.counts
    assert (receipt.counts["sessions"], receipt.counts["entries"] >= 74) == (3, True)
    check = await store.verify_erasure(receipt)
    assert (check.holds, check.since) == (True, ())
