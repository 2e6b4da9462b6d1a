"""What goes on behind a call is not under the ``pymongo.timeout`` that the call was under."""

from __future__ import annotations

import asyncio
import time
from contextvars import ContextVar
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pymongo
import pytest
from pymongo.errors import PyMongoError
from support.entries import KEY, turn
from support.watchdog import WATCHDOG_SECONDS

from beanie_session_store import BeanieSessionStore, SessionSummary
from beanie_session_store.app.database.deadlines import started_without_deadline
from beanie_session_store.app.database.driver import Database
from beanie_session_store.app.storage.background import go_on, gone_on
from beanie_session_store.app.transcript_key import TranscriptKey

LATER: Any = {**KEY, "session_id": "later"}


@pytest.fixture
def pass_deadline(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Lets every deadline of the driver that was set until now have passed."""

    def passed() -> None:
        clock = SimpleNamespace(monotonic=lambda: time.monotonic() + 3600)
        monkeypatch.setattr("pymongo._csot.time", clock)

    return passed


async def test_all_but_the_deadline_is_taken_over(database: Database, pass_deadline: Any) -> None:
    request: ContextVar[str] = ContextVar("request")
    request.set("r1")

    async def work() -> str:
        await database.command("ping")
        with pymongo.timeout(60):
            await database.command("ping")
        return request.get()

    with pymongo.timeout(60):
        pass_deadline()
        with pytest.raises(PyMongoError):
            await work()
        assert await started_without_deadline(work()) == "r1"
        # It is that of the caller still.
        with pytest.raises(PyMongoError):
            await work()


async def test_a_lease_is_renewed_told_of_and_given_back(
    store: BeanieSessionStore, database: Database, pass_deadline: Any
) -> None:
    told, batch = asyncio.Event(), turn(1)

    async def on_lost() -> None:
        await store.append(LATER, batch)
        told.set()

    summaries: Any = database[SessionSummary.Settings.name]
    short = timedelta(seconds=2)
    with pymongo.timeout(60):
        held = store.lease(KEY, owner="a", ttl=short, on_lost=on_lost)
        given_back = store.lease(LATER, owner="a")
        leased = await held.__aenter__()
        await given_back.__aenter__()
        taken = leased.until
        pass_deadline()
        await given_back.__aexit__(None, None, None)
    assert await store.lease_of(LATER) is None
    while leased.until == taken and not leased.lost.is_set():  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    assert not leased.lost.is_set()
    await summaries.update_one({"session_id": "session"}, {"$unset": {"lease": ""}})
    await asyncio.wait_for(told.wait(), WATCHDOG_SECONDS)
    await held.__aexit__(None, None, None)
    assert await store.load(LATER) == batch


async def test_what_an_append_leaves_to_do_goes_on(
    store: BeanieSessionStore, database: Database, pass_deadline: Any
) -> None:
    connection: Any = SimpleNamespace(
        client=database.client, summaries=SimpleNamespace(collection=database["summaries"])
    )
    done: list[Any] = []

    async def work(*_: Any) -> None:
        done.append(await database.command("ping"))

    with pymongo.timeout(60):
        pass_deadline()
        go_on(connection, TranscriptKey("default", "project", "later"), work)
        await gone_on()
    assert len(done) == 1


async def test_a_feed_is_followed_for_those_who_come_later(
    store: BeanieSessionStore, pass_deadline: Any
) -> None:
    await store.append(KEY, turn(1))
    with pymongo.timeout(60):
        first = store.feed()
        await first.__aenter__()
    try:
        pass_deadline()
        async with store.feed() as feed:
            await store.append(KEY, turn(2))
            change = await asyncio.wait_for(anext(aiter(feed)), WATCHDOG_SECONDS)
            assert change.key() == KEY
    finally:
        await first.__aexit__(None, None, None)
