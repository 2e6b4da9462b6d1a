"""Leases among processes: one holder at any time, also where holders die or stand still."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from support.entries import KEY, assert_summary_is_the_fold, seqs
from support.processes import PREPARED
from support.server import of_one_to_kill
from support.watchdog import WATCHDOG_SECONDS

from beanie_session_store import BeanieSessionStore
from beanie_session_store.app.database.driver import Database

WAIT = timedelta(seconds=WATCHDOG_SECONDS)
# After the end of the lease of a holder that is gone, whoever waits for it has it by then.
TAKEOVER = timedelta(seconds=2)
# For so long a transaction has to stand still to be ended by others.
STILL = timedelta(seconds=10)

# Takes the lease again and again, and records from when to when it had it by the server's clock.
# One that is to die does so as soon as it has it.
RIVAL = """
import asyncio, json, os, signal, sys
from datetime import timedelta
from beanie_session_store import BeanieSessionStore
from beanie_session_store.app.database.driver import close_client, open_client

async def main(url, database, name, rounds, dies, key):
    # Who lives must not lose it to a busy machine; who dies is waited for.
    ttl = timedelta(seconds=2 if dies == "dies" else 600)
    client = open_client(url)
    records = client[database]["records"]
    async with BeanieSessionStore.connect(url, database=database, upgrade=False) as store:
        for number in range(int(rounds)):
            async with store.lease(
                json.loads(key), owner=name, ttl=ttl, wait=timedelta(minutes=10)
            ) as leased:
                record = {"_id": f"{name}-{number}"}
                begin = {"$set": {"begin": leased.lease.since, "end": leased.until}}
                await records.update_one(record, begin, upsert=True)
                if dies == "dies":
                    os.kill(os.getpid(), signal.SIGKILL)
                batch = [{"type": "mode", "mode": name, "number": number}]
                await leased.append(json.loads(key), batch)
                await records.update_one(record, [{"$set": {"end": "$$NOW"}}])
    await close_client(client)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("rivals", "dying", "rounds"), [(8, 1, 1), pytest.param(20, 3, 20, marks=pytest.mark.soak)]
)
async def test_of_many_processes_that_want_a_lease_one_has_it_at_any_time(
    store: BeanieSessionStore,
    database: Database,
    mongo_url: str,
    rivals: int,
    dying: int,
    rounds: int,
) -> None:
    started = [
        await asyncio.create_subprocess_exec(
            *(PREPARED, "-c", RIVAL),
            *(of_one_to_kill(mongo_url) if number < dying else mongo_url, database.name),
            *(f"rival-{number}", str(rounds)),
            *("dies" if number < dying else "lives", json.dumps(KEY)),
        )
        for number in range(rivals)
    ]
    try:
        ends = asyncio.gather(*(process.wait() for process in started))
        codes = await asyncio.wait_for(ends, WATCHDOG_SECONDS)
    finally:
        for process in started:
            if process.returncode is None:
                process.kill()
                await process.wait()
    assert codes == [-signal.SIGKILL] * dying + [0] * (rivals - dying)
    held = await database["records"].find().sort("begin", 1).to_list(None)
    assert len(held) == dying + (rivals - dying) * rounds
    overlaps = [
        (one["_id"], after["_id"]) for one, after in pairwise(held) if one["end"] > after["begin"]
    ]
    assert overlaps == []
    # The records are in the order of the session.
    entries = await store.load(KEY)
    assert entries is not None
    written = [f"{entry['mode']}-{entry['number']}" for entry in entries]
    dead = {f"rival-{number}-0" for number in range(dying)}
    assert written == [each["_id"] for each in held if each["_id"] not in dead]
    await assert_summary_is_the_fold(store)
    # Who died last has it until it ends by itself.
    last = await store.lease_of(KEY)
    assert last is None or last.owner in {f"rival-{number}" for number in range(dying)}


