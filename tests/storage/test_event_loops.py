"""A store in a loop that is not its own says so at once; it never hangs."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from support.database import prepared
from support.entries import KEY, message
from support.watchdog import WATCHDOG_SECONDS

from beanie_session_store import BeanieSessionStore, EventLoopError
from beanie_session_store.app.database.driver import Client, close_client, open_client

# A hang is what this is about, and pytest cannot end one in another thread.

# Some can be closed no more, in the loop that they belong to.
_clients: list[Client] = []


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """A loop that stays open between its runs."""
    loop = asyncio.new_event_loop()
    yield loop
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(asyncio.sleep(0.2))
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


async def opened(url: str, name: str) -> tuple[Client, BeanieSessionStore]:
    client = open_client(url)
    _clients.append(client)
    await prepared(client[name])
    return client, BeanieSessionStore()


def in_thread(work: Callable[[], Awaitable[Any]]) -> Any:
    """What comes of work in a thread and a loop of its own; it must end in time."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(asyncio.run(work()))  # type: ignore[arg-type]
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(WATCHDOG_SECONDS)
    assert not thread.is_alive(), "it hangs"
    return outcome[0]


def calls(store: BeanieSessionStore) -> list[Callable[[], Awaitable[Any]]]:
    """One call of each kind."""
    return [
        lambda: store.append(KEY, [message()]),
        lambda: store.load(KEY),
        lambda: store.delete(KEY),
        lambda: store.hold(KEY),
        lambda: store.list_sessions("project"),
        lambda: store.summary(KEY),
        lambda: store.sessions(),
        lambda: store.verify(KEY),
    ]


def test_a_second_run_is_refused(mongo_url: str, database_name: str) -> None:
    _, store = asyncio.run(opened(mongo_url, database_name))
    for call in calls(store):
        assert isinstance(in_thread(call), EventLoopError)


def test_a_second_loop_is_refused_while_the_first_has_an_append_under_way(
    loop: asyncio.AbstractEventLoop, mongo_url: str, database_name: str
) -> None:
    """The first loop stands still, so what waited for its append would wait for ever."""
    client, store = loop.run_until_complete(opened(mongo_url, database_name))

    async def begin() -> asyncio.Task[None]:
        append = asyncio.create_task(store.append(KEY, [message()]))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return append

    append = loop.run_until_complete(begin())
    assert not append.done()

    async def with_a_client_of_its_own() -> None:
        own, _ = await opened(mongo_url, database_name)
        try:
            await store.append(KEY, [message()])
        finally:
            await close_client(own)

    for work in (with_a_client_of_its_own, *calls(store)):
        assert isinstance(in_thread(work), EventLoopError)
    loop.run_until_complete(asyncio.wait([append]))
    loop.run_until_complete(close_client(client))


def test_a_loop_that_was_closed_in_the_middle_of_an_append_blocks_no_other(
    mongo_url: str, database_name: str
) -> None:
    loop = asyncio.new_event_loop()
    _, store = loop.run_until_complete(opened(mongo_url, database_name))

    async def begin() -> None:
        asyncio.create_task(store.append(KEY, [message()]))  # noqa: RUF006
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    loop.run_until_complete(begin())
    loop.close()

    async def again() -> int:
        client, _ = await opened(mongo_url, database_name)
        await store.append(KEY, [message()])
        found = await store.load(KEY) or []
        await close_client(client)
        return len(found)

    assert in_thread(again) in (1, 2)


def test_an_intruder_is_refused_and_the_owner_goes_on(mongo_url: str, database_name: str) -> None:
    stores: list[BeanieSessionStore] = []
    ready, end = threading.Event(), threading.Event()
    count = 0

    async def own() -> None:
        nonlocal count
        client, store = await opened(mongo_url, database_name)
        stores.append(store)
        while not end.is_set():
            await store.append(KEY, [message()])
            count += 1
            ready.set()
        assert len(await store.load(KEY) or []) == count
        await close_client(client)

    failures: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(own())
        except BaseException as error:
            failures.append(error)

    owner = threading.Thread(target=run)
    owner.start()
    assert ready.wait(WATCHDOG_SECONDS)
    try:
        for _ in range(3):
            for call in calls(stores[0]):
                assert isinstance(in_thread(call), EventLoopError)
    finally:
        end.set()
        owner.join(WATCHDOG_SECONDS)
    assert failures == []
    assert not owner.is_alive()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here")
def test_a_fork_is_told_at_once(mongo_url: str, database_name: str) -> None:
    """A child inherits a client that looks alive and has lost all that works for it."""

    async def parent() -> bytes:
        client, store = await opened(mongo_url, database_name)
        await store.append(KEY, [message()])
        under_way = asyncio.create_task(store.append(KEY, [message()]))
        await asyncio.sleep(0)
        reading, writing = os.pipe()
        pid = os.fork()
        if not pid:
            said = b""
            try:
                for call in calls(store):
                    began = time.monotonic()
                    try:
                        asyncio.run(call())  # type: ignore[arg-type]
                        said += b"nothing "
                    except BaseException as error:
                        # The driver waits for a server of its own for 30 seconds.
                        is_quick = time.monotonic() - began < 20
                        said += type(error).__name__.encode() + (b" " if is_quick else b"-late ")
            finally:
                os.write(writing, said)
                os._exit(0)
        os.close(writing)
        said = await asyncio.wait_for(asyncio.to_thread(os.read, reading, 10_000), WATCHDOG_SECONDS)
        await asyncio.to_thread(os.waitpid, pid, 0)
        await under_way
        assert len(await store.load(KEY) or []) == 2
        await close_client(client)
        return said

    assert set(asyncio.run(parent()).split()) == {b"EventLoopError"}
