"""Sealing and rotation beside writers, cut off again and again: nothing is lost, all is sealed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import pytest
from support.entries import turn

from beanie_session_store import BeanieSessionStore, seal_sessions, settled
from beanie_session_store.app.database.driver import Database
from beanie_session_store.app.writing import sealing as sealing_module
from beanie_session_store.encryption import LocalKeys

NewStore = Callable[..., BeanieSessionStore]
WRITERS = 8
BATCHES = 6
TIMES = 6


async def _cut_off(work: Callable[[], Coroutine[Any, Any, Any]], after: int) -> None:
    """Run work, and leave it when it has gone so many steps."""
    task = asyncio.ensure_future(work())
    for _ in range(after):
        await asyncio.sleep(0)
        if task.done():
            break
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_sealing_beside_writers_loses_nothing(
    new_store: NewStore, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealing_module, "_SEALED_AT_ONCE", 7)
    plain = BeanieSessionStore(metadata={"user_id": "u1"})
    keys = [{"project_key": "project", "session_id": f"s{n}"} for n in range(WRITERS)]
    said: dict[str, list[Any]] = {key["session_id"]: [] for key in keys}
    for number, key in enumerate(keys):
        for each in range(3):
            batch = turn(100 * number + each)
            said[key["session_id"]] += batch
            await plain.append(key, batch)
    chance = random.Random(3)

    async def write(number: int) -> None:
        store = new_store()
        key = keys[number]
        for count in range(BATCHES):
            batch = turn(1000 * (number + 1) + count)
            said[key["session_id"]] += batch
            await store.append(key, batch)

    async def seal() -> None:
        for _ in range(TIMES):
            await _cut_off(lambda: seal_sessions(new_store()), chance.randrange(1, 400))

    await asyncio.gather(seal(), *map(write, range(WRITERS)))
    await settled()
    report = await seal_sessions(new_store())
    assert report.failed == 0
    strict = new_store(required=True)
    for key in keys:
        assert await strict.load(key) == said[key["session_id"]]
        assert (await strict.verify(key)).is_sound


async def test_rotation_beside_writers_loses_nothing(
    new_store: NewStore, database: Database, keys: LocalKeys
) -> None:
    said: dict[str, list[Any]] = {}
    chance = random.Random(4)

    async def write(number: int) -> None:
        for count in range(BATCHES):
            # Each makes a key, while others are wrapped anew.
            store = new_store(metadata={"user_id": f"u{number}-{count}"})
            session = f"s{number}-{count}"
            said[session] = turn(count)
            await store.append({"project_key": "p", "session_id": session}, said[session])

    async def rotate() -> None:
        for _ in range(TIMES):
            keys.add()
            await _cut_off(lambda: new_store().rotate_keys(), chance.randrange(1, 200))

    await asyncio.gather(rotate(), *map(write, range(WRITERS)))
    await settled()
    await new_store().rotate_keys()
    status = await new_store().key_status()
    assert len(status.by_wrapping_key) == 1
    assert status.keys == len(said)
    reader = new_store(required=True)
    for session, entries in said.items():
        assert await reader.load({"project_key": "p", "session_id": session}) == entries
