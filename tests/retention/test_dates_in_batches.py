"""Dates of large sessions move by their summaries, and entries follow, whoever is killed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from pymongo.errors import OperationFailure
from support.entries import KEY, SUBAGENT, assert_summary_is_the_fold, message, turn
from support.server import Commands, connected

from beanie_session_store import (
    BeanieSessionStore,
    ContentionError,
    EntryChunk,
    SessionSummary,
    TranscriptEntry,
    downgrade_schema,
    set_retention,
    sweep_sessions,
    upgrade_schema,
)
from beanie_session_store.app.database.driver import Database, collection_of
from beanie_session_store.app.database.failures import translated
from beanie_session_store.app.retention import holds, policies
from beanie_session_store.app.storage.background import gone_on
from beanie_session_store.app.transcript_key import TranscriptKey
from beanie_session_store.app.writing import dating, writer

DAY = timedelta(days=1)


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch, quick_policies: None) -> None:
    monkeypatch.setattr("beanie_session_store.app.writing.dating._BATCH", 5)
    monkeypatch.setattr("beanie_session_store.app.writing.dating._SMALLEST_BATCH", 2)
    monkeypatch.setattr("beanie_session_store.app.retention.holds._FEW_ENTRIES", 0)


@pytest.fixture
def nobody_moves(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """As if the process were killed as soon as a call is answered; call it to live on."""
    for module in (writer, holds):
        monkeypatch.setattr(module, "go_on", lambda *_: None)

    def live_on() -> None:
        for module in (writer, holds):
            monkeypatch.setattr(module, "go_on", dating_go_on)

    return live_on


dating_go_on = writer.go_on


async def summary() -> SessionSummary:
    (found,) = await SessionSummary.find_all().to_list()
    return found


async def entry_dates() -> set[datetime | None]:
    return {each.expires_at async for each in TranscriptEntry.find_all()}


async def assert_entries_outlive_their_session() -> None:
    found = await summary()
    for each in await entry_dates():
        if found.expires_at is not None:
            assert each is not None
            assert each >= found.expires_at


async def lapse(database: Database, by: timedelta) -> None:
    """Let time go by, for a session alone: all that is dated is dated earlier."""
    back = {"$subtract": ["$expires_at", int(by.total_seconds() * 1000)]}
    dated = {"expires_at": {"$exists": True}}
    for name in ("claude_transcript_entries", "claude_transcript_summaries"):
        await database[name].update_many(dated, [{"$set": {"expires_at": back}}])
    until = {"$subtract": ["$backstop.until", int(by.total_seconds() * 1000)]}
    active = {"$subtract": ["$active_at", int(by.total_seconds() * 1000)]}
    await database["claude_transcript_summaries"].update_many(
        {"backstop.until": {"$exists": True}},
        [{"$set": {"backstop.until": until, "active_at": active}}],
    )


async def large_session(store: BeanieSessionStore) -> list[Any]:
    written: list[Any] = []
    for number in range(4):
        batch = turn(number)
        await store.append(KEY, batch)
        written += batch
    await store.append(SUBAGENT, turn(9))
    return written


@pytest.fixture
async def commands(mongo_url: str, database: Database) -> AsyncIterator[Commands]:
    commands = Commands()
    async with connected(mongo_url, event_listeners=[commands]):
        yield commands


async def test_an_append_that_moves_the_date_touches_no_stored_entry(
    store: BeanieSessionStore, database: Database, nobody_moves: Callable[[], None]
) -> None:
    await set_retention(database, 10 * DAY)
    written = await large_session(store)
    before = await entry_dates()
    for _ in range(9):
        await lapse(database, timedelta(days=1.05))
        before = await entry_dates()
        last = turn(20)
        await BeanieSessionStore().append(KEY, last)
        written += last
        # What was stored has its dates still, and they are later than the session's new one.
        assert before <= await entry_dates()
        await assert_entries_outlive_their_session()
        left = (await summary()).expires_at
        assert left is not None
        assert left > datetime.now() + 10 * DAY
    nobody_moves()
    await BeanieSessionStore().append(KEY, turn(21))
    await gone_on()
    assert "to" not in ((await summary()).backstop or {"to": 1})
    (date,) = await entry_dates()
    assert date is not None
    assert date > datetime.now() + 20 * DAY
    await assert_summary_is_the_fold(store)


async def test_a_session_resumed_in_its_last_moment_is_kept_whole_if_its_writer_is_killed(
    store: BeanieSessionStore, database: Database, nobody_moves: Callable[[], None]
) -> None:
    await set_retention(database, timedelta(seconds=4))
    resumed = turn(20)
    for _ in range(20):
        written = await large_session(store)
        await asyncio.sleep(4.1)
        started = asyncio.get_running_loop().time()
        await BeanieSessionStore().append(KEY, resumed)
        if await store.load(KEY) != resumed:
            break
        # The moment was over, for the machine was busy.
        await store.delete(KEY)
    del nobody_moves
    while (loaded := await store.load(KEY)) is not None:
        assert loaded == written + resumed
        await asyncio.sleep(0.2)
    assert asyncio.get_running_loop().time() - started > 4


@pytest.mark.usefixtures("nobody_moves")
async def test_a_move_that_was_cut_off_goes_on_where_it_stopped(
    store: BeanieSessionStore, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await large_session(store)
    await set_retention(database, 10 * DAY)
    connection = await store._connection()
    key = TranscriptKey.parse(store.tenant, KEY)
    await lapse(database, 8 * DAY)
    await BeanieSessionStore().append(KEY, turn(20))
    real, calls = dating._move, 0

    async def killed(*arguments: Any) -> bool:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise asyncio.CancelledError
        return await real(*arguments)

    monkeypatch.setattr(dating, "_move", killed)
    with pytest.raises(asyncio.CancelledError):
        await dating.follow(connection, key)
    through = (await summary()).moved_through
    assert through == 10
    assert len(await entry_dates()) == 2
    await assert_entries_outlive_their_session()
    monkeypatch.setattr(dating, "_move", real)
    await BeanieSessionStore().append(KEY, turn(21))
    await sweep_sessions(database)
    assert len(await entry_dates()) == 1
    assert (await summary()).moved_through is None


@pytest.mark.usefixtures("nobody_moves")
async def test_a_hold_wins_at_once_and_nobody_takes_the_entries_of_a_held_session(
    store: BeanieSessionStore, database: Database
) -> None:
    await set_retention(database, 10 * DAY)
    written = await large_session(store)
    await lapse(database, 10.9 * DAY)
    await store.hold(KEY)
    held = await summary()
    assert held.held_at is not None
    # The entries are dated; so is the session still, but as late as they are.
    (date,) = await entry_dates()
    assert held.expires_at == date
    assert date is not None
    assert date > datetime.now() + 10 * DAY
    await lapse(database, 5 * DAY)
    assert await store.load(KEY) == written
    await BeanieSessionStore().append(KEY, turn(20))
    await set_retention(database, DAY)
    assert await entry_dates() == {None}
    assert (await summary()).expires_at is None
    assert (await summary()).backstop is None


async def test_hold_and_release_again_and_again_leave_what_was_said_last(
    store: BeanieSessionStore, database: Database
) -> None:
    await set_retention(database, 10 * DAY)
    written = await large_session(store)

    async def write() -> None:
        for number in range(20, 40):
            batch = turn(number)
            await BeanieSessionStore().append(KEY, batch)
            written.extend(batch)

    async def change() -> None:
        for _ in range(6):
            await store.hold(KEY)
            await asyncio.sleep(0.02)
            await BeanieSessionStore().release(KEY)
            await asyncio.sleep(0.02)
            before, found = await summary(), await entry_dates()
            # Entries may be moved on meanwhile.
            if before.expires_at is not None and await summary() == before:
                assert None not in found

    await asyncio.gather(write(), change(), change())
    await store.hold(KEY, wait=True)
    await gone_on()
    assert await entry_dates() == {None}
    await BeanieSessionStore().release(KEY, wait=True)
    await gone_on()
    (date,) = await entry_dates()
    found = await summary()
    assert found.expires_at is not None
    assert date is not None
    assert found.expires_at < date
    assert await store.load(KEY) == written


async def test_a_released_session_is_not_dated_by_its_last_append(
    store: BeanieSessionStore, database: Database
) -> None:
    await set_retention(database, 10 * DAY)
    await large_session(store)
    await store.hold(KEY, wait=True)
    long_ago = datetime.now(timezone.utc) - 100 * DAY
    await collection_of(SessionSummary).update_many({}, {"$set": {"active_at": long_ago}})
    await store.release(KEY, wait=True)
    for days in (10, 20):
        await set_retention(database, days * DAY)
        date = (await summary()).expires_at
        assert date is not None
        assert date > datetime.now() + days * DAY - timedelta(minutes=1)


async def old_release_appends(database: Database, entry: dict[str, Any], date: datetime) -> None:
    """What release 0.1.0 does to a dated session: one date in all of its documents."""
    names = ("claude_transcript_entries", "claude_transcript_chunks", "claude_transcript_summaries")
    summaries = database[names[-1]]
    row = await summaries.find_one({})
    assert row is not None
    for name in names:
        await database[name].update_many({}, {"$set": {"expires_at": date}})
    await database[names[0]].insert_one(
        {
            **{name: row[name] for name in ("tenant", "project_key", "session_id")},
            **{"subpath": "", "seq": row["next_seq"], "uuid": entry["uuid"], "entry": entry},
            **{"created_at": datetime.now(timezone.utc), "expires_at": date},
        }
    )
    await summaries.update_one(
        {"_id": row["_id"]},
        {"$inc": {"next_seq": 1}, "$set": {"active_at": datetime.now(timezone.utc)}},
    )


@pytest.mark.parametrize("left", [0.5, 9.5, 10.5])
async def test_a_session_that_the_release_before_wrote_to_stays_whole(
    store: BeanieSessionStore, database: Database, nobody_moves: Callable[[], None], left: float
) -> None:
    """It gives entries the session's own date, so these must be moved before the session is."""
    await set_retention(database, 10 * DAY)
    written = await large_session(store)
    for number in range(3):
        entry = next(each for each in turn(50 + number) if "uuid" in each)
        date = datetime.now(timezone.utc) + left * DAY
        await old_release_appends(database, entry, date)
        await assert_entries_outlive_their_session()
        batch = turn(60 + number)
        await BeanieSessionStore().append(KEY, batch)
        written += [entry, *batch]
        await assert_entries_outlive_their_session()
        assert await store.load(KEY) == written
    nobody_moves()
    await BeanieSessionStore().append(KEY, turn(70))
    await gone_on()
    await set_retention(database, 10 * DAY)
    (entry_date,) = await entry_dates()
    found = (await summary()).expires_at
    assert entry_date is not None
    assert found is not None
    assert entry_date > found + 9 * DAY


