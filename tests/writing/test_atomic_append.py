"""A batch is stored whole or not at all, and its retry stores it once."""

from __future__ import annotations

import random

import pytest
from support.entries import KEY, SUBAGENT, assert_summary_is_the_fold, message, seqs, turn
from support.server import failing

from beanie_session_store import (
    BeanieSessionStore,
    EntryChunk,
    ServerError,
    SessionSummary,
    TranscriptEntry,
)
from beanie_session_store.app.database.driver import Database

# Neither is transient, so the store itself does not try again.
COMMAND_FAILURES = [
    pytest.param("update", id="while-claiming"),
    pytest.param("insert", id="while-inserting"),
    pytest.param("commitTransaction", id="while-committing"),
]


@pytest.mark.parametrize("command", COMMAND_FAILURES)
async def test_failed_append_leaves_nothing_behind(
    store: BeanieSessionStore, database: Database, command: str
) -> None:
    first, second = turn(1), turn(2)
    await store.append(KEY, first)
    before = await SessionSummary.find_one({})
    async with failing(database, command, errorCode=20):
        with pytest.raises(ServerError, match="code 20"):
            await store.append(KEY, second)
    assert await store.load(KEY) == first
    assert await SessionSummary.find_one({}) == before

    await store.append(KEY, second)
    assert await store.load(KEY) == first + second
    assert await seqs() == list(range(1, 13))
    await assert_summary_is_the_fold(store)


async def test_failed_first_append_leaves_no_session(
    store: BeanieSessionStore, database: Database
) -> None:
    # The summary is the first insert, the entries are the second.
    async with failing(database, "insert", mode={"skip": 1}, errorCode=20):
        with pytest.raises(ServerError):
            await store.append(KEY, turn(1))
    assert await store.load(KEY) is None
    assert await store.list_sessions("project") == []
    assert await SessionSummary.find_one({}) is None


@pytest.mark.parametrize("command", COMMAND_FAILURES)
async def test_a_killed_connection_costs_no_entry(
    store: BeanieSessionStore, database: Database, command: str
) -> None:
    await store.append(KEY, turn(1))
    second = turn(2)
    async with failing(database, command, closeConnection=True):
        await store.append(KEY, second)
    assert (await store.load(KEY) or [])[6:] == second
    assert await seqs() == list(range(1, 13))
    await assert_summary_is_the_fold(store)


@pytest.mark.parametrize("code", [91, 189, 11600])
async def test_an_election_in_mid_append_costs_no_entry(
    store: BeanieSessionStore, database: Database, code: int
) -> None:
    await store.append(KEY, turn(1))
    for command in ("update", "insert", "commitTransaction"):
        async with failing(
            database, command, errorCode=code, errorLabels=["TransientTransactionError"]
        ):
            await store.append(KEY, turn(2))
    assert await seqs() == list(range(1, 25))
    await assert_summary_is_the_fold(store)


@pytest.mark.soak
async def test_a_batch_sent_in_several_commands_is_still_one(
    store: BeanieSessionStore, database: Database
) -> None:
    # More than the 48 MB that one command takes, so the driver splits it.
    noise = random.Random(5)
    batch = [message(noise.randbytes(7_000_000).hex()) for _ in range(4)]
    await store.append(KEY, turn(1))
    async with failing(database, "insert", mode={"skip": 1}, errorCode=20):
        with pytest.raises(ServerError):
            await store.append(KEY, batch)
    assert await TranscriptEntry.find_all().count() == 6
    await store.append(KEY, batch)
    assert (await store.load(KEY) or [])[6:] == batch


async def test_chunks_of_a_failed_append_are_not_kept(
    store: BeanieSessionStore, database: Database, smaller_limits: int
) -> None:
    huge = message(random.Random(6).randbytes(18_000_000 // smaller_limits).hex())
    await store.append(KEY, turn(1))
    async with failing(database, "insert", mode={"skip": 1}, errorCode=20):
        with pytest.raises(ServerError):
            await store.append(KEY, [huge])
    assert await EntryChunk.find_all().count() == 0
    assert await TranscriptEntry.find_all().count() == 6


async def test_main_and_subagent_entries_interleave_in_true_order(
    store: BeanieSessionStore,
) -> None:
    await store.append(KEY, [message("a")])
    await store.append(SUBAGENT, [message("b"), message("c")])
    await store.append(KEY, [message("d")])
    found = await TranscriptEntry.find_all().sort("seq").to_list()
    assert [entry.content["message"]["content"] for entry in found] == ["a", "b", "c", "d"]
    assert [entry.seq for entry in found] == [1, 2, 3, 4]


async def test_subagents_that_write_first_list_no_session_yet(store: BeanieSessionStore) -> None:
    await store.append(SUBAGENT, [message("b")])
    assert await store.list_sessions("project") == []
    assert await store.list_session_summaries("project") == []
    assert await store.list_subkeys(KEY) == ["subagents/agent-a1"]
    await store.append(KEY, [message("a")])
    assert [s["session_id"] for s in await store.list_sessions("project")] == ["session"]
    await assert_summary_is_the_fold(store)


async def test_mtime_rises_with_every_main_append_and_only_then(
    store: BeanieSessionStore,
) -> None:
    seen = []
    for number in range(20):
        await store.append(KEY, turn(number))
        (listed,) = await store.list_sessions("project")
        await store.append(SUBAGENT, [message()])
        assert await store.list_sessions("project") == [listed]
        seen.append(listed["mtime"])
    assert seen == sorted(set(seen))


async def test_an_entry_that_the_fold_cannot_take_is_stored_all_the_same(
    store: BeanieSessionStore,
) -> None:
    odd = message("odd", timestamp="0001-01-01T00:00:00", aiTitle="never seen")
    fine = message("fine", customTitle="a title")
    await store.append(KEY, [odd, fine])
    assert await store.load(KEY) == [odd, fine]
    (summary,) = await store.list_session_summaries("project")
    assert summary["data"]["custom_title"] == "a title"
