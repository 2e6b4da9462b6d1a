"""On a server without transactions: the same steps, one warning, and nothing doubled."""

from __future__ import annotations

import logging
import random
from weakref import WeakKeyDictionary

import pytest
from support.entries import KEY, SUBAGENT, assert_summary_is_the_fold, message, turn
from support.server import failing

from beanie_session_store import BeanieSessionStore, EntryChunk, ServerError, TranscriptEntry
from beanie_session_store.app.database import server
from beanie_session_store.app.database.driver import Database


@pytest.fixture
def store(standalone_database: Database) -> BeanieSessionStore:
    return BeanieSessionStore()


async def test_store_warns_once_that_there_are_no_transactions(
    standalone_database: Database,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A client of another test, not collected yet, is equal to one of the same server.
    monkeypatch.setattr(server, "_servers", WeakKeyDictionary())
    with caplog.at_level(logging.WARNING, logger="beanie_session_store"):
        for number in range(3):
            await BeanieSessionStore().append(KEY, turn(number))
    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == 1
    assert "no transactions" in warnings[0]
    assert "replica set" in warnings[0]


async def test_failed_insert_is_taken_back_and_its_retry_stored_once(
    store: BeanieSessionStore, standalone_database: Database
) -> None:
    first, second = turn(1), turn(2)
    await store.append(KEY, first)
    async with failing(standalone_database, "insert", errorCode=20):
        with pytest.raises(ServerError):
            await store.append(KEY, second)
    assert await store.load(KEY) == first
    await assert_summary_is_the_fold(store)
    await store.append(KEY, second)
    assert await store.load(KEY) == first + second
    await assert_summary_is_the_fold(store)


async def test_failed_first_append_lists_no_session(
    store: BeanieSessionStore, standalone_database: Database
) -> None:
    async with failing(standalone_database, "insert", mode={"skip": 1}, errorCode=20):
        with pytest.raises(ServerError):
            await store.append(KEY, turn(1))
    assert await store.list_sessions("project") == []
    assert await store.load(KEY) is None
    await store.append(KEY, turn(1))
    assert len(await store.list_sessions("project")) == 1
    await assert_summary_is_the_fold(store)


async def test_failed_insert_leaves_no_chunks(
    store: BeanieSessionStore, standalone_database: Database, smaller_limits: int
) -> None:
    noise = random.Random(7).randbytes(18_000_000 // smaller_limits)
    huge = message("\ud83d", data=noise.hex())
    await store.append(KEY, turn(1))
    async with failing(standalone_database, "insert", mode={"skip": 1}, errorCode=20):
        with pytest.raises(ServerError):
            await store.append(KEY, [message("before"), huge])
    assert await TranscriptEntry.find_all().count() == 6
    assert await EntryChunk.find_all().count() == 0


async def test_replays_store_nothing_twice(store: BeanieSessionStore) -> None:
    first, second = turn(1), turn(2)
    for batch in (first, second, second, first + second, first):
        await store.append(KEY, batch)
    assert await store.load(KEY) == first + second
    await assert_summary_is_the_fold(store)


async def test_what_another_store_remembers_misses_after_a_refold(
    store: BeanieSessionStore, standalone_database: Database
) -> None:
    other = BeanieSessionStore()
    await store.append(KEY, [message("a", customTitle="first")])
    await other.append(KEY, [message("b", customTitle="second")])
    async with failing(standalone_database, "insert", errorCode=20):
        with pytest.raises(ServerError):
            await store.append(KEY, [message("c", customTitle="never stored")])
    await other.append(KEY, [message("d")])
    (summary,) = await store.list_session_summaries("project")
    assert summary["data"]["custom_title"] == "second"
    await assert_summary_is_the_fold(store)


async def test_delete_and_stream_work(store: BeanieSessionStore) -> None:
    await store.append(KEY, turn(1))
    await store.append(SUBAGENT, turn(2))
    assert [entry async for entry in store.stream(SUBAGENT)] == await store.load(SUBAGENT)
    await store.delete(KEY)
    assert await store.load(KEY) is None
    assert await store.load(SUBAGENT) is None
    assert await store.list_sessions("project") == []
