"""However many sessions pass through one store, it remembers a bounded number of them."""

from __future__ import annotations

import gc
import tracemalloc

import pytest
from bson import ObjectId
from support.entries import message

from beanie_session_store import BeanieSessionStore
from beanie_session_store.app.database.driver import Database
from beanie_session_store.app.storage.state import SessionState, StateCache
from beanie_session_store.app.transcript_key import TranscriptKey


def state(text: str) -> SessionState:
    return SessionState(ObjectId(), 1, 1, {"last_prompt": text}, "data", None, {})


def key(number: int) -> TranscriptKey:
    return TranscriptKey("tenant", "project", f"session-{number}")


def test_remembered_states_are_few_and_recent() -> None:
    cache = StateCache()
    for number in range(5000):
        cache.put(key(number), state("short"))
    assert len(cache) <= 1024
    assert cache.take(key(4999)) is not None
    assert cache.take(key(0)) is None


def test_large_states_push_others_out() -> None:
    cache = StateCache()
    for number in range(100):
        cache.put(key(number), state("x" * 1_000_000))
    assert 0 < len(cache) <= 8
    before = len(cache)
    cache.put(key(100), state("x" * 100_000_000))
    assert cache.take(key(100)) is None
    assert len(cache) == before


@pytest.mark.soak
async def test_memory_stays_flat_over_many_sessions(
    store: BeanieSessionStore, database: Database
) -> None:
    async def some(start: int, count: int) -> int:
        for number in range(start, start + count):
            session = {"project_key": "project", "session_id": f"session-{number}"}
            entry = message(lastPrompt="y" * 600_000)
            await store.append(session, [entry])
            await store.append(session, [entry])
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        full = await some(0, 20)
        later = await some(20, 20)
    finally:
        tracemalloc.stop()
    # 20 more sessions of 600 kB each would show as 12 MB.
    assert later - full < 3_000_000
