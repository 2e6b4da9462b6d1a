"""One store through which very many sessions pass, as in a server that runs for months."""

from __future__ import annotations

import asyncio
import gc
import os
import time
from pathlib import Path
from typing import Any

import pytest
from support.entries import turn

from beanie_session_store import BeanieSessionStore
from beanie_session_store.app.database.driver import Database

SESSIONS = int(os.environ.get("SOAK_SESSIONS", "5000"))
AT_ONCE = 8
# What a store remembers of its sessions, filled to the limit.
WARM_UP = 4000


@pytest.mark.soak
@pytest.mark.timeout(SESSIONS / 10 + 600)
async def test_a_store_stays_as_small_as_it_is_however_many_sessions_pass(
    store: BeanieSessionStore, database: Database
) -> None:
    batch = turn(1)

    async def pass_through(first: int, last: int) -> None:
        async def some(start: int) -> None:
            for number in range(start, last, AT_ONCE):
                key: Any = {"project_key": f"project-{number % 500}", "session_id": f"s-{number}"}
                await store.append(key, batch)
                if number % 50 == 0:
                    await store.append(key, batch)
                    assert len(await store.load(key) or []) == len(batch)
                    assert len(await store.list_subkeys(key)) == 0
                if number % 500 == 7:
                    await store.delete(key)

        await asyncio.gather(*(some(first + task) for task in range(AT_ONCE)))

    began = time.monotonic()
    warm_up = min(WARM_UP, SESSIONS // 2)
    await pass_through(0, warm_up)
    before, server_before = resident_bytes(), await server_status(database)
    await pass_through(warm_up, SESSIONS)
    after, server_after = resident_bytes(), await server_status(database)
    print(
        f"{SESSIONS} sessions in {time.monotonic() - began:.0f} s; resident "
        f"{before / 2**20:.0f} MiB after {warm_up}, {after / 2**20:.0f} MiB at the end; "
        f"connections {server_before['connections']['current']}, then "
        f"{server_after['connections']['current']}"
    )
    assert after - before < 32 * 2**20
    assert len(store._writer._states) <= 1024
    assert not store._turns._waiting
    connections = server_after["connections"]["current"] - server_before["connections"]["current"]
    assert connections <= AT_ONCE
    assert server_after["metrics"]["cursor"]["open"]["total"] == 0
    assert server_after["transactions"]["currentOpen"] == 0
    deleted = len(range(7, SESSIONS, 500))
    count = await database["claude_transcript_summaries"].count_documents({})
    assert count == SESSIONS - deleted


def resident_bytes() -> int:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def server_status(database: Database) -> dict[str, Any]:
    return await database.client.admin.command("serverStatus")
