"""Large sessions are gone at once for everybody, and swept in pieces that nobody waits for."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from statistics import median
from typing import Any

import pytest
from support.entries import KEY, SUBAGENT, assert_summary_is_the_fold, message, turn

from beanie_session_store import (
    BeanieSessionStore,
    EntryChunk,
    SessionChangedError,
    SessionSummary,
    TranscriptEntry,
    UnknownSessionError,
    diagnose,
    set_retention,
    sweep_sessions,
)
from beanie_session_store.app.database.driver import Database, collection_of
from beanie_session_store.app.storage.background import gone_on
from beanie_session_store.app.writing import deletion, remains, writer

OTHER_AGENT = {**KEY, "subpath": "subagents/agent-other"}
MARKED = 8


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch, quick_policies: None) -> None:
    """What goes by thousands goes by handfuls."""
    for module in ("reading.load", "writing.deletion", "queries.search"):
        monkeypatch.setattr(f"beanie_session_store.app.{module}.MARKED", MARKED)
    monkeypatch.setattr("beanie_session_store.app.writing.deletion.AT_ONCE", 0)
    monkeypatch.setattr("beanie_session_store.app.writing.remains._BATCH", 5)
    monkeypatch.setattr("beanie_session_store.app.writing.dating._BATCH", 5)
    monkeypatch.setattr("beanie_session_store.app.retention.holds._FEW_ENTRIES", 0)


@pytest.fixture
def nobody_sweeps(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """As if the process were killed as soon as a delete is acknowledged; call it to live on."""
    with_sweeps = (deletion, writer)
    real = [module.go_on for module in with_sweeps]
    for module in with_sweeps:
        monkeypatch.setattr(module, "go_on", lambda *_: None)

    def live_on() -> None:
        for module, go_on in zip(with_sweeps, real, strict=True):
            monkeypatch.setattr(module, "go_on", go_on)

    return live_on


async def stored() -> int:
    return await TranscriptEntry.find_all().count()


async def assert_nothing_is_left() -> None:
    for model in (TranscriptEntry, SessionSummary, EntryChunk):
        assert not await model.find_all().count(), model


async def large_session(store: BeanieSessionStore) -> tuple[list[Any], list[Any], list[Any]]:
    """A main transcript of 30 entries, and two subagents', one of which began early."""
    early = turn(100)[:3]
    await store.append(SUBAGENT, early)
    main: list[Any] = []
    for number in range(5):
        batch = turn(number)
        await store.append(KEY, batch)
        main += batch
    late = [message(f"late {number}") for number in range(12)]
    await store.append(OTHER_AGENT, late)
    return main, early, late


async def assert_gone_for_readers(reader: BeanieSessionStore) -> None:
    for key in (KEY, SUBAGENT, OTHER_AGENT):
        assert await reader.load(key) is None
        assert [entry async for entry in reader.stream(key)] == []
    assert [entry async for entry in reader.stream(KEY, with_subagents=True)] == []
    assert await reader.transcript(KEY) is None
    assert await reader.summary(KEY) is None
    assert await reader.agent_metadata(SUBAGENT) is None
    assert await reader.list_sessions("project") == []
    assert await reader.list_session_summaries("project") == []
    assert await reader.list_subkeys(KEY) == []
    assert [listing async for listing in reader.all_sessions()] == []
    assert (await reader.sessions()).sessions == []
    assert await reader.usage() == []
    for change in (reader.hold, reader.release, reader.verify, reader.repair):
        with pytest.raises(UnknownSessionError):
            await change(KEY)


@pytest.mark.usefixtures("nobody_sweeps")
async def test_a_deleted_session_is_gone_for_every_reader_before_it_is_swept(
    store: BeanieSessionStore,
) -> None:
    await large_session(store)
    await store.delete(KEY)
    # Otherwise this would test nothing.
    assert await stored() > 20
    for reader in (store, BeanieSessionStore()):
        await assert_gone_for_readers(reader)
    await store.delete(KEY, wait=True)
    await assert_nothing_is_left()


