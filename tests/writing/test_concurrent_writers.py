"""Many writers of one session: nothing lost, nothing twice, one order."""

from __future__ import annotations

import asyncio
import json
import subprocess
from itertools import pairwise
from typing import Any

import pytest
from support.entries import KEY, SUBAGENT, assert_summary_is_the_fold, message, seqs, turn
from support.processes import PREPARED
from support.watchdog import WATCHDOG_SECONDS

from beanie_session_store import BeanieSessionStore, TranscriptEntry
from beanie_session_store.app.database.driver import Database

ENTRIES_PER_PROCESS = 2000

WRITER = """
import asyncio, json, random, sys
from beanie_session_store import BeanieSessionStore

KEY = {"project_key": "project", "session_id": "session"}

async def main(url, database, name, count):
    async with BeanieSessionStore.connect(url, database=database) as store:
        print("ready", flush=True)
        sys.stdin.readline()
        for start in range(0, count, 20):
            batch = [
                {"type": "user", "writer": name, "n": n, "customTitle": f"{name} {n}"}
                | ({"uuid": f"{name}-{n}"} if n % 2 else {})
                for n in range(start, start + 20)
            ]
            subpath = {"subpath": "subagents/agent-a1"} if start % 100 == 80 else {}
            await store.append({**KEY, **subpath}, batch)
            await asyncio.sleep(random.uniform(0, 0.01))

asyncio.run(main(*sys.argv[1:4], int(sys.argv[4])))
"""