# Takes the lease, says so, appends what comes by a line, and says what became of it. With a
# command, it stands still before that one of the second append, in its transaction.
HOLDER = """
import asyncio, json, os, signal, sys
from datetime import timedelta
from pymongo import monitoring
from beanie_session_store import BeanieSessionStore, LeaseLostError

class Still(monitoring.CommandListener):
    armed = False
    def started(self, event):
        if self.armed and event.command_name == sys.argv[4]:
            self.armed = False
            print(json.dumps("still"), flush=True)
            # All of it, for Motor sends from a thread.
            os.kill(os.getpid(), signal.SIGSTOP)
    def succeeded(self, event): pass
    def failed(self, event): pass

still = Still()
monitoring.register(still)

async def main(url, database, seconds, command, key):
    key, told = json.loads(key), []
    async with BeanieSessionStore.connect(url, database=database, upgrade=False) as store:
        async with store.lease(
            key,
            owner="frozen",
            ttl=timedelta(seconds=int(seconds)),
            on_lost=lambda: told.append("lost"),
        ) as leased:
            await leased.append(key, [{"type": "mode", "mode": "before"}])
            print(json.dumps("held"), flush=True)
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(None, sys.stdin.readline)
            still.armed = bool(command)
            outcomes = []
            for number in range(3):
                try:
                    await leased.append(key, [{"type": "mode", "mode": f"after {number}"}])
                    outcomes.append("stored")
                except LeaseLostError:
                    outcomes.append("lost")
        print(json.dumps([outcomes, leased.lost.is_set(), told]), flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


class Holder:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def says(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(await asyncio.wait_for(self._process.stdout.readline(), WATCHDOG_SECONDS))

    def go_on(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(b"go on\n")

    async def freeze(self) -> None:
        os.kill(self._process.pid, signal.SIGSTOP)
        await self.stopped()

    async def stopped(self) -> None:
        stat = Path(f"/proc/{self._process.pid}/stat")
        while stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "T":  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    def thaw(self) -> None:
        os.kill(self._process.pid, signal.SIGCONT)


@asynccontextmanager
async def holder(
    url: str, database: Database, *, seconds: int = 3, command: str = ""
) -> AsyncIterator[Holder]:
    process = await asyncio.create_subprocess_exec(
        *(PREPARED, "-c", HOLDER, url, database.name, str(seconds), command, json.dumps(KEY)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        holder = Holder(process)
        assert await holder.says() == "held"
        yield holder
        await process.communicate()
        assert process.returncode == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


LOST = [["lost"] * 3, True, ["lost"]]


async def modes(store: BeanieSessionStore) -> list[Any]:
    return [entry["mode"] for entry in await store.load(KEY) or ()]


async def test_a_holder_that_was_stopped_past_its_end_writes_nothing(
    store: BeanieSessionStore, database: Database, mongo_url: str
) -> None:
    async with holder(mongo_url, database) as frozen:
        await frozen.freeze()
        while await store.lease_of(KEY) is not None:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        frozen.thaw()
        frozen.go_on()
        assert await frozen.says() == LOST
    assert await modes(store) == ["before"]


async def test_a_stopped_holder_is_replaced_in_time_and_writes_nothing(
    store: BeanieSessionStore, database: Database, mongo_url: str
) -> None:
    late: list[timedelta] = []
    # How late it is on a machine that does something else is told by trying again.
    while not late or (late[-1] > TAKEOVER and len(late) < 5):
        await store.delete(KEY)
        async with holder(mongo_url, database) as frozen:
            await frozen.freeze()
            before = await store.lease_of(KEY)
            async with store.lease(KEY, owner="next", wait=WAIT) as leased:
                late.append(leased.lease.since - before.until if before else timedelta.max)
                await leased.append(KEY, [{"type": "mode", "mode": "next"}])
                frozen.thaw()
                frozen.go_on()
                assert await frozen.says() == LOST
                held = await store.lease_of(KEY)
                assert held is not None
                assert (held.owner, held.since) == ("next", leased.lease.since)
        assert await modes(store) == ["before", "next"]
    assert timedelta(0) <= late[-1] <= TAKEOVER


@pytest.mark.soak
@pytest.mark.parametrize(("command", "seconds"), [("insert", 3), ("commitTransaction", 24)])
async def test_a_holder_that_stands_still_in_an_append_writes_nothing(
    store: BeanieSessionStore, database: Database, mongo_url: str, command: str, seconds: int
) -> None:
    async with holder(mongo_url, database, seconds=seconds, command=command) as frozen:
        frozen.go_on()
        assert await frozen.says() == "still"
        await frozen.stopped()
        before = await store.lease_of(KEY)
        assert before is not None
        async with store.lease(KEY, owner="next", wait=WAIT) as leased:
            if seconds > 2 * STILL.total_seconds():
                # Its transaction was ended before its lease had.
                assert leased.lease.since - before.until < STILL
            await leased.append(KEY, [{"type": "mode", "mode": "next"}])
            frozen.thaw()
            assert await frozen.says() == LOST
    assert await modes(store) == ["before", "next"]
    assert await seqs() == [1, 2]
    await assert_summary_is_the_fold(store)
