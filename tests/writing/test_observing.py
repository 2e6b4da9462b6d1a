"""A team hears of each append that was committed, and what it does then harms no append."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
from support.entries import KEY, message
from support.server import failing
from support.watchdog import WATCHDOG_SECONDS

from beanie_session_store import (
    BeanieSessionStore,
    CommittedAppend,
    ObserverError,
    SessionStoreError,
)
from beanie_session_store.app.database.driver import Database

SUBAGENT: Any = {**KEY, "subpath": "subagents/agent-a"}


def told(**changes: Any) -> CommittedAppend:
    values: dict[str, Any] = {
        "tenant": "default",
        "project_key": "project",
        "session_id": "session",
        "subpath": "",
        "first_seq": 1,
        "entries": 1,
        "is_new_session": False,
    }
    return CommittedAppend(**values | changes)


@pytest.mark.parametrize("is_async", [False, True])
async def test_each_append_that_stored_is_told_before_it_returns(
    database: Database, is_async: bool
) -> None:
    seen: list[CommittedAppend] = []

    async def coroutine(committed: CommittedAppend) -> None:
        await asyncio.sleep(0)
        seen.append(committed)

    store = BeanieSessionStore(on_committed=coroutine if is_async else seen.append)
    batch = [message("a"), message("b")]
    await store.append(KEY, batch)
    await store.append(SUBAGENT, [message("c")])
    # Nothing of it is new, or a part.
    await store.append(KEY, batch)
    await store.append(KEY, [])
    await store.append(KEY, [batch[1], message("d"), message("e")])
    assert seen == [
        told(entries=2, is_new_session=True),
        told(subpath="subagents/agent-a", first_seq=3),
        told(first_seq=4, entries=2),
    ]
    assert [each.last_seq for each in seen] == [2, 3, 5]
    assert [each.key() for each in seen] == [KEY, SUBAGENT, KEY]
    behind = [each async for each in store.stream(KEY, after=seen[2].first_seq - 1)]
    assert [each.seq for each in behind] == [4, 5]
    with pytest.raises(FrozenInstanceError):
        seen[0].entries = 5  # type: ignore[misc]
    await store.delete(KEY)
    await store.append(KEY, [message("anew")])
    assert seen[3] == told(is_new_session=True)


async def test_stores_of_every_kind_tell(
    mongo_url: str, database: Database, standalone_database: Database
) -> None:
    seen: list[CommittedAppend] = []
    async with BeanieSessionStore.connect(
        mongo_url, database=database.name, tenant="c", on_committed=seen.append
    ) as store:
        await store.append(KEY, [message("a")])
    for place, tenant in ((database, "o"), (standalone_database, "s")):
        store = BeanieSessionStore.on(place, tenant=tenant, on_committed=seen.append)
        await store.append(KEY, [message("a")])
    assert [each.tenant for each in seen] == ["c", "o", "s"]


async def test_one_session_is_told_in_order_and_many_at_once(database: Database) -> None:
    at_once: set[str] = set()
    most = 0
    seen: list[CommittedAppend] = []

    async def slow(committed: CommittedAppend) -> None:
        nonlocal most
        assert committed.session_id not in at_once
        at_once.add(committed.session_id)
        most = max(most, len(at_once))
        for _ in range(3):
            await asyncio.sleep(0)
        seen.append(committed)
        at_once.remove(committed.session_id)

    store = BeanieSessionStore(on_committed=slow)
    keys: list[Any] = [{**KEY, "session_id": f"s{number}"} for number in range(3)]
    await asyncio.gather(*(store.append(key, [message("a")]) for _ in range(8) for key in keys))
    assert len(seen) == 24
    for key in keys:
        mine = [each.first_seq for each in seen if each.session_id == key["session_id"]]
        assert mine == list(range(1, 9))


class OddError(Exception):
    def __str__(self) -> str:
        raise ValueError("even its text fails")


@pytest.mark.parametrize(
    "error", [RuntimeError("no"), OddError(), asyncio.CancelledError(), asyncio.TimeoutError()]
)
@pytest.mark.parametrize("is_async", [False, True])
async def test_what_goes_wrong_in_it_is_logged_and_harms_no_append(
    database: Database, error: BaseException, is_async: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: CommittedAppend) -> None:
        raise error

    async def fail_later(_: CommittedAppend) -> None:
        await asyncio.sleep(0)
        raise error

    store = BeanieSessionStore(on_committed=fail_later if is_async else fail)
    for text in "ab":
        await store.append(KEY, [message(text)])
    assert len(await store.load(KEY) or []) == 2
    logged = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert len(logged) == 2
    assert "on_committed" in logged[0].msg


async def test_a_cancelled_append_that_commits_is_told(database: Database) -> None:
    seen: list[CommittedAppend] = []
    told_of = asyncio.Event()

    async def observe(committed: CommittedAppend) -> None:
        seen.append(committed)
        told_of.set()

    store = BeanieSessionStore(on_committed=observe)
    await store.append(KEY, [message("a")])
    told_of.clear()
    append = asyncio.ensure_future(store.append(KEY, [message("b")]))
    await asyncio.sleep(0)
    append.cancel()
    with pytest.raises(asyncio.CancelledError):
        await append
    await told_of.wait()
    assert len(await store.load(KEY) or []) == len(seen) == 2


async def test_an_append_that_is_cancelled_while_it_is_told_leaves_the_next_one_free(
    database: Database,
) -> None:
    going_on = asyncio.Event()
    seen: list[CommittedAppend] = []

    async def wait(committed: CommittedAppend) -> None:
        await going_on.wait()
        seen.append(committed)

    store = BeanieSessionStore(on_committed=wait)
    first = asyncio.ensure_future(store.append(KEY, [message("a")]))
    while not await BeanieSessionStore().load(KEY):  # noqa: ASYNC110 - the server has no event
        await asyncio.sleep(0.01)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    second = asyncio.ensure_future(store.append(KEY, [message("b")]))
    going_on.set()
    await second
    assert [each.first_seq for each in seen] == [1, 2]


async def test_an_append_that_failed_is_not_told(database: Database) -> None:
    seen: list[CommittedAppend] = []
    store = BeanieSessionStore(on_committed=seen.append)
    await store.append(KEY, [message("a")])
    seen.clear()
    async with failing(database, "insert", errorCode=50):
        with pytest.raises(SessionStoreError):
            await store.append(KEY, [message("b")])
    assert seen == []
    await store.append(KEY, [message("c")])
    assert seen == [told(first_seq=2)]


@pytest.mark.parametrize("is_new", [True, False])
@pytest.mark.parametrize(
    "batch",
    [[message("a"), message("b"), message("c")], [{"type": "mode"}, {"type": "mode"}]],
    ids=["with uuids", "without"],
)
async def test_one_whose_outcome_was_not_known_is_told_once_it_is(
    database: Database, batch: Any, is_new: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("beanie_session_store.app.database.attempts._SECONDS", 0.2)
    seen: list[CommittedAppend] = []
    store = BeanieSessionStore(on_committed=seen.append)
    before = [] if is_new else [message("before")]
    await store.append(KEY, before)
    seen.clear()
    async with failing(
        database,
        "commitTransaction",
        mode={"times": 1000},
        writeConcernError={"code": 64, "errmsg": "waiting for replication timed out"},
        errorLabels=["UnknownTransactionCommitResult"],
    ):
        with pytest.raises(SessionStoreError, match="not known"):
            await store.append(KEY, batch)
    assert seen == []
    await store.append(KEY, batch)
    assert seen == [
        told(first_seq=len(before) + 1, entries=len(batch), is_new_session=is_new),
    ]
    assert await store.load(KEY) == before + batch


async def test_a_function_that_waits_for_its_own_store_is_refused_at_once(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    writes = {
        "append": lambda: store.append(KEY, [message("more")]),
        "append elsewhere": lambda: store.append({**KEY, "session_id": "x"}, [message("more")]),
        "delete": lambda: store.delete(KEY),
        "hold": lambda: store.hold(KEY),
        "release": lambda: store.release(KEY),
    }
    refused: list[str] = []
    later: list[asyncio.Task[None]] = []

    async def observe(committed: CommittedAppend) -> None:
        if committed.first_seq > 1:
            return
        assert await store.load(KEY)
        for name, write in writes.items():
            with pytest.raises(ObserverError, match="create_task"):
                await write()
            refused.append(name)
        later.append(asyncio.create_task(store.append(KEY, [message("later")])))
        await BeanieSessionStore().append(KEY, [message("another")])

    store = BeanieSessionStore(on_committed=observe)
    await asyncio.wait_for(store.append(KEY, [message("a")]), WATCHDOG_SECONDS)
    await later[0]
    assert refused == list(writes)
    assert not [each for each in caplog.records if each.levelno == logging.ERROR]
    assert len(await store.load(KEY) or []) == 3


@pytest.mark.parametrize("wrong", [5, "print", [print], {}, True])
def test_what_cannot_be_called_is_refused(wrong: Any) -> None:
    with pytest.raises(ObserverError, match="on_committed"):
        BeanieSessionStore(on_committed=wrong)


async def test_without_one_an_append_makes_no_task_more(store: BeanieSessionStore) -> None:
    await store.append(KEY, [message("a")])
    loop = asyncio.get_running_loop()
    made: list[Any] = []

    def factory(loop: Any, coroutine: Any, **options: Any) -> Any:
        made.append(coroutine.__qualname__)
        return asyncio.Task(coroutine, loop=loop, **options)

    loop.set_task_factory(factory)
    try:
        await store.append(KEY, [message("b")])
    finally:
        loop.set_task_factory(None)
    assert made.count("Observer._call") == 0
    assert store._observer is None