async def test_a_sweep_ends_with_nothing_left(
    store: BeanieSessionStore, smaller_limits: int
) -> None:
    await large_session(store)
    noise = random.Random(1).randbytes(18_000_000 // smaller_limits)
    await store.append(KEY, [message(noise.hex())])
    assert await EntryChunk.find_all().count()
    await store.delete(KEY)
    await gone_on()
    await assert_nothing_is_left()


async def test_remains_are_swept_whatever_number_says_where_they_end(
    store: BeanieSessionStore, database: Database, nobody_sweeps: Callable[[], None]
) -> None:
    await large_session(store)
    await store.delete(KEY)
    new = turn(1)
    await store.append(KEY, new)
    assert await stored() > len(new)
    summaries = collection_of(SessionSummary)
    row = await summaries.find_one({"remains": True})
    assert row is not None
    # As tools without whole numbers write it back.
    await summaries.update_one({}, {"$set": {"first_seq": float(row["first_seq"])}})
    # Nobody reads them meanwhile.
    for reader in (store, BeanieSessionStore()):
        assert await reader.load(KEY) == new
        assert len([each async for each in reader.stream(KEY, with_subagents=True)]) == len(new)
        assert await reader.list_subkeys(KEY) == []
    nobody_sweeps()
    await sweep_sessions(database)
    assert await stored() == len(new)
    assert (await store.verify(KEY)).is_sound
    assert await summaries.count_documents({"remains": {"$exists": True}}) == 0


async def test_a_large_subagent_that_is_gone_hinders_no_other_delete(
    store: BeanieSessionStore,
) -> None:
    main, _, late = await large_session(store)
    # The last that was stored, so that the session's positions go on far behind its entries.
    assert len(late) > MARKED
    await store.delete(OTHER_AGENT, wait=True)
    await store.delete(SUBAGENT, wait=True)
    assert await store.load(KEY) == main
    assert await stored() == len(main)
    assert (await store.verify(KEY)).is_sound


async def test_an_append_to_remains_starts_afresh_at_once(
    store: BeanieSessionStore, nobody_sweeps: Callable[[], None]
) -> None:
    main, early, late = await large_session(store)
    await store.delete(KEY)
    left = await stored()
    assert left > 20
    # The same entries, uuids included; none of the old ones may count as stored.
    await BeanieSessionStore().append(KEY, main[-4:])
    await store.append(KEY, [*main[:3], message("new")])
    await store.append(OTHER_AGENT, late[:2])
    expected = [*main[-4:], *main[:3]]
    for reader in (store, BeanieSessionStore()):
        loaded = await reader.load(KEY)
        assert loaded is not None
        assert loaded[:-1] == expected
        assert await reader.load(SUBAGENT) is None
        assert await reader.load(OTHER_AGENT) == late[:2]
        assert await reader.list_subkeys(KEY) == [OTHER_AGENT["subpath"]]
        streamed = [entry async for entry in reader.stream(KEY, with_subagents=True)]
        assert streamed == [*loaded, *late[:2]]
        transcript = await reader.transcript(KEY)
        assert transcript is not None
        await assert_summary_is_the_fold(reader)
        assert (await reader.verify(KEY)).entries == 10
    assert await stored() > 10 + 20 - 10
    nobody_sweeps()
    # The next one that comes by goes on with the sweep.
    await BeanieSessionStore().append(SUBAGENT, early)
    await gone_on()
    assert await stored() == 13
    assert await store.load(SUBAGENT) == early
    await assert_summary_is_the_fold(store)
    (summary,) = await SessionSummary.find_all().to_list()
    assert not summary.remains


@pytest.mark.usefixtures("nobody_sweeps")
@pytest.mark.parametrize("how", ["sweep_sessions", "set_retention", "delete", "delete_sessions"])
async def test_a_sweep_that_was_cut_off_is_finished_by_whoever_comes(
    store: BeanieSessionStore, database: Database, how: str
) -> None:
    await large_session(store)
    await store.append({**KEY, "session_id": "other"}, turn(7))
    await store.delete(KEY)
    finding = next(f for f in (await diagnose(database)).findings if f.check == "retention")
    assert finding.verdict == "warning"
    assert "retention sweep" in (finding.advice or "")
    if how == "sweep_sessions":
        assert (await sweep_sessions(database)).swept == 1
    elif how == "set_retention":
        await set_retention(database, timedelta(days=1))
    elif how == "delete":
        await BeanieSessionStore().delete(KEY, wait=True)
    else:
        await BeanieSessionStore().delete_sessions(tag="of nobody")
    assert await stored() == 6
    assert [each.session_id async for each in SessionSummary.find_all()] == ["other"]
    finding = next(f for f in (await diagnose(database)).findings if f.check == "retention")
    assert finding.verdict == "good"


async def test_a_deleted_subagent_is_gone_at_once_and_the_session_counted_without_it(
    store: BeanieSessionStore, nobody_sweeps: Callable[[], None]
) -> None:
    main, early, late = await large_session(store)
    await store.delete(OTHER_AGENT)
    assert await stored() > 33
    for reader in (store, BeanieSessionStore()):
        assert await reader.load(OTHER_AGENT) is None
        assert await reader.load(SUBAGENT) == early
        assert await reader.load(KEY) == main
        assert await reader.list_subkeys(KEY) == [SUBAGENT["subpath"]]
        assert len([e async for e in reader.stream(KEY, with_subagents=True)]) == 33
        verification = await reader.verify(KEY)
        assert verification.is_sound
        assert verification.entries == 33
    await store.append(OTHER_AGENT, late[3:6])
    assert await store.load(OTHER_AGENT) == late[3:6]
    assert (await store.verify(KEY)).is_sound
    # Again, over the remains of the first time.
    await store.delete(OTHER_AGENT)
    assert await store.load(OTHER_AGENT) is None
    nobody_sweeps()
    await BeanieSessionStore().append(OTHER_AGENT, late[:1])
    await gone_on()
    assert await store.load(OTHER_AGENT) == late[:1]
    assert await stored() == 34
    assert (await store.verify(KEY)).is_sound


async def test_two_subagents_that_are_deleted_at_once_are_both_counted_out(
    store: BeanieSessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.append(KEY, turn(1))
    await store.append(SUBAGENT, turn(2))
    await store.append(OTHER_AGENT, turn(3))
    remove = deletion._remove
    calls = 0

    async def slow(*arguments: Any) -> bool:
        nonlocal calls
        calls += 1
        if calls == 1:
            await BeanieSessionStore().delete(OTHER_AGENT)
        return await remove(*arguments)

    monkeypatch.setattr(deletion, "_remove", slow)
    await store.delete(SUBAGENT)
    assert calls == 3
    summary = await store.summary(KEY)
    assert summary is not None
    assert summary.totals.entries == len(turn(1))
    assert (await store.verify(KEY)).is_sound


@pytest.mark.parametrize("next_seq", [1, 3, 0, None])
async def test_a_subagent_goes_where_something_put_the_sessions_position_back(
    store: BeanieSessionStore, next_seq: int | None
) -> None:
    await store.append(KEY, turn(1))
    await store.append(SUBAGENT, turn(2))
    change = {"$set": {"next_seq": next_seq}}
    await collection_of(SessionSummary).update_one({}, change)
    await BeanieSessionStore().delete(SUBAGENT)
    assert await store.load(SUBAGENT) is None
    assert await store.load(KEY) == await BeanieSessionStore().load(KEY) != []


async def test_a_busy_session_is_counted_without_a_deleted_subagent(
    store: BeanieSessionStore,
) -> None:
    await large_session(store)
    done = asyncio.Event()

    async def write() -> int:
        number = 200
        while not done.is_set():
            await BeanieSessionStore().append(KEY, turn(number))
            number += 1
        return number - 200

    writing = asyncio.create_task(write())
    await store.delete(OTHER_AGENT)
    done.set()
    turns = await writing
    verification = await store.verify(KEY)
    assert verification.is_sound
    assert verification.entries == 33 + 6 * turns


async def test_readers_never_see_a_part_of_a_session_that_is_deleted_and_begun_again(
    store: BeanieSessionStore,
) -> None:
    done = asyncio.Event()
    whole = [[message(f"{number} {n}") for n in range(25)] for number in range(6)]

    seen: list[int] = []

    async def read() -> None:
        reader = BeanieSessionStore()
        while not done.is_set():
            loaded = await reader.load(KEY)
            assert loaded is None or loaded in whole
            try:
                streamed = [entry async for entry in reader.stream(KEY)]
                assert streamed == [] or streamed in whole
            except SessionChangedError:
                pass
            if loaded is not None:
                seen.append(len(loaded))

    readers = [asyncio.create_task(read()) for _ in range(3)]
    for batch in whole:
        await store.append(KEY, batch)
        before = len(seen)
        while len(seen) == before and not any(map(asyncio.Task.done, readers)):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await store.delete(KEY)
    done.set()
    await asyncio.gather(*readers)
    await gone_on()
    await assert_nothing_is_left()


async def test_two_sweepers_and_an_append_do_not_harm_each_other(
    store: BeanieSessionStore, database: Database
) -> None:
    for number in range(3):
        main, _, _ = await large_session(store)
        await store.delete(KEY)
        await asyncio.gather(
            sweep_sessions(database),
            sweep_sessions(database),
            BeanieSessionStore().append(KEY, main[:5]),
            BeanieSessionStore().append(SUBAGENT, turn(number)),
        )
        await gone_on()
        assert await store.load(KEY) == main[:5]
        assert await stored() == 11
        await assert_summary_is_the_fold(store)
        await store.delete(KEY)
        await gone_on()
    await assert_nothing_is_left()


async def test_remains_of_an_expired_session_refuse_no_append_without_a_policy(
    store: BeanieSessionStore, database: Database
) -> None:
    """The summary was taken by MongoDB, the entries not yet, and the policy is gone."""
    main, early, _ = await large_session(store)
    later = datetime.now(timezone.utc) + timedelta(hours=1)
    await collection_of(TranscriptEntry).update_many({}, {"$set": {"expires_at": later}})
    await collection_of(SessionSummary).delete_many({})
    await assert_gone_for_readers(BeanieSessionStore())
    await BeanieSessionStore().append(SUBAGENT, early)
    await store.append(KEY, main[:4])
    assert await store.load(KEY) == main[:4]
    assert await store.load(SUBAGENT) == early
    await gone_on()
    assert await stored() == 7
    await assert_summary_is_the_fold(store)
    await sweep_sessions(database)
    assert await stored() == 7


@pytest.mark.usefixtures("nobody_sweeps")
async def test_what_mongodb_left_of_expired_sessions_can_be_swept_at_once(
    store: BeanieSessionStore, database: Database
) -> None:
    await large_session(store)
    await BeanieSessionStore(tenant="other").append(KEY, turn(1))
    later = datetime.now(timezone.utc) + timedelta(hours=1)
    await collection_of(TranscriptEntry).update_many({}, {"$set": {"expires_at": later}})
    await collection_of(SessionSummary).delete_many({})
    await BeanieSessionStore().append({**KEY, "session_id": "other"}, turn(2))
    assert (await sweep_sessions(database, tenant="other")).swept == 1
    assert await stored() == 45 + 6
    assert (await sweep_sessions(database)).swept == 1
    assert await stored() == 6


async def test_large_sessions_are_deleted_without_transactions_too(
    standalone_database: Database,
) -> None:
    store = BeanieSessionStore()
    main, _, _ = await large_session(store)
    await store.delete(KEY)
    await store.append(KEY, main[:3])
    assert await store.load(KEY) == main[:3]
    await gone_on()
    assert await stored() == 3
    await store.delete(KEY)
    await assert_nothing_is_left()


async def test_an_append_beside_a_sweep_goes_over_nothing_that_was_swept(
    store: BeanieSessionStore,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The index has this session behind the one that is appended to, and keeps what was in it.

    Counted by the server itself, so it does not matter how busy that is.
    """
    monkeypatch.setattr("beanie_session_store.app.writing.remains._SHARE", 1)
    monkeypatch.setattr("beanie_session_store.app.writing.deletion.MARKED", 200)
    monkeypatch.setattr("beanie_session_store.app.writing.remains._BATCH", 50)
    beside = {**KEY, "session_id": KEY["session_id"][:-1]}
    await store.append(beside, [message()])
    await store.append(KEY, [message(f"{number}") for number in range(600)])

    async def gone_over() -> int:
        cursors = (await database.client.admin.command("serverStatus"))["wiredTiger"]["cursor"]
        return sum(
            cursors[f"Total number of entries skipped by cursor {way} calls"]
            for way in ("next", "prev")
        )

    async def by_an_append() -> int:
        found: list[int] = []
        for _ in range(3):
            before = await gone_over()
            await store.append(beside, [message()])
            found.append(await gone_over() - before)
        return min(found)

    alone = await by_an_append()
    at_batches: list[int] = []
    require = remains._Evidence.require

    async def watched(self: remains._Evidence, session: Any) -> None:
        await require(self, session)
        at_batches.append(await by_an_append())

    # Beside a transaction that did nothing yet: those before it are what counts.
    monkeypatch.setattr(remains._Evidence, "require", watched)
    await store.delete(KEY)
    await gone_on()
    assert await store.load(KEY) is None
    assert len(at_batches) > 6
    # Others work on this server too, but not at every batch.
    assert median(at_batches) < alone + 100


async def test_a_deleted_subagent_stays_gone_while_dates_are_taken_away(
    store: BeanieSessionStore,
    database: Database,
    nobody_sweeps: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await set_retention(database, timedelta(days=30))
    await store.append(SUBAGENT, [message(f"{number}") for number in range(28)])
    await store.append(KEY, turn(1))
    await store.delete(SUBAGENT)
    # Whose movers meet what is left of it, too.
    await store.hold(KEY, wait=True)
    require, seen = remains._Evidence.require, []

    async def watched(self: remains._Evidence, session: Any) -> None:
        await require(self, session)
        seen.append(await store.load(SUBAGENT))
        seen.append(await store.list_subkeys(KEY))

    monkeypatch.setattr(remains._Evidence, "require", watched)
    nobody_sweeps()
    await sweep_sessions(database)
    assert len(seen) > 6
    assert all(not each for each in seen)
    assert await stored() == 6


async def test_a_deletion_that_an_election_takes_back_is_not_swept(
    store: BeanieSessionStore,
    database: Database,
    nobody_sweeps: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A sweeper has read of it on a primary that was deposed before a majority had it."""
    _, _, late = await large_session(store)
    collections = [collection_of(model) for model in (TranscriptEntry, SessionSummary)]
    before = [await collection.find({}).to_list(None) for collection in collections]
    await store.delete(OTHER_AGENT)
    sweep_place = remains._Evidence.sweep

    async def after_an_election(*arguments: Any) -> None:
        for collection, documents in zip(collections, before, strict=True):
            await collection.delete_many({})
            await collection.insert_many(documents)
        await sweep_place(*arguments)

    monkeypatch.setattr(remains._Evidence, "sweep", after_an_election)
    assert not (await sweep_sessions(database)).failed
    assert await store.load(OTHER_AGENT) == late
    assert (await store.verify(KEY)).is_sound


async def test_who_deletes_a_short_session_waits_for_no_remains_of_a_large_one(
    store: BeanieSessionStore, nobody_sweeps: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    await large_session(store)
    await store.delete(KEY)
    left = await stored()
    await store.append(KEY, [message()])
    monkeypatch.setattr("beanie_session_store.app.writing.deletion.AT_ONCE", 5)
    for _ in range(2):
        await store.delete(KEY)
        assert await store.load(KEY) is None
        assert await stored() >= left - MARKED
    nobody_sweeps()
    await store.delete(KEY, wait=True)
    await assert_nothing_is_left()


@pytest.mark.usefixtures("nobody_sweeps")
async def test_who_appends_and_mends_a_summary_waits_for_no_remains(
    store: BeanieSessionStore,
) -> None:
    await large_session(store)
    await store.delete(KEY)
    left = await stored()
    await store.append(KEY, [message()])
    # Something else put back what it had read before.
    await collection_of(SessionSummary).update_one({}, {"$unset": {"next_seq": ""}})
    await BeanieSessionStore().append(KEY, [message()])
    assert await stored() == left + 2
    assert (await store.verify(KEY)).is_sound
