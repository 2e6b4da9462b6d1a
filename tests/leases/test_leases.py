"""Who holds the lease of a session writes to it alone, of those who ask for leases."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from datetime import timedelta
from itertools import chain
from typing import Any

import pytest
from beanie import init_beanie
from bson import ObjectId
from support.database import Databases
from support.entries import KEY, SUBAGENT, assert_summary_is_the_fold, seqs, turn
from support.server import Commands, connected, without_expiry
from support.watchdog import WATCHDOG_SECONDS

from beanie_session_store import (
    DOCUMENT_MODELS,
    BeanieSessionStore,
    CommittedAppend,
    InvalidKeyError,
    InvalidLeaseError,
    Lease,
    LeasedStore,
    LeaseLostError,
    NewSession,
    ObserverError,
    SessionBusyError,
    SessionSummary,
    diagnose,
    set_retention,
    sweep_sessions,
)
from beanie_session_store.app.database.driver import Database
from beanie_session_store.app.leases import held_lease as held_leases
from beanie_session_store.app.leases.held_lease import HeldLease
from beanie_session_store.app.writing import deletion

OTHER = {**KEY, "session_id": "other"}
SHORT = timedelta(seconds=2)
# Nothing of these tests waits for its end.
LONG = timedelta(hours=1)


def summaries(database: Database) -> Any:
    return database[SessionSummary.Settings.name]


async def stored_lease(database: Database) -> dict[str, Any] | None:
    found = await summaries(database).find_one({"session_id": "session"})
    assert found is not None
    return found.get("lease")


async def end_lease(database: Database) -> None:
    """Let the lease have ended, as it does where nobody renews it."""
    past = [{"$set": {"lease.until": {"$subtract": ["$$NOW", 1]}}}]
    assert (await summaries(database).update_one({"session_id": "session"}, past)).matched_count


async def assert_lost(leased: LeasedStore, why: str) -> None:
    """Nothing is written any more, and that is said."""
    before = await leased.load(KEY)
    for _ in range(2):
        with pytest.raises(LeaseLostError, match=why):
            await leased.append(KEY, turn(100))
        with pytest.raises(LeaseLostError, match=why):
            await leased.append(SUBAGENT, turn(100))
        with pytest.raises(LeaseLostError, match=why):
            await leased.delete(KEY)
        with pytest.raises(LeaseLostError, match=why):
            await leased.delete(SUBAGENT)
    assert leased.lost.is_set()
    assert await leased.load(KEY) == before


@pytest.fixture
def database_name(databases: Databases) -> Iterator[str]:
    with databases.migrated() as name:
        yield name


@pytest.fixture(params=["replica set", "standalone"])
def anywhere(request: pytest.FixtureRequest) -> Database:
    """A database on a server with transactions, and on one without."""
    name = "database" if request.param == "replica set" else "standalone_database"
    return request.getfixturevalue(name)


async def test_a_held_session_is_refused_to_others_and_free_again_at_the_end(
    anywhere: Database,
) -> None:
    store, first, second = BeanieSessionStore(), turn(1), turn(2)
    await store.append(KEY, first)
    assert await store.lease_of(KEY) is None
    async with store.lease(SUBAGENT, owner="host-7") as leased:
        await leased.append(KEY, second)
        held = await store.lease_of(KEY)
        assert held is not None
        assert held == leased.lease
        assert held.owner == leased.owner == "host-7"
        assert held.until - held.since == timedelta(seconds=30)
        for other in (store, BeanieSessionStore()):
            with pytest.raises(SessionBusyError, match=r"held by host-7 until .* UTC") as refused:
                async with other.lease(KEY, owner="host-7"):
                    pytest.fail("there are two")
            assert (refused.value.owner, refused.value.until) == ("host-7", held.until)
        async with store.lease(OTHER, owner="host-8"):
            pass
        async with BeanieSessionStore(tenant="acme").lease(KEY, owner="host-8"):
            pass
    assert await store.lease_of(KEY) is None
    assert await stored_lease(anywhere) is None
    with pytest.raises(LeaseLostError, match="its block has ended"):
        await leased.append(KEY, turn(3))
    assert not leased.lost.is_set()
    async with store.lease(KEY, owner="host-8") as leased:
        assert await leased.load(KEY) == first + second
        assert await leased.list_sessions("project") == await store.list_sessions("project")
        assert len(await leased.list_session_summaries("project")) == 1
        assert await leased.list_subkeys(KEY) == []
    await assert_summary_is_the_fold(store)


async def test_a_session_that_is_not_there_yet(anywhere: Database) -> None:
    store, first = BeanieSessionStore(), turn(1)
    async with store.lease(KEY, owner="a") as leased:
        assert await store.load(KEY) is None
        assert await store.list_sessions("project") == []
        assert [each async for each in store.all_sessions()] == []
        assert (await store.sessions()).sessions == []
        with pytest.raises(SessionBusyError):
            async with store.lease(KEY, owner="b"):
                pytest.fail("there are two")
        await leased.append(SUBAGENT, first)
        assert await store.lease_of(KEY) == leased.lease
        await leased.append(KEY, first)
        assert await store.load(KEY) == first
        assert await seqs() == list(range(1, 13))
        await assert_summary_is_the_fold(store)
    assert await store.lease_of(KEY) is None
    # Nothing was written to this one.
    async with store.lease(OTHER, owner="a"):
        assert await summaries(anywhere).count_documents({}) == 2
    assert await summaries(anywhere).count_documents({}) == 1
    assert "remains" not in (await summaries(anywhere).find_one({}))


async def test_stores_without_a_lease_are_not_touched(anywhere: Database) -> None:
    store, free = BeanieSessionStore(), BeanieSessionStore()
    batches = [turn(number) for number in range(8)]
    async with store.lease(KEY, owner="a") as leased:
        for number, batch in enumerate(batches):
            await (free, leased, store)[number % 3].append(KEY, batch)
            assert (await store.lease_of(KEY)) == leased.lease
        assert not leased.lost.is_set()
    assert await store.load(KEY) == list(chain(*batches))
    await assert_summary_is_the_fold(store)


async def test_whatever_begins_a_session_carries_its_lease_over(
    store: BeanieSessionStore, database: Database
) -> None:
    async with store.lease(KEY, owner="a") as leased, store.lease(OTHER, owner="b") as other:
        # Neither is anything of a deleted session that somebody should sweep.
        findings = {each.check: each for each in (await diagnose(database)).findings}
        assert findings["retention"].verdict == "good"
        replay = await BeanieSessionStore().replay(KEY)
        assert await replay.add(turn(1)) == 6
        new = NewSession("project", "other", None, {"": turn(1)})
        assert await store.insert_sessions([new]) == [None]
        await BeanieSessionStore().append(OTHER, turn(1))
        for key, lease in ((KEY, leased), (OTHER, other)):
            assert await store.lease_of(key) == lease.lease
            await lease.append(key, turn(2))
            await store.set_metadata(key, {"user_id": "u1"})
            await store.hold(key)
            await lease.append(key, turn(3))
            await store.release(key)
            assert (await store.repair(key)).is_sound
            await lease.append(key, turn(4))
            assert await store.lease_of(key) == lease.lease
            await assert_summary_is_the_fold(store, key)


async def test_an_observer_hears_what_is_appended_under_a_lease(database: Database) -> None:
    heard: list[tuple[int, bool]] = []
    store = BeanieSessionStore(
        on_committed=lambda told: heard.append((told.last_seq, told.is_new_session))
    )
    async with store.lease(KEY, owner="a") as leased:
        await leased.append(KEY, turn(1))
        await leased.append(SUBAGENT, turn(2))
        batch = turn(3)
        await leased.append(KEY, batch)
        await leased.append(KEY, batch)
    assert heard == [(6, True), (12, False), (18, False)]


async def test_an_observer_cannot_wait_for_what_waits_for_it(database: Database) -> None:
    refused: list[str] = []

    async def on_committed(_: CommittedAppend) -> None:
        try:
            async with store.lease(KEY, owner="observer"):
                pytest.fail("its end would wait for ever")
        except ObserverError as error:
            refused.append(str(error))

    store = BeanieSessionStore(on_committed=on_committed)
    await store.append(KEY, turn(1))
    assert len(refused) == 1


async def test_a_lease_is_read_without_a_time_zone_too(store, database: Database) -> None:
    async with store.lease(KEY, owner="a") as leased:
        await leased.append(KEY, turn(1))
        # By the test's own client, which reads dates as they come.
        assert Lease.of(await stored_lease(database)) == await store.lease_of(KEY)


async def test_other_sessions_are_written_as_without_a_lease(store, database: Database) -> None:
    async with store.lease(KEY, owner="a") as leased:
        await leased.append(OTHER, turn(1))
        assert await leased.load(OTHER) == await store.load(OTHER)
        await end_lease(database)
        await leased.append(OTHER, turn(2))
        await leased.delete(OTHER)
        assert await store.load(OTHER) is None


async def test_a_lease_that_ended_is_over_though_nobody_took_it(anywhere: Database) -> None:
    store = BeanieSessionStore()
    await store.append(SUBAGENT, turn(0))
    for number in range(2):
        async with store.lease(KEY, owner="a", ttl=LONG) as leased:
            await leased.append(KEY, turn(number))
            await end_lease(anywhere)
            assert await store.lease_of(KEY) is None
            await assert_lost(leased, "not renewed in time")


async def test_what_was_taken_over_is_not_written_by_the_one_before(anywhere: Database) -> None:
    store = BeanieSessionStore()
    async with store.lease(KEY, owner="a", ttl=LONG) as before:
        await before.append(KEY, turn(1))
        await end_lease(anywhere)
        async with BeanieSessionStore().lease(KEY, owner="b") as after:
            await assert_lost(before, "b has held the session since")
            await after.append(KEY, turn(2))
            assert not after.lost.is_set()
            assert await store.lease_of(KEY) == after.lease
        # Nor does its end take anything from anybody.
    assert await seqs() == list(range(1, 13))


async def test_a_session_that_is_not_there_can_be_taken_over_too(anywhere: Database) -> None:
    store = BeanieSessionStore()
    async with store.lease(KEY, owner="a", ttl=LONG) as before:
        await end_lease(anywhere)
        async with BeanieSessionStore().lease(KEY, owner="b", ttl=LONG) as after:
            await assert_lost(before, "b has held the session since")
            await end_lease(anywhere)
            async with store.lease(KEY, owner="a") as again:
                await assert_lost(after, "a has held the session since")
                await again.append(KEY, turn(1))
    assert await seqs() == list(range(1, 7))


async def test_what_was_frozen_since_its_claim_is_not_committed(
    store: BeanieSessionStore, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.append(KEY, turn(1))
    stored = HeldLease.stored

    async def late(self: HeldLease, *of_try: Any) -> None:
        now = held_leases.steady_seconds()
        monkeypatch.setattr(held_leases, "steady_seconds", lambda: now + 40)
        await stored(self, *of_try)

    async with store.lease(KEY, owner="a") as leased:
        monkeypatch.setattr(HeldLease, "stored", late)
        with pytest.raises(LeaseLostError, match="stood still"):
            await leased.append(KEY, turn(2))
        assert leased.lost.is_set()
    assert await seqs() == list(range(1, 7))


@pytest.mark.parametrize("key", [KEY, SUBAGENT], ids=["session", "subagent"])
async def test_who_has_lost_a_session_deletes_nothing_of_it(
    anywhere: Database, key: dict[str, str]
) -> None:
    store = BeanieSessionStore()
    await store.append(KEY, turn(1))
    await store.append(SUBAGENT, turn(2))
    async with store.lease(KEY, owner="a", ttl=LONG) as leased:
        await end_lease(anywhere)
        with pytest.raises(LeaseLostError):
            await leased.delete(key)
    assert await seqs() == list(range(1, 13))
    await assert_summary_is_the_fold(store)


@pytest.mark.parametrize("is_new", [True, False])
async def test_deleting_a_session_ends_its_lease(anywhere: Database, is_new: bool) -> None:
    store = BeanieSessionStore()
    if not is_new:
        await store.append(KEY, turn(1))
    async with store.lease(KEY, owner="a", ttl=LONG) as leased:
        await leased.append(KEY, turn(2))
        await store.delete(KEY)
        await assert_lost(leased, "the session was deleted")
        assert await store.load(KEY) is None
    async with store.lease(KEY, owner="a") as leased:
        await leased.append(KEY, turn(3))


async def test_deleting_what_is_not_there_yet_does_nothing(store, database: Database) -> None:
    async with store.lease(KEY, owner="a") as leased:
        await store.delete(KEY)
        await store.delete_sessions(project_key="project")
        await leased.delete(SUBAGENT)
        await leased.delete(KEY)
        await leased.append(KEY, turn(1))
    assert await seqs() == list(range(1, 7))


async def test_a_holder_deletes_under_its_lease(anywhere: Database) -> None:
    store = BeanieSessionStore()
    async with store.lease(KEY, owner="a", ttl=LONG) as leased:
        await leased.append(KEY, turn(1))
        await leased.append(SUBAGENT, turn(2))
        await leased.delete(SUBAGENT)
        assert await store.list_subkeys(KEY) == []
        await leased.append(KEY, turn(3))
        await leased.delete(KEY, wait=True)
        assert await store.load(KEY) is None
        await assert_lost(leased, "the session was deleted")


@pytest.mark.usefixtures("quick_policies")
async def test_a_lease_of_a_session_that_was_deleted_and_is_still_swept(
    store: BeanieSessionStore, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deletion, "MARKED", 4)
    for module in ("reading.load", "queries.search"):
        monkeypatch.setattr(f"beanie_session_store.app.{module}.MARKED", 4)
    monkeypatch.setattr(deletion, "AT_ONCE", 0)
    monkeypatch.setattr(deletion, "go_on", lambda *_: None)
    await store.append(KEY, [*turn(1), *turn(2)])
    await store.delete(KEY)
    assert await seqs()
    async with store.lease(KEY, owner="a") as leased:
        assert (await sweep_sessions(database)).failed == ()
        assert await seqs() == []
        assert await store.lease_of(KEY) == leased.lease
        third = turn(3)
        await leased.append(KEY, third)
        assert await store.load(KEY) == third
        await sweep_sessions(database)
        await leased.append(KEY, turn(4))
    assert await store.lease_of(KEY) is None


async def test_a_mark_that_its_holder_left_is_swept(store, database: Database) -> None:
    async with store.lease(KEY, owner="a"):
        await sweep_sessions(database)
        assert await store.lease_of(KEY) is not None
        await end_lease(database)
        await sweep_sessions(database)
        assert await summaries(database).count_documents({}) == 0


@pytest.mark.usefixtures("quick_policies")
async def test_a_session_that_has_expired_is_taken_as_a_new_one(
    store: BeanieSessionStore, database: Database
) -> None:
    await store.append(KEY, turn(1))
    await set_retention(database, timedelta(days=1), tenant="default")
    past = [{"$set": {"expires_at": {"$subtract": ["$$NOW", 1]}}}]
    await summaries(database).update_one({}, past)
    # MongoDB would take it, and the lease with it.
    async with without_expiry(database), store.lease(KEY, owner="a") as leased:
        assert await store.load(KEY) is None
        second = turn(2)
        await leased.append(KEY, second)
        assert await store.load(KEY) == second
        assert await store.lease_of(KEY) == leased.lease


async def test_a_broken_lease_is_lost_and_its_holder_hears_once(
    store: BeanieSessionStore, database: Database
) -> None:
    told = 0

    async def on_lost() -> None:
        nonlocal told
        told += 1
        raise RuntimeError("fails by itself")

    assert await store.break_lease(KEY) is None
    async with store.lease(KEY, owner="a", ttl=SHORT, on_lost=on_lost) as leased:
        broken = await BeanieSessionStore().break_lease(SUBAGENT)
        assert broken is not None
        assert broken.owner == "a"
        assert await store.lease_of(KEY) is None
        assert await summaries(database).count_documents({}) == 0
        # By its next renewal.
        await asyncio.wait_for(leased.lost.wait(), WATCHDOG_SECONDS)
        await assert_lost(leased, "by an operator")
    assert told == 1


@pytest.mark.parametrize("fails", [RuntimeError, asyncio.CancelledError, KeyboardInterrupt])
async def test_a_block_that_fails_gives_back(
    store: BeanieSessionStore, database: Database, fails: type[BaseException]
) -> None:
    told: list[str] = []

    async def hold() -> None:
        async with store.lease(KEY, owner="a", on_lost=lambda: told.append("lost")) as leased:
            await leased.append(KEY, turn(1))
            raise fails

    with pytest.raises(fails):
        await hold()
    assert await stored_lease(database) is None
    assert told == []


async def test_a_cancelled_holder_gives_back_what_it_wrote_under(
    store: BeanieSessionStore, database: Database
) -> None:
    """An append whose caller is cancelled goes on, and has the lease until it is done."""
    begun = asyncio.Event()
    first = [*turn(1), *turn(2)]

    async def hold() -> None:
        async with store.lease(KEY, owner="a") as leased:
            appending = asyncio.create_task(leased.append(KEY, first))
            await asyncio.sleep(0)
            begun.set()
            await appending

    task = asyncio.create_task(hold())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await store.load(KEY) == first
    assert await stored_lease(database) is None


async def test_whoever_is_cancelled_while_taking_holds_nothing(
    store: BeanieSessionStore, database: Database
) -> None:
    await store.append(KEY, turn(1))

    async def hold() -> None:
        async with store.lease(KEY, owner="a", ttl=LONG):
            await asyncio.sleep(WATCHDOG_SECONDS)

    for turns_of_loop in range(40):
        task = asyncio.create_task(hold())
        for _ in range(turns_of_loop):
            await asyncio.sleep(0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        # What goes on without its caller has ended before another one gets it.
        async with BeanieSessionStore().lease(
            KEY, owner="b", wait=timedelta(seconds=WATCHDOG_SECONDS)
        ):
            pass
    assert await stored_lease(database) is None


async def test_of_two_at_once_one_gets_it_and_the_other_when_it_waits(
    store: BeanieSessionStore,
) -> None:
    inside = 0

    async def hold(owner: str, wait: timedelta | None) -> bool:
        nonlocal inside
        try:
            async with store.lease(KEY, owner=owner, wait=wait) as leased:
                inside += 1
                assert inside == 1
                await leased.append(KEY, turn(1))
                inside -= 1
                return True
        except SessionBusyError:
            return False

    got = await asyncio.gather(*(hold(owner, None) for owner in "abcdefgh"))
    assert sum(got) >= 1
    wait = timedelta(seconds=WATCHDOG_SECONDS)
    assert all(await asyncio.gather(*(hold(owner, wait) for owner in "abcd")))
    async with store.lease(KEY, owner="a"):
        assert not await hold("b", timedelta(0))
        assert not await hold("b", timedelta(milliseconds=100))


async def test_a_held_lease_lasts_for_longer_than_its_ttl(store: BeanieSessionStore) -> None:
    async with store.lease(KEY, owner="a", ttl=SHORT) as leased:
        first = leased.until
        while leased.until < first + SHORT:
            await asyncio.sleep(0.05)
            assert not leased.lost.is_set()
        assert leased.lease.since < first


@pytest.fixture
async def commands(mongo_url: str, database_name: str, database: Database) -> AsyncIterator[Any]:
    commands = Commands()
    async with connected(mongo_url, event_listeners=[commands]) as client:
        await init_beanie(database=client[database_name], document_models=DOCUMENT_MODELS)
        yield commands


async def test_a_held_lease_costs_no_command_more_per_append(commands: Commands) -> None:
    store = BeanieSessionStore()
    warm = ["update", "insert", "commitTransaction"]
    await store.append(KEY, turn(0))
    commands.sent.clear()
    async with store.lease(KEY, owner="a", ttl=LONG) as leased:
        assert commands.names == ["findAndModify"]
        for number in range(1, 4):
            commands.sent.clear()
            await leased.append(KEY, turn(number))
            assert commands.names == warm
            commands.sent.clear()
            await store.append(KEY, turn(10 + number))
            assert commands.names == warm
        commands.sent.clear()
    assert commands.names == ["findAndModify"]
    commands.sent.clear()
    await store.append(KEY, turn(5))
    assert commands.names == warm
    assert "lease" not in str(commands.sent[0])


BAD: list[tuple[str, dict[str, Any]]] = [
    *(("owner", {"owner": owner}) for owner in ("", None, 7, b"x", "a\nb", "\x1b[2J", "\ud83d")),
    ("longer than 256 bytes", {"owner": "x" * 257}),
    ("longer than 256 bytes", {"owner": "é" * 129}),
    ("longer than 256 bytes", {"owner": "x" * 10_000_000}),
    *(
        ("ttl", {"ttl": ttl})
        for ttl in (
            *(None, 30, True, "30s", timedelta(seconds=1.99), timedelta(hours=1, seconds=1)),
            *(timedelta.max, timedelta.min, -SHORT),
        )
    ),
    *(("wait", {"wait": wait}) for wait in (5, "5s", True, timedelta(seconds=-1), timedelta.min)),
    *(("on_lost", {"on_lost": function}) for function in (5, "print", object())),
]


@pytest.mark.parametrize(("what", "given"), BAD)
async def test_what_no_lease_can_be_asked_for_with(what: str, given: dict[str, Any]) -> None:
    # No database is there to be touched.
    with pytest.raises(InvalidLeaseError, match=what) as refused:
        async with BeanieSessionStore().lease(KEY, **{"owner": "a", **given}):
            pytest.fail("it was taken")
    assert len(str(refused.value)) < 400
    with pytest.raises(InvalidKeyError):
        async with BeanieSessionStore().lease({}, owner="a"):
            pytest.fail("it was taken")


@pytest.mark.parametrize(
    "owner", ["x" * 256, "$owner", "é" * 128, " ", "host-7 \U0001f600", "$$NOW"]
)
async def test_any_other_owner_is_told_as_it_is(store: BeanieSessionStore, owner: str) -> None:
    async with store.lease(KEY, owner=owner):
        lease = await store.lease_of(KEY)
        assert lease is not None
        assert lease.owner == owner
        with pytest.raises(SessionBusyError) as refused:
            async with store.lease(KEY, owner="b"):
                pytest.fail("there are two")
        assert refused.value.owner == owner


@pytest.mark.parametrize(
    "odd",
    [
        *(None, "x", 7, [], {}, {"until": "x"}, {"until": None, "grant": ObjectId()}),
        *([{"until": 1}], {"owner": 5, "until": {"$date": 1}}),
    ],
)
async def test_what_something_else_wrote_for_a_lease_is_none(
    store: BeanieSessionStore, database: Database, odd: Any
) -> None:
    await store.append(KEY, turn(1))
    await summaries(database).update_one({}, {"$set": {"lease": odd}})
    assert await store.lease_of(KEY) is None
    assert await store.break_lease(KEY) is None
    assert len((await store.sessions()).sessions) == 1
    await BeanieSessionStore().append(KEY, turn(2))
    async with store.lease(KEY, owner="a") as leased:
        await leased.append(KEY, turn(3))
    assert await stored_lease(database) is None