async def test_set_retention_says_what_failed_and_goes_on(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = BeanieSessionStore()
    for number in range(40):
        await store.append({**KEY, "session_id": f"session-{number:02}"}, turn(number))
    real = dating.follow

    async def follow(connection: Any, key: TranscriptKey) -> None:
        if key.session_id == "session-03":
            raise ContentionError("busy")
        await real(connection, key)

    monkeypatch.setattr(policies, "follow", follow)
    done = await set_retention(database, 10 * DAY)
    assert done.sessions == 40
    assert [key.session_id for key in done.failed] == ["session-03"]
    undated = [each.session_id async for each in SessionSummary.find({"expires_at": None})]
    assert undated == ["session-03"]
    monkeypatch.setattr(policies, "follow", real)
    assert (await set_retention(database, 10 * DAY)).failed == ()
    assert await SessionSummary.find({"expires_at": None}).count() == 0


async def test_an_idle_session_is_gone_as_soon_as_a_shorter_policy_is_set(
    store: BeanieSessionStore, database: Database
) -> None:
    await large_session(store)
    held = {**KEY, "session_id": "held"}
    await store.append(held, turn(1))
    await store.hold(held)
    long_ago = datetime.now(timezone.utc) - 100 * DAY
    await collection_of(SessionSummary).update_many({}, {"$set": {"active_at": long_ago}})
    await set_retention(database, 10 * DAY)
    assert await store.load(KEY) is None
    assert await TranscriptEntry.find_all().count() == 6
    assert await store.load(held) == await store.load(held)
    assert len(await store.load(held) or []) == 6


async def test_no_transaction_grows_with_the_session(
    store: BeanieSessionStore, database: Database, mongo_url: str
) -> None:
    """Of many times a batch, no transaction touches more than a few."""
    commands = Commands()
    async with connected(mongo_url, event_listeners=[commands]) as client:
        watched = BeanieSessionStore.on(client[database.name])
        await watched.append(KEY, [message(str(number)) for number in range(200)])
        await set_retention(client[database.name], 10 * DAY)
        commands.sent.clear()
        await watched.hold(KEY, wait=True)
        await watched.release(KEY, wait=True)
        await set_retention(client[database.name], 30 * DAY)
        moved = [
            part["q"]["seq"]
            for name, sent in commands.sent
            if name == "update" and sent["update"] == "claude_transcript_entries"
            for part in sent["updates"]
        ]
    assert len(moved) > 100
    assert all(each["$lte"] - each["$gt"] <= 5 for each in moved)


async def test_dates_move_without_transactions_too(standalone_database: Database) -> None:
    store = BeanieSessionStore()
    await set_retention(standalone_database, 10 * DAY)
    written = await large_session(store)
    await store.hold(KEY, wait=True)
    assert await entry_dates() == {None}
    await store.release(KEY, wait=True)
    await set_retention(standalone_database, 20 * DAY)
    (date,) = await entry_dates()
    assert date is not None
    assert date > datetime.now() + 40 * DAY
    assert await store.load(KEY) == written


async def test_chunks_are_dated_with_their_entries(
    store: BeanieSessionStore, database: Database, smaller_limits: int
) -> None:
    noise = random.Random(1).randbytes(18_000_000 // smaller_limits)
    await store.append(KEY, [message(noise.hex())])
    assert await EntryChunk.find_all().count() > 1
    await set_retention(database, 10 * DAY)
    dates = {each.expires_at async for each in EntryChunk.find_all()}
    assert dates == await entry_dates()
    assert None not in dates
    await store.hold(KEY, wait=True)
    assert {each.expires_at async for each in EntryChunk.find_all()} == {None}


async def test_a_migration_dates_the_entries_of_older_sessions_later(
    store: BeanieSessionStore, database: Database
) -> None:
    """So that the first append to each need not wait for it."""
    await set_retention(database, 10 * DAY)
    written = await large_session(store)
    await old_release_appends(database, message("of 0.1.0"), datetime.now(timezone.utc) + 11 * DAY)
    summaries = database["claude_transcript_summaries"]
    await summaries.update_many({}, {"$unset": {"backstop": ""}})
    await downgrade_schema(database, to="20261125140000")
    for _ in range(2):
        await upgrade_schema(database)
        (date,) = await entry_dates()
        found = await summary()
        assert date is not None
        assert found.expires_at is not None
        assert timedelta(days=10.9) < date - found.expires_at < timedelta(days=11.1)
        assert found.backstop == {"until": date, "next_seq": len(written) + 8}
    await BeanieSessionStore().append(KEY, turn(30))
    assert (await summary()).backstop is not None


@pytest.mark.parametrize(
    ("code", "text", "said"),
    [
        (112, "WriteConflict error: this operation conflicted", "collided"),
        (112, "Caused by :: -31800: oldest pinned transaction ID rolled back", "cache"),
        (388, "transaction is too large and will not fit in the cache", "cache"),
        (251, "Transaction with { txnNumber: 1 } has been aborted", "ended the transaction"),
    ],
)
async def test_an_error_says_what_was(database: Database, code: int, text: str, said: str) -> None:
    error = translated(OperationFailure(text, code), database.client, "do it", "nothing changed")
    assert said in str(error)
    assert ("other writes" in str(error)) == (said == "collided")


async def test_an_import_compares_itself_with_a_large_session_in_no_transaction(
    store: BeanieSessionStore, database: Database, mongo_url: str
) -> None:
    written = await large_session(store)
    commands = Commands()
    async with connected(mongo_url, event_listeners=[commands]) as client:
        replay = await BeanieSessionStore.on(client[database.name]).replay(KEY)
        commands.sent.clear()
        assert await replay.add(written) == 0
    finds = [sent for name, sent in commands.sent if name == "find"]
    assert finds
    assert not any("txnNumber" in sent for sent in finds)
