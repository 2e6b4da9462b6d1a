"""A feed tells of a tenant's sessions as they change: each change once, in order, to everybody."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress
from datetime import datetime, timezone
from itertools import count
from typing import Any

import pytest
from beanie import init_beanie
from bson import Timestamp
from pymongo.errors import AutoReconnect
from support.database import prepared
from support.entries import KEY, SUBAGENT, message, turn
from support.server import connected, failing
from support.watchdog import WATCHDOG_SECONDS
from support.watches import open_watches, until_watched

from beanie_session_store import (
    DOCUMENT_MODELS,
    BeanieSessionStore,
    ClientClosedError,
    EmbeddedMongo,
    Feed,
    FeedLostError,
    FeedOverrunError,
    InvalidKeyError,
    InvalidQueryError,
    SessionChange,
    SessionStoreError,
    StandaloneError,
    upgrade_schema,
)
from beanie_session_store.app.database.driver import Database
from beanie_session_store.app.feed import feed as feeds
from beanie_session_store.app.feed import hub as hubs


def named(number: int) -> dict[str, str]:
    return {**KEY, "session_id": f"s{number}"}


async def taken(feed: Feed, count: int) -> list[SessionChange]:
    """The next changes of a feed."""

    async def take() -> list[SessionChange]:
        return [await anext(feed) for _ in range(count)]

    return await asyncio.wait_for(take(), WATCHDOG_SECONDS)


def told(changes: list[SessionChange]) -> list[tuple[str, str, int | None]]:
    return [(change.kind, change.session_id, change.next_seq) for change in changes]


async def test_each_change_of_a_session_is_told_once_and_in_order(
    store: BeanieSessionStore,
) -> None:
    async with store.feed() as feed:
        await store.append(KEY, turn(1))
        await store.append(SUBAGENT, [message("sub")])
        await store.append(named(2), [message("other")])
        # Stores nothing, so nothing changed.
        await store.append(KEY, [])
        await store.set_metadata(KEY, {"user": "u1"})
        await store.hold(KEY)
        await store.release(KEY)
        await store.delete(KEY)
        await store.append(KEY, [message("anew")])
        changes = await taken(feed, 8)
    assert told(changes) == [
        ("created", "session", 7),
        ("changed", "session", 8),
        ("created", "s2", 2),
        ("changed", "session", None),
        ("changed", "session", None),
        ("changed", "session", None),
        ("deleted", "session", None),
        ("created", "session", changes[-1].next_seq),
    ]
    assert changes[0].key() == KEY
    assert len({change.token for change in changes}) == 8
    assert feed.token == changes[-1].token


async def test_a_feed_is_of_one_tenant(store: BeanieSessionStore) -> None:
    other = BeanieSessionStore(tenant="other")
    async with store.feed() as feed, other.feed() as theirs:
        await other.append(KEY, [message("theirs")])
        await store.append(named(1), [message("mine")])
        await other.delete(KEY)
        await store.append(named(1), [message("mine")])
        assert [change.session_id for change in await taken(feed, 2)] == ["s1", "s1"]
        assert [change.kind for change in await taken(theirs, 2)] == ["created", "deleted"]


async def test_a_deletion_is_told_of_a_session_that_the_feed_had_not_met(
    store: BeanieSessionStore,
) -> None:
    await store.append(KEY, turn(1))
    await BeanieSessionStore(tenant="other").append(KEY, turn(1))
    async with store.feed() as feed:
        await BeanieSessionStore(tenant="other").delete(KEY)
        await store.delete(KEY)
        assert told(await taken(feed, 1)) == [("deleted", "session", None)]


async def test_a_large_session_is_deleted_once(store: BeanieSessionStore) -> None:
    await store.append(KEY, [message(str(number)) for number in range(2_500)])
    async with store.feed() as feed:
        await store.delete(KEY, wait=True)
        await store.append(named(1), [message("after")])
        assert [change.kind for change in await taken(feed, 2)] == ["deleted", "created"]


async def test_what_expires_is_told_of_when_it_goes(
    store: BeanieSessionStore, database: Database
) -> None:
    await store.append(KEY, turn(1))
    past = datetime(2020, 1, 1, tzinfo=timezone.utc)
    async with store.feed() as feed:
        summaries = database["claude_transcript_summaries"]
        await summaries.update_many({}, {"$set": {"expires_at": past}})
        assert told(await taken(feed, 1)) == [("deleted", "session", None)]


async def test_a_feed_goes_on_behind_its_token_from_what_is_in_memory(
    store: BeanieSessionStore, database: Database
) -> None:
    async with store.feed() as first:
        began = first.token
        for number in range(5):
            await store.append(named(number), [message("x")])
        changes = await taken(first, 5)
        for place, rest in ((began, changes), (changes[1].token, changes[2:]), (first.token, [])):
            async with store.feed(after=place) as again:
                assert await taken(again, len(rest)) == rest
                assert await open_watches(database) == 1


@pytest.mark.parametrize("others", [0, 1])
async def test_a_feed_goes_on_behind_its_token_from_the_log(
    store: BeanieSessionStore, database: Database, others: int
) -> None:
    async with store.feed() as first:
        began = first.token
        for number in range(5):
            await store.append(named(number), [message("x")])
        await BeanieSessionStore(tenant="other").append(KEY, [message("theirs")])
        changes = await taken(first, 5)
    await store.delete(named(0))
    await store.delete(named(1))
    async with AsyncExitStack() as stack:
        for _ in range(others):
            await stack.enter_async_context(store.feed())
        for place, rest in ((began, changes), (changes[2].token, changes[3:])):
            async with store.feed(after=place) as again:
                found = await taken(again, len(rest) + 2)
                assert found[: len(rest)] == rest
                assert [change.kind for change in found[len(rest) :]] == ["deleted"] * 2
                await store.append(KEY, [message(place)])
                assert (await taken(again, 1))[0].session_id == "session"
        await until_watched(database, others)


async def test_what_comes_while_a_feed_catches_up_comes_behind_it_and_once(
    store: BeanieSessionStore,
) -> None:
    async with store.feed() as first:
        began = first.token
    for number in range(30):
        await store.append(named(number), [message("before")])
    async with store.feed(after=began) as feed:
        found = await taken(feed, 10)
        await asyncio.gather(
            *(store.append(named(number), [message("between")]) for number in range(30))
        )
        found += await taken(feed, 50)
    assert [change.kind for change in found] == ["created"] * 30 + ["changed"] * 30
    assert len({change.token for change in found}) == 60
    assert [change.token for change in found] == sorted(change.token for change in found)


async def earlier(store: BeanieSessionStore, sessions: int) -> str:
    """A place in the log before as many sessions were made, of which no memory tells."""
    async with store.feed() as feed:
        began = feed.token
    for number in range(sessions):
        await store.append(named(number), [message("x")])
    return began


async def test_cancelled_looks_at_the_log_lose_nothing(
    store: BeanieSessionStore, database: Database
) -> None:
    began = await earlier(store, 5)
    async with store.feed(after=began) as feed:
        found: list[str] = []

        async def look_away() -> None:
            for rounds in count():
                look = asyncio.ensure_future(anext(feed))
                for _ in range(rounds % 7):
                    await asyncio.sleep(0)
                look.cancel()
                (change,) = await asyncio.gather(look, return_exceptions=True)
                if isinstance(change, SessionChange):
                    found.append(change.session_id)
                if len(found) == 5:
                    return

        await asyncio.wait_for(look_away(), WATCHDOG_SECONDS)
        await store.append(KEY, [message("after")])
        found += [change.session_id for change in await taken(feed, 1)]
        assert found == ["s0", "s1", "s2", "s3", "s4", "session"]
    await until_watched(database, 0)


async def test_a_look_at_the_log_that_failed_is_made_again_from_there(
    store: BeanieSessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, looks = hubs.Hub._understood, count(1)

    async def fails(self: hubs.Hub, document: Any) -> Any:
        if next(looks) == 3:
            raise AutoReconnect("lost")
        return await real(self, document)

    began = await earlier(store, 4)
    async with store.feed(after=began) as feed:
        monkeypatch.setattr(hubs.Hub, "_understood", fails)
        await taken(feed, 2)
        with pytest.raises(SessionStoreError):
            await taken(feed, 1)
        assert [change.session_id for change in await taken(feed, 2)] == ["s2", "s3"]


async def test_nobody_waits_for_one_who_is_slow_to_take_from_the_log(
    store: BeanieSessionStore, database: Database
) -> None:
    began = await earlier(store, 3)
    other = BeanieSessionStore(tenant="other")
    async with store.feed(after=began) as slow:
        await taken(slow, 1)
        async with store.feed(after=began) as quick, other.feed(after=began) as theirs:
            assert len(await taken(quick, 3)) == 3
            await other.append(KEY, [message("theirs")])
            assert len(await taken(theirs, 1)) == 1
        assert [change.session_id for change in await taken(slow, 2)] == ["s1", "s2"]
    await until_watched(database, 0)


async def test_one_change_stream_is_open_for_all_and_none_when_they_left(
    store: BeanieSessionStore, database: Database
) -> None:
    async with AsyncExitStack() as stack:
        entered = [
            await stack.enter_async_context(BeanieSessionStore(tenant=f"t{n % 7}").feed())
            for n in range(100)
        ]
        assert await open_watches(database) == 1
        for number in range(7):
            await BeanieSessionStore(tenant=f"t{number}").append(KEY, [message("x")])
        found = await asyncio.gather(*(taken(feed, 1) for feed in entered))
        assert [[change.kind for change in each] for each in found] == [["created"]] * 100
    await until_watched(database, 0)
    assert not hubs._hubs


async def test_a_feed_that_is_cancelled_at_any_moment_leaves_nothing_open(
    store: BeanieSessionStore, database: Database
) -> None:
    async def follow() -> None:
        async with store.feed() as feed:
            async for _ in feed:
                pass

    for pause in (0, 0.001, 0.003, 0.01, 0.05):
        task = asyncio.create_task(follow())
        await asyncio.sleep(pause)
        task.cancel()
        await asyncio.wait([task], timeout=WATCHDOG_SECONDS)
        assert task.cancelled()
    await until_watched(database, 0)
    assert not hubs._hubs
    async with store.feed() as feed:
        await store.append(KEY, [message("x")])
        assert len(await taken(feed, 1)) == 1


async def test_a_feed_is_left_though_the_driver_forgets_a_cancellation(
    store: BeanieSessionStore, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def forgets(hub: hubs.Hub) -> Timestamp:
        # As wait_for does before Python 3.12, if the answer comes with the cancellation.
        with suppress(asyncio.CancelledError):
            opening.set()
            await asyncio.Event().wait()
        return await now(hub)

    async def follow() -> None:
        async with store.feed():
            pass

    opening, now = asyncio.Event(), hubs.Hub._now
    monkeypatch.setattr(hubs.Hub, "_now", forgets)
    following = asyncio.create_task(follow())
    await asyncio.wait_for(opening.wait(), WATCHDOG_SECONDS)
    following.cancel()
    await asyncio.wait([following], timeout=WATCHDOG_SECONDS)
    assert following.cancelled()
    await until_watched(database, 0)
    assert not hubs._hubs


async def test_one_that_leaves_while_another_opens_disturbs_nobody(
    store: BeanieSessionStore, database: Database
) -> None:
    async def visit(number: int) -> None:
        async with store.feed() as feed:
            await store.append(named(number), [message("x")])
            while (await taken(feed, 1))[0].session_id != f"s{number}":
                pass

    for _ in range(3):
        await asyncio.gather(*(visit(number) for number in range(10)))
    await until_watched(database, 0)


async def test_a_feed_that_is_not_taken_from_is_ended_and_goes_on_by_its_token(
    store: BeanieSessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "MOST_PENDING", 20)
    async with store.feed() as slow, store.feed() as quick:
        for number in range(15):
            await store.append(named(number), [message("x")])
        await taken(quick, 15)
        first = await taken(slow, 2)
        for number in range(15, 30):
            await store.append(named(number), [message("x")])
        await taken(quick, 15)
        with pytest.raises(FeedOverrunError, match="nothing is lost"):
            await taken(slow, 1)
        assert slow.token == first[-1].token
        async with store.feed(after=slow.token) as again:
            found = await taken(again, 28)
            assert [change.session_id for change in found] == [f"s{n}" for n in range(2, 30)]


@pytest.mark.parametrize(
    "after",
    [
        "",
        "x",
        1,
        b"82",
        {"_data": "82"},
        "82zz" * 10,
        "82" + "F" * 9000,
        "92" * 20,
        "82" + "0" * 16,
    ],
)
async def test_what_is_no_token_is_refused_at_once(store: BeanieSessionStore, after: Any) -> None:
    with pytest.raises(InvalidQueryError):
        store.feed(after=after)


@pytest.mark.parametrize("after", ["82" + "6A" * 20, "8265000000000000012B0000"])
async def test_a_token_of_elsewhere_is_refused_when_it_is_used(
    store: BeanieSessionStore, after: str
) -> None:
    async with store.feed(after=after) as feed:
        with pytest.raises((FeedLostError, InvalidQueryError)):
            await taken(feed, 1)


async def test_a_dropped_collection_ends_the_feed(
    store: BeanieSessionStore, database: Database
) -> None:
    await store.append(KEY, turn(1))
    async with store.feed() as feed:
        await database["claude_transcript_summaries"].drop()
        with pytest.raises(FeedLostError, match="dropped"):
            await taken(feed, 1)
    assert not hubs._hubs


async def test_a_standalone_server_tells_of_nothing(standalone_database: Database) -> None:
    with pytest.raises(StandaloneError, match="no replica set"):
        async with BeanieSessionStore().feed():
            pass


async def test_a_feed_gets_over_lost_connections(mongo_url: str, database_name: str) -> None:
    # A database that no other test has: what a lost connection had open stays open for a while.
    async with connected(mongo_url, heartbeatFrequencyMS=500) as client:
        database = await prepared(client[database_name])
        store = BeanieSessionStore()
        async with store.feed() as feed:
            for number in range(4):
                commands = ["getMore", "aggregate"]
                async with failing(
                    database, "", {"times": 4}, failCommands=commands, closeConnection=True
                ):
                    await store.append(named(number), [message("x")])
                    assert [each.session_id for each in await taken(feed, 1)] == [f"s{number}"]


async def test_each_client_has_a_stream_of_its_own(
    mongo_url: str, store: BeanieSessionStore, database: Database
) -> None:
    async with store.feed() as feed:
        mine = await open_watches(database)
        async with (
            connected(mongo_url) as other,
            BeanieSessionStore.on(other[database.name]).feed() as theirs,
        ):
            await store.append(KEY, [message("x")])
            assert len(await taken(theirs, 1)) == 1
            assert await open_watches(database) == mine + 1
        await store.append(KEY, [message("y")])
        assert [change.kind for change in await taken(feed, 2)] == ["created", "changed"]


async def test_each_event_loop_has_a_stream_of_its_own(
    mongo_url: str, store: BeanieSessionStore, database: Database
) -> None:
    """As threads and jobs have them, one after another and at once."""

    async def follow() -> list[str]:
        async with (
            BeanieSessionStore.connect(mongo_url, database=database.name, upgrade=False) as other,
            other.feed() as theirs,
        ):
            await other.append(KEY, [message("x")])
            return [change.kind for change in await taken(theirs, 1)]

    async with store.feed() as feed:
        for kind in ("created", "changed"):
            assert await asyncio.to_thread(asyncio.run, follow()) == [kind]
            assert [change.kind for change in await taken(feed, 1)] == [kind]
    assert not hubs._hubs


async def test_a_client_that_is_closed_ends_its_feeds(
    mongo_url: str, store: BeanieSessionStore, database: Database
) -> None:
    async with AsyncExitStack() as stack:
        connection = BeanieSessionStore.connect(mongo_url, database=database.name, upgrade=False)
        async with connection as other:
            left_open = await stack.enter_async_context(other.feed())
        with pytest.raises(ClientClosedError):
            await taken(left_open, 1)
        await until_watched(database, 0)
    assert not hubs._hubs


async def test_a_feed_of_one_session_tells_of_it_alone(store: BeanieSessionStore) -> None:
    async with store.feed(SUBAGENT) as feed:
        began = feed.token
        await store.append(named(1), [message("other")])
        await store.append(SUBAGENT, [message("mine")])
        await store.append(KEY, [message("mine")])
        assert told(await taken(feed, 2)) == [("created", "session", 2), ("changed", "session", 3)]
    async with store.feed(KEY, after=began) as again:
        assert [change.next_seq for change in await taken(again, 2)] == [2, 3]
    with pytest.raises(InvalidKeyError):
        store.feed({"project_key": "p"})


async def test_what_was_written_by_something_else_is_passed_over(
    store: BeanieSessionStore, database: Database
) -> None:
    summaries = database["claude_transcript_summaries"]
    async with store.feed() as feed:
        odd = {"tenant": "default", "project_key": "p", "session_id": 7}
        found = (await summaries.insert_one(odd)).inserted_id
        await summaries.update_one({"_id": found}, {"$set": {"next_seq": "many"}})
        await summaries.delete_one({"_id": found})
        await store.append(KEY, [message("x")])
        assert told(await taken(feed, 1)) == [("created", "session", 2)]


async def test_every_change_comes_once_and_in_order_over_step_downs() -> None:
    async with EmbeddedMongo(members=3) as mongo, connected(mongo.url) as client:
        database = client["watched"]
        await upgrade_schema(database)
        await init_beanie(database=database, document_models=DOCUMENT_MODELS)
        store = BeanieSessionStore()
        async with store.feed() as first, store.feed() as second:
            began = first.token
            for number in range(60):
                if number in (15, 35):
                    await client.admin.command(
                        "replSetStepDown", 5, secondaryCatchUpPeriodSecs=5, force=True
                    )
                await store.append(named(number % 10), [message(str(number))])
            expected = [(f"s{number % 10}", number // 10 + 2) for number in range(60)]
            for feed in (first, second):
                found = await taken(feed, 60)
                assert [(each.session_id, each.next_seq) for each in found] == expected
        async with store.feed(after=began) as again:
            found = await taken(again, 60)
            assert [(each.session_id, each.next_seq) for each in found] == expected
