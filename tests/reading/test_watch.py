"""A watcher sees what is stored, then what is appended: all of it, once and in order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from typing import Any

import pytest
from beanie import init_beanie
from support.database import prepared
from support.entries import KEY, SUBAGENT, message, turn
from support.server import connected, failing
from support.watchdog import WATCHDOG_SECONDS
from support.watches import open_watches, until_watched

from beanie_session_store import (
    DOCUMENT_MODELS,
    BeanieSessionStore,
    EmbeddedMongo,
    InvalidKeyError,
    SessionChangedError,
    StandaloneError,
    StreamedEntry,
    upgrade_schema,
)
from beanie_session_store.app.database.driver import Database


class Watcher:
    """Collects what a watch gives, in a task of its own."""

    def __init__(self, watched: AsyncIterator[StreamedEntry]) -> None:
        self.seen: list[StreamedEntry] = []
        self._changed = asyncio.Condition()
        self._task = asyncio.create_task(self._collect(watched))

    async def _collect(self, watched: AsyncIterator[StreamedEntry]) -> None:
        try:
            async for entry in watched:
                async with self._changed:
                    self.seen.append(entry)
                    self._changed.notify_all()
        finally:
            async with self._changed:
                self._changed.notify_all()

    async def until(self, count: int, seconds: float = WATCHDOG_SECONDS) -> list[StreamedEntry]:
        """What was seen, once it is ``count`` entries."""

        def is_done() -> bool:
            return len(self.seen) >= count or self._task.done()

        async with self._changed:
            await asyncio.wait_for(self._changed.wait_for(is_done), seconds)
        if self._task.done():
            await self._task
        return self.seen

    async def ended(self) -> None:
        await asyncio.wait_for(self._task, WATCHDOG_SECONDS)

    async def __aenter__(self) -> Watcher:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])


async def test_stored_entries_come_first_and_new_ones_follow(store: BeanieSessionStore) -> None:
    first, second = turn(1), turn(2)
    await store.append(KEY, first)
    async with Watcher(store.watch(KEY)) as watcher:
        assert await watcher.until(len(first)) == first
        await store.append(KEY, second)
        seen = await watcher.until(len(first + second))
        assert seen == first + second
        assert [entry.seq for entry in seen] == list(range(1, len(seen) + 1))
        # A replay stores nothing, so it is not seen.
        await store.append(KEY, second)
        await store.append(KEY, [message("last")])
        assert len(await watcher.until(len(seen) + 1)) == len(first + second) + 1


async def test_a_watcher_goes_on_behind_the_entry_it_stopped_at(store: BeanieSessionStore) -> None:
    entries = turn(1)
    await store.append(KEY, entries)
    async with Watcher(store.watch(KEY, after=4)) as watcher:
        assert await watcher.until(2) == entries[4:]


async def test_a_session_may_be_watched_before_it_exists(store: BeanieSessionStore) -> None:
    async with Watcher(store.watch(KEY)) as watcher:
        await asyncio.sleep(0.5)
        entries: list[Any] = []
        for number in range(5):
            await store.append(KEY, turn(number))
            entries += turn_of(await store.load(KEY), number)
        assert await watcher.until(30) == await store.load(KEY)


def turn_of(entries: Any, number: int) -> list[Any]:
    return entries[number * 6 : number * 6 + 6]


async def test_all_transcripts_of_a_session_are_followed_in_the_order_of_writing(
    store: BeanieSessionStore,
) -> None:
    large = message("\0huge" * 4_000_000)
    await store.append(KEY, turn(1))
    await store.append(SUBAGENT, [large])
    await store.append({**KEY, "session_id": "other"}, turn(2))
    async with Watcher(store.watch(SUBAGENT, after=5, with_subagents=True)) as watcher:
        await watcher.until(2)
        await store.append(KEY, [message("main")])
        await store.append({**KEY, "subpath": "subagents/agent-new"}, [message("new")])
        await store.append(SUBAGENT, [message("old")])
        seen = await watcher.until(5)
    assert [entry.seq for entry in seen] == [6, 7, 8, 9, 10]
    old, new = SUBAGENT["subpath"], "subagents/agent-new"
    assert [entry.subpath for entry in seen] == ["", old, "", new, old]
    assert seen[1] == large


async def test_one_transcript_is_watched_and_nothing_of_others(store: BeanieSessionStore) -> None:
    elsewhere = [{**KEY, "session_id": "other"}, {**KEY, "project_key": "other"}]
    async with Watcher(store.watch(SUBAGENT)) as watcher, Watcher(store.watch(KEY)) as main:
        for number in range(3):
            await store.append(KEY, [message(f"main {number}")])
            for other in elsewhere:
                await store.append(other, [message("other")])
            await BeanieSessionStore(tenant="other").append(SUBAGENT, [message("other")])
            await store.append(SUBAGENT, [message(f"sub {number}")])
        assert await watcher.until(3) == await store.load(SUBAGENT)
        assert await main.until(3) == await store.load(KEY)
        assert [entry.seq for entry in watcher.seen] == [2, 4, 6]


async def test_entries_that_bson_refuses_are_seen_like_others(store: BeanieSessionStore) -> None:
    odd = [{"cut": "\ud83d"}, {"a\0b": 1}, {"n": 2**70}]
    async with Watcher(store.watch(KEY)) as watcher:
        await store.append(KEY, [message("first")])
        await store.append(KEY, odd)
        assert (await watcher.until(4))[1:] == odd


async def test_a_deleted_session_ends_the_watch(store: BeanieSessionStore) -> None:
    await store.append(KEY, turn(1))
    async with Watcher(store.watch(KEY)) as watcher:
        await watcher.until(6)
        await store.delete(KEY)
        with pytest.raises(SessionChangedError, match="was deleted"):
            await watcher.ended()


async def test_a_session_made_anew_is_not_taken_for_the_old_one(store: BeanieSessionStore) -> None:
    await store.append(KEY, turn(1))
    async with Watcher(store.watch(KEY, after=5)) as watcher:
        await watcher.until(1)
        await store.delete(KEY)
        await store.append(KEY, turn(2) + turn(3))
        with pytest.raises(SessionChangedError):
            await watcher.ended()
        assert len(watcher.seen) == 1


async def test_a_watcher_that_is_left_holds_nothing_at_the_server(
    store: BeanieSessionStore, database: Database
) -> None:
    await store.append(KEY, turn(1))
    async with aclosing(store.watch(KEY)) as watched:
        for _ in range(6):
            await anext(watched)
        following = asyncio.create_task(anext(watched))
        await until_watched(database, 1)
        new = message("new")
        await store.append(KEY, [new])
        assert await following == new
        assert await open_watches(database) == 1
    assert await open_watches(database) == 0
    async with Watcher(store.watch(KEY)) as watcher:
        await watcher.until(7)
        await until_watched(database, 1)
    await until_watched(database, 0)


async def test_a_watch_that_is_cancelled_at_any_moment_holds_nothing_either(
    store: BeanieSessionStore, database: Database
) -> None:
    await store.append(KEY, turn(1))
    for moment in range(60):
        watching = asyncio.create_task(anext(store.watch(KEY, after=6)))
        await asyncio.sleep(moment / 2000)
        watching.cancel()
        await asyncio.wait([watching])
        assert watching.cancelled()
    await until_watched(database, 0)


@pytest.mark.parametrize("watchers", [3, 7])
async def test_watchers_that_take_all_connections_stop_nobody(
    mongo_url: str, database_name: str, watchers: int
) -> None:
    async with connected(mongo_url, maxPoolSize=3) as client, AsyncExitStack() as stack:
        await prepared(client[database_name])
        store = BeanieSessionStore()
        await store.append(KEY, turn(1))
        entered = [
            await stack.enter_async_context(Watcher(store.watch(KEY))) for _ in range(watchers)
        ]
        for watcher in entered:
            await watcher.until(6)
        for number in (2, 3, 4):
            await asyncio.wait_for(store.append(KEY, turn(number)), WATCHDOG_SECONDS)
        for watcher in entered:
            assert await watcher.until(24) == await asyncio.wait_for(
                store.load(KEY), WATCHDOG_SECONDS
            )


async def test_a_standalone_server_is_named_as_the_reason(standalone_database: Database) -> None:
    store = BeanieSessionStore()
    await store.append(KEY, turn(1))
    with pytest.raises(StandaloneError, match="no replica set"):
        await anext(store.watch(KEY))


class Clock:
    """The steady clock, which can be put forward."""

    ahead = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead


async def test_an_idle_watcher_gets_over_lost_connections(
    mongo_url: str, database_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr("beanie_session_store.app.database.attempts.time", clock)
    monkeypatch.setattr("beanie_session_store.app.reading.watch.monotonic", clock.monotonic)
    # A database that no other test has: what a lost connection had open stays open for a while.
    async with connected(mongo_url, heartbeatFrequencyMS=500) as client:
        database = await prepared(client[database_name])
        store = BeanieSessionStore()
        await store.append(KEY, turn(1))
        async with Watcher(store.watch(KEY)) as watcher:
            await watcher.until(6)
            for number in (2, 3):
                # Longer than one trouble may take; then more of it than the driver hides.
                clock.ahead += 60
                commands = ["getMore", "aggregate"]
                async with failing(
                    database, "", {"times": 4}, failCommands=commands, closeConnection=True
                ):
                    await asyncio.sleep(2)
                await store.append(KEY, turn(number))
                assert await watcher.until(6 * number) == await store.load(KEY)


async def test_a_dropped_collection_ends_the_watch(
    store: BeanieSessionStore, database: Database
) -> None:
    await store.append(KEY, turn(1))
    async with Watcher(store.watch(KEY)) as watcher:
        await watcher.until(6)
        await database["claude_transcript_summaries"].drop()
        with pytest.raises(SessionChangedError):
            await watcher.ended()


@pytest.mark.parametrize("after", ["1", 1.0, True, {"$gt": 0}])
async def test_a_position_that_is_none_is_refused_at_once(
    store: BeanieSessionStore, after: Any
) -> None:
    with pytest.raises(InvalidKeyError):
        store.watch(KEY, after=after)


async def test_every_entry_comes_once_and_in_order_over_two_step_downs() -> None:
    async with EmbeddedMongo(members=3) as mongo, connected(mongo.url) as client:
        database = client["watched"]
        await upgrade_schema(database)
        await init_beanie(database=database, document_models=DOCUMENT_MODELS)
        store = BeanieSessionStore()
        batches = [[message(f"{batch}.{n}") for n in range(25)] for batch in range(50)]
        written = [entry for batch in batches for entry in batch]
        async with Watcher(store.watch(KEY)) as first, Watcher(store.watch(KEY)) as second:
            for number, batch in enumerate(batches):
                if number in (15, 30):
                    await database.client.admin.command(
                        "replSetStepDown", 5, secondaryCatchUpPeriodSecs=5, force=True
                    )
                await retried_append(store, batch)
            for watcher in (first, second):
                assert await watcher.until(len(written), 120) == written
                assert [entry.seq for entry in watcher.seen] == list(range(1, len(written) + 1))


async def retried_append(store: BeanieSessionStore, batch: list[Any]) -> None:
    """As the SDK does: the same batch, up to three times."""
    for left in (2, 1, 0):
        try:
            return await store.append(KEY, batch)
        except Exception:
            if not left:
                raise
