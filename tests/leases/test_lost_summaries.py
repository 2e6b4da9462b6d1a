"""A lease of a session that lost its summary hides nothing of it, and destroys nothing."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from bson.int64 import Int64
from support.entries import KEY, SUBAGENT, assert_summary_is_the_fold, seqs, turn

from beanie_session_store import (
    BeanieSessionStore,
    SessionSummary,
    TranscriptEntry,
    UnsoundSessionError,
    sweep_sessions,
)
from beanie_session_store.app.database.driver import Database

OWNER = {"session_id": "session"}


def stored(database: Database) -> tuple[Any, Any]:
    """The collections of summaries and of entries."""
    return database[SessionSummary.Settings.name], database[TranscriptEntry.Settings.name]


async def lost(store: BeanieSessionStore, database: Database) -> list[Any]:
    """Make a session that something took the summary of, and return its main transcript."""
    batch = turn(1)
    await store.append(KEY, batch)
    await store.append(SUBAGENT, turn(2))
    await stored(database)[0].delete_one(OWNER)
    return batch


async def test_it_is_there_under_the_lease_and_behind_it(
    store: BeanieSessionStore, database: Database
) -> None:
    batch = await lost(store, database)
    assert [each.key() async for each in store.lost_sessions()] == [KEY]
    async with store.lease(KEY, owner="a") as leased:
        assert await leased.load(KEY) == batch
        assert await leased.list_subkeys(KEY) == [SUBAGENT["subpath"]]
    assert await store.load(KEY) == batch
    assert await seqs() == list(range(1, 13))
    await assert_summary_is_the_fold(store)


async def test_an_append_goes_on_behind_what_is_there(
    store: BeanieSessionStore, database: Database
) -> None:
    batch, more = await lost(store, database), turn(3)
    async with BeanieSessionStore().lease(KEY, owner="a") as leased:
        await leased.append(KEY, more)
        assert await leased.load(KEY) == batch + more
    await sweep_sessions(database)
    assert await store.load(KEY) == batch + more
    await assert_summary_is_the_fold(store)


async def test_a_broken_lease_leaves_it_too(store: BeanieSessionStore, database: Database) -> None:
    batch = await lost(store, database)
    async with store.lease(KEY, owner="a"):
        assert await store.break_lease(KEY) is not None
    assert await store.load(KEY) == batch


async def test_where_it_cannot_be_told_nothing_is_changed(
    store: BeanieSessionStore, database: Database
) -> None:
    await lost(store, database)
    summaries, entries = stored(database)
    # As what is left of a large subagent that was deleted.
    behind = {"$inc": {"seq": Int64(1500)}}
    await entries.update_many({**OWNER, "subpath": {"$ne": ""}}, behind)
    before = await entries.find({}).sort("_id", 1).to_list(None)
    with pytest.raises(UnsoundSessionError, match=r"nothing was changed.*--bring-back"):
        async with store.lease(KEY, owner="a"):
            pytest.fail("it was taken")
    assert await summaries.count_documents({}) == 0
    assert await entries.find({}).sort("_id", 1).to_list(None) == before
    await store.repair(KEY, bring_back=True)
    async with store.lease(KEY, owner="a"):
        pass
    assert await entries.count_documents(OWNER) == 12


async def test_what_may_have_expired_is_left_to_mongodb(
    store: BeanieSessionStore, database: Database
) -> None:
    batch, more = await lost(store, database), turn(3)
    summaries, entries = stored(database)
    dated = {"$set": {"expires_at": datetime.now(timezone.utc) + timedelta(days=1)}}
    await entries.update_many(OWNER, dated)
    async with store.lease(KEY, owner="a"):
        pass
    assert await summaries.count_documents({}) == 0
    assert await entries.count_documents(OWNER) == 12
    await store.repair(KEY, bring_back=True)
    assert await store.load(KEY) == batch
    await summaries.delete_one(OWNER)
    await entries.update_many(OWNER, dated)
    async with BeanieSessionStore().lease(KEY, owner="a") as leased:
        await leased.append(KEY, more)
        assert await leased.load(KEY) == more
        row = await summaries.find_one(OWNER)
        assert row["first_seq"] == 13
    await assert_summary_is_the_fold(store)


@pytest.mark.parametrize("how", ["given back", "broken", "its holder died"])
async def test_no_sweep_takes_what_comes_beside_the_mark_of_a_lease(
    store: BeanieSessionStore, database: Database, how: str
) -> None:
    batch = await lost(store, database)
    summaries, entries = stored(database)
    kept = await entries.find({}).to_list(None)
    await entries.delete_many({})
    async with store.lease(KEY, owner="a"):
        # As a backup that is restored without its summaries.
        await entries.insert_many(kept)
        await sweep_sessions(database)
        assert await summaries.count_documents(OWNER) == 1
        if how == "broken":
            await store.break_lease(KEY)
        elif how == "its holder died":
            past = {"$set": {"lease.until": datetime.now(timezone.utc) - timedelta(1)}}
            await summaries.update_one(OWNER, past)
            await sweep_sessions(database)
    assert await summaries.count_documents({}) == 0
    assert await store.load(KEY) == batch
    assert await store.repair(KEY)
    await assert_summary_is_the_fold(store)


@pytest.mark.parametrize("by_holder", [True, False])
async def test_who_deletes_it_deletes_what_is_beside_the_mark(
    store: BeanieSessionStore, database: Database, by_holder: bool
) -> None:
    await lost(store, database)
    summaries, entries = stored(database)
    kept = await entries.find({}).to_list(None)
    await entries.delete_many({})
    async with store.lease(KEY, owner="a") as leased:
        await entries.insert_many(kept)
        await (leased if by_holder else store).delete(KEY)
        assert await entries.count_documents({}) == 0
    assert await summaries.count_documents({}) == 0
