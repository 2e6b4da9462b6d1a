"""A server that has too much to do is left alone for a while, and then asked again."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest
from pymongo.errors import OperationFailure
from support.entries import KEY, turn
from support.server import failing

from beanie_session_store import (
    BeanieSessionStore,
    ServerError,
    TranscriptEntry,
    set_retention,
)
from beanie_session_store.app.database import attempts
from beanie_session_store.app.database.attempts import Attempts
from beanie_session_store.app.database.driver import Database
from beanie_session_store.app.database.overload import is_refused

OVERLOADED = {
    "errorCode": 462,
    "errorLabels": ["SystemOverloadedError", "RetryableError"],
}
# The driver sends a command three times in all, so the store itself has to try again.
FOUR_TIMES = {"times": 4}
FIRST, NEXT = turn(1), turn(2)

pytestmark = pytest.mark.usefixtures("quick_policies")

Do = Callable[[BeanieSessionStore, Database], Awaitable[object]]


async def begin(store: BeanieSessionStore, _: Database) -> None:
    await store.append({**KEY, "session_id": "new"}, NEXT)


async def go_on(store: BeanieSessionStore, _: Database) -> None:
    await store.append(KEY, NEXT)


async def go_on_elsewhere(_: BeanieSessionStore, __: Database) -> None:
    """Which has to read first where the session is."""
    await BeanieSessionStore().append(KEY, NEXT)


async def load(store: BeanieSessionStore, _: Database) -> None:
    assert await store.load(KEY) == FIRST


async def stream(store: BeanieSessionStore, _: Database) -> None:
    assert [entry async for entry in store.stream(KEY)] == FIRST


async def list_all(store: BeanieSessionStore, _: Database) -> None:
    assert len([each async for each in store.all_sessions()]) == 1


async def describe(store: BeanieSessionStore, _: Database) -> None:
    await store.set_metadata(KEY, {"user_id": "u1"})
    assert (await store.sessions(metadata={"user_id": "u1"})).sessions


async def hold(store: BeanieSessionStore, _: Database) -> None:
    await store.hold(KEY)


async def set_policy(_: BeanieSessionStore, database: Database) -> None:
    await set_retention(database, timedelta(days=1))


async def delete(store: BeanieSessionStore, _: Database) -> None:
    await store.delete(KEY)
    assert await store.load(KEY) is None


@pytest.mark.parametrize(
    ("command", "do"),
    [
        ("insert", begin),
        ("commitTransaction", begin),
        ("insert", go_on),
        ("update", go_on),
        ("commitTransaction", go_on),
        ("aggregate", go_on_elsewhere),
        ("find", load),
        ("find", stream),
        ("find", list_all),
        ("update", describe),
        ("update", hold),
        ("update", set_policy),
        ("delete", delete),
        ("commitTransaction", delete),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
async def test_what_is_refused_is_done_all_the_same(
    store: BeanieSessionStore, database: Database, command: str, do: Do
) -> None:
    await store.append(KEY, FIRST)
    async with failing(database, command, FOUR_TIMES, **OVERLOADED):
        await do(store, database)
    sound = [await store.verify(listing.key()) async for listing in store.all_sessions()]
    assert all(each.is_sound for each in sound)


@pytest.mark.parametrize("command", ["insert", "update", "commitTransaction"])
async def test_appends_that_meet_are_refused_and_each_is_stored_once(
    store: BeanieSessionStore, database: Database, command: str
) -> None:
    keys = [{**KEY, "session_id": f"session-{number}"} for number in range(16)]
    await asyncio.gather(*(store.append(key, FIRST) for key in keys))
    async with failing(database, command, {"times": 16}, **OVERLOADED):
        await asyncio.gather(*(store.append(key, NEXT) for key in keys))
    for key in keys:
        assert await store.load(key) == [*FIRST, *NEXT]
        assert (await store.verify(key)).is_sound


async def stored() -> int:
    return await TranscriptEntry.find_all().count()


@pytest.mark.parametrize("command", ["insert", "update", "commitTransaction"])
async def test_an_append_that_is_refused_until_time_is_up_says_why_and_stores_nothing(
    store: BeanieSessionStore,
    database: Database,
    command: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await store.append(KEY, FIRST)
    before = await stored()
    monkeypatch.setattr(attempts, "_SECONDS", 0.0)
    async with failing(database, command, {"times": 1_000}, **OVERLOADED):
        with pytest.raises(ServerError, match="has too much to do and refused it"):
            await store.append(KEY, NEXT)
    monkeypatch.undo()
    assert await stored() == before
    await store.append(KEY, NEXT)
    assert await store.load(KEY) == [*FIRST, *NEXT]
    assert (await store.verify(KEY)).is_sound


@pytest.mark.parametrize("labels", [["SystemOverloadedError"], ["RetryableError"]], ids=str)
async def test_one_label_alone_means_no_second_try(
    store: BeanieSessionStore, database: Database, labels: list[str]
) -> None:
    async with failing(
        database, "insert", {"times": 1_000}, **{**OVERLOADED, "errorLabels": labels}
    ):
        with pytest.raises(ServerError, match="code 462"):
            await store.append(KEY, FIRST)
    assert await store.load(KEY) is None


async def test_pauses_get_long_for_a_server_that_is_overloaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    monkeypatch.setattr(random, "uniform", lambda _, longest: longest)
    refused = OperationFailure("", 462, {"errorLabels": OVERLOADED["errorLabels"]})
    assert is_refused(refused)
    others, ours = Attempts(), Attempts()
    for _ in range(12):
        assert await others.pause(OperationFailure("", 112))
    assert max(pauses) <= 0.2
    pauses.clear()
    for _ in range(6):
        assert await ours.pause(refused)
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 1.6]