async def test_two_processes_append_to_one_session_at_once(
    mongo_url: str, database_name: str, database: Database, store: BeanieSessionStore
) -> None:
    writers = [
        await asyncio.create_subprocess_exec(
            *(PREPARED, "-c", WRITER, mongo_url, database_name),
            *(name, str(ENTRIES_PER_PROCESS)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for name in ("one", "two")
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert await writer.stdout.readline() == b"ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write(b"go\n")
    for writer in writers:
        await writer.communicate()
        assert writer.returncode == 0

    assert await seqs() == list(range(1, 2 * ENTRIES_PER_PROCESS + 1))
    stored = [entry.content for entry in await TranscriptEntry.find_all().sort("seq").to_list()]
    for name in ("one", "two"):
        of_writer = [entry["n"] for entry in stored if entry["writer"] == name]
        assert of_writer == list(range(ENTRIES_PER_PROCESS))
    switches = sum(a["writer"] != b["writer"] for a, b in pairwise(stored))
    assert switches > 1, "the two never wrote at the same time, so nothing was proved"
    main = await store.load(KEY) or []
    sub = await store.load(SUBAGENT) or []
    assert len(main) + len(sub) == 2 * ENTRIES_PER_PROCESS
    assert [json.dumps(e) for e in stored if e in sub] == [json.dumps(e) for e in sub]
    await assert_summary_is_the_fold(store)


async def test_calls_of_one_store_are_stored_in_their_order(store: BeanieSessionStore) -> None:
    batches = [turn(number) for number in range(50)]
    await asyncio.gather(*(store.append(KEY, batch) for batch in batches))
    assert await store.load(KEY) == [entry for batch in batches for entry in batch]
    await assert_summary_is_the_fold(store)


async def test_two_creators_of_one_session_make_one(database: Database) -> None:
    for number in range(20):
        key = {"project_key": "project", "session_id": f"session-{number}"}
        stores = [BeanieSessionStore() for _ in range(4)]
        batches = [turn(n) for n in range(4)]
        await asyncio.gather(
            *(store.append(key, batch) for store, batch in zip(stores, batches, strict=True))
        )
        assert await seqs(key) == list(range(1, 25))
        await assert_summary_is_the_fold(stores[0], key)


async def test_one_batch_sent_by_many_at_once_is_stored_once(database: Database) -> None:
    stores = [BeanieSessionStore() for _ in range(8)]
    first, second = turn(1), turn(2)
    for batch in (first, second):
        await asyncio.gather(*(store.append(KEY, batch) for store in stores))
    assert await stores[0].load(KEY) == first + second


async def test_a_session_deleted_elsewhere_starts_afresh(database: Database) -> None:
    """Its counter starts again, so what the other store remembers must not match by chance."""
    one, two = BeanieSessionStore(), BeanieSessionStore()
    await one.append(KEY, turn(1))
    await two.delete(KEY)
    await two.append(KEY, turn(2))
    third = turn(3)
    await one.append(KEY, third)
    loaded = await two.load(KEY) or []
    assert len(loaded) == 12
    assert loaded[6:] == third
    await assert_summary_is_the_fold(one)


async def test_deletes_and_appends_at_once_leave_whole_batches(database: Database) -> None:
    writer, deleter, reader = (BeanieSessionStore() for _ in range(3))
    batches = [turn(number) for number in range(60)]
    done = False

    async def write() -> None:
        nonlocal done
        for batch in batches:
            await writer.append(KEY, batch)
        done = True

    async def delete() -> None:
        while not done:
            await deleter.delete(KEY)
            await asyncio.sleep(0.02)

    seen: list[list[Any]] = []

    async def read() -> None:
        while not done:
            seen.append(await reader.load(KEY) or [])

    await asyncio.gather(write(), delete(), read())
    seen.append(await reader.load(KEY) or [])
    starts = {batch[1]["uuid"]: index for index, batch in enumerate(batches)}
    for loaded in seen:
        numbers = [starts[loaded[at + 1]["uuid"]] for at in range(0, len(loaded), 6)]
        assert numbers == list(range(numbers[0], numbers[-1] + 1)) if numbers else True
        assert loaded == [entry for number in numbers for entry in batches[number]]
    assert len({len(loaded) for loaded in seen}) > 2, "nothing was deleted between appends"


@pytest.mark.parametrize("seconds", [0.0, 0.004, 0.02])
async def test_a_cancelled_append_is_stored_whole_or_not_at_all(
    store: BeanieSessionStore, seconds: float
) -> None:
    first, second, third = turn(1), turn(2), turn(3)
    await store.append(KEY, first)
    attempt = asyncio.create_task(store.append(KEY, second))
    await asyncio.sleep(seconds)
    attempt.cancel()
    await asyncio.gather(attempt, return_exceptions=True)
    await asyncio.wait_for(store.append(KEY, third), timeout=WATCHDOG_SECONDS)
    assert await store.load(KEY) in (first + third, first + second + third)
    await assert_summary_is_the_fold(store)


async def test_a_delete_is_not_overtaken_by_the_append_before_it(
    store: BeanieSessionStore,
) -> None:
    await store.append(KEY, turn(1))
    attempt = asyncio.create_task(store.append(KEY, turn(2)))
    await asyncio.sleep(0.001)
    attempt.cancel()
    await store.delete(KEY)
    await asyncio.sleep(0.2)
    assert await store.load(KEY) is None


async def test_an_append_cancelled_over_and_over_still_lets_go(
    store: BeanieSessionStore, database: Database
) -> None:
    """A cancel scope does not cancel once: it cancels whatever the task awaits next, too."""
    import anyio

    await store.append(KEY, turn(0))
    for number in range(1, 15):
        with anyio.move_on_after(0.001 * (number % 5)):
            await store.append(KEY, turn(number))
    other = [message("other")]
    await asyncio.wait_for(BeanieSessionStore().append(KEY, other), timeout=WATCHDOG_SECONDS)
    # Waits for those of its own store that are still under way.
    last = [message("last")]
    await asyncio.wait_for(store.append(KEY, last), timeout=WATCHDOG_SECONDS)
    loaded = await store.load(KEY) or []
    assert loaded[-1:] == last
    assert len(loaded) % 6 == 2
    await assert_summary_is_the_fold(store)
