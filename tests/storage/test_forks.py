"""A child of a process that has a client is told so at once; it never hangs, and never writes."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import select
import signal
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing
from dataclasses import dataclass
from typing import Any

import pytest
from support.database import prepared
from support.entries import KEY, message
from support.watchdog import WATCHDOG_SECONDS

from beanie_session_store import (
    BeanieSessionStore,
    Feed,
    SessionStoreError,
    SessionSummary,
    diagnose,
    retention_policies,
    upgrade_schema,
)
from beanie_session_store.app.database import bound_models
from beanie_session_store.app.database.driver import Client, Database, close_client, open_client

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here")

# The driver waits for a server of its own for 30 seconds.
QUICK = 20.0

Work = Callable[[], Coroutine[Any, Any, Any]]
Run = Callable[[Work], Any]


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """A loop that stands still between its runs, as those of synchronous workers do."""
    loop = asyncio.new_event_loop()
    yield loop
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


def told_in_fork(work: Callable[[], str]) -> str:
    """What a fork of this process has to say; it must end in time."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        said = "nothing"
        try:
            said = work()
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        finally:
            os.write(writing, said.encode())
            os._exit(0)
    os.close(writing)
    try:
        ready, _, _ = select.select([reading], [], [], WATCHDOG_SECONDS)
        return os.read(reading, 60_000).decode() if ready else "it hangs"
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(reading)


def run_in(loop: asyncio.AbstractEventLoop) -> Run:
    return lambda work: loop.run_until_complete(work())


async def drained(entries: Any) -> None:
    async with aclosing(entries) as found:
        async for _ in found:
            return


async def entered(feed: AbstractAsyncContextManager[Feed]) -> None:
    async with feed:
        return


def calls(store: BeanieSessionStore, database: Database) -> list[Work]:
    """One call of each kind."""
    return [
        lambda: store.append(KEY, [message()]),
        lambda: store.load(KEY),
        lambda: store.delete(KEY),
        lambda: store.hold(KEY),
        lambda: store.list_sessions("project"),
        lambda: store.summary(KEY),
        lambda: store.sessions(),
        lambda: store.usage(),
        lambda: store.verify(KEY),
        lambda: drained(store.stream(KEY)),
        lambda: drained(store.watch(KEY)),
        lambda: entered(store.feed()),
        lambda: drained(store.all_sessions()),
        lambda: upgrade_schema(database),
        lambda: retention_policies(database),
        lambda: diagnose(database),
    ]


def outcomes(works: list[Work], run: Run) -> str:
    """What comes of work, in words: a line each."""
    said: list[str] = []
    for work in works:
        began = time.monotonic()
        try:
            run(work)
            line = "nothing"
        except SessionStoreError as error:
            line = f"{type(error).__name__}: {error}"
        if time.monotonic() - began > QUICK:
            line += " (late)"
        said.append(line)
    return "\n".join(said)


def afresh(work: Work) -> Any:
    return asyncio.run(work())


def assert_told(said: str) -> None:
    """Each line says at once that the client is another process's, and what to do."""
    lines = said.splitlines()
    assert len(lines) > 1
    for line in lines:
        assert line.startswith("EventLoopError: "), line
        assert "is a fork" in line or "used in a fork" in line, line
        assert "after the fork" in line
        assert "(late)" not in line


@dataclass(frozen=True)
class Parent:
    """A client that was used, a database of it, and the stores that a process can have on it."""

    client: Client
    database: Database
    stores: Mapping[str, BeanieSessionStore]

    @classmethod
    async def begin(cls, url: str, name: str, *, is_used: bool = True) -> Parent:
        client = open_client(url)
        database = await prepared(client[name])
        stores = {"followed": BeanieSessionStore(), "on": BeanieSessionStore.on(database)}
        if is_used:
            for store in stores.values():
                await store.append(KEY, [message()])
        return cls(client, database, stores)

    async def end(self, count: int) -> None:
        """It goes on as ever, and no child has written anything."""
        store = self.stores["followed"]
        await store.append(KEY, [message()])
        assert len(await store.load(KEY) or []) == count + 1
        await close_client(self.client)


@pytest.mark.parametrize("is_used", [True, False], ids=["used", "only init_beanie"])
@pytest.mark.parametrize("made", ["followed", "on"])
@pytest.mark.parametrize("where", ["loop of the parent", "loop of its own"])
def test_a_fork_of_a_process_whose_loop_stands_still_is_told(
    loop: asyncio.AbstractEventLoop,
    mongo_url: str,
    database_name: str,
    made: str,
    where: str,
    is_used: bool,
) -> None:
    """As under Celery's prefork, or where an application is loaded before its workers fork."""
    parent = loop.run_until_complete(Parent.begin(mongo_url, database_name, is_used=is_used))
    run = run_in(loop) if where == "loop of the parent" else afresh
    works = calls(parent.stores[made], parent.database)
    # Told every time, and though the driver was used by something else before.
    assert_told(told_in_fork(lambda: outcomes(works * 2, run)))
    loop.run_until_complete(parent.end(2 * is_used))


def test_a_fork_of_a_fork_is_told(
    loop: asyncio.AbstractEventLoop, mongo_url: str, database_name: str
) -> None:
    parent = loop.run_until_complete(Parent.begin(mongo_url, database_name))
    works = calls(parent.stores["followed"], parent.database)
    assert_told(told_in_fork(lambda: told_in_fork(lambda: outcomes(works, run_in(loop)))))
    loop.run_until_complete(parent.end(2))


def test_a_fork_in_the_midst_of_an_append_waits_for_no_turn(
    loop: asyncio.AbstractEventLoop, mongo_url: str, database_name: str
) -> None:
    parent = loop.run_until_complete(Parent.begin(mongo_url, database_name))
    store = parent.stores["followed"]

    async def begin() -> asyncio.Task[None]:
        append = asyncio.create_task(store.append(KEY, [message()]))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return append

    append = loop.run_until_complete(begin())
    assert not append.done()
    works: list[Work] = [lambda: store.append(KEY, [message()]), lambda: store.delete(KEY)]
    assert_told(told_in_fork(lambda: outcomes(works, afresh)))
    loop.run_until_complete(append)
    loop.run_until_complete(parent.end(3))


@pytest.mark.parametrize("is_resumed", [True, False], ids=["goes on", "begins anew"])
async def test_a_fork_inside_a_running_loop_is_told(
    is_resumed: bool, mongo_url: str, database_name: str
) -> None:
    parent = await Parent.begin(mongo_url, database_name)
    works = calls(parent.stores["followed"], parent.database)[:-3]

    def stepped(work: Work) -> None:
        # As the coroutine that forked goes on, in no loop.
        with contextlib.suppress(StopIteration):
            work().send(None)

    assert_told(told_in_fork(lambda: outcomes(works, stepped if is_resumed else afresh)))
    await parent.end(2)


async def test_a_child_of_multiprocessing_is_told(mongo_url: str, database_name: str) -> None:
    parent = await Parent.begin(mongo_url, database_name)
    context = multiprocessing.get_context("fork")
    reading, writing = context.Pipe(duplex=False)

    def child() -> None:
        writing.send(outcomes(calls(parent.stores["followed"], parent.database), afresh))

    process = context.Process(target=child)
    process.start()
    try:
        assert await asyncio.to_thread(reading.poll, WATCHDOG_SECONDS), "it hangs"
        assert_told(reading.recv())
    finally:
        process.kill()
        process.join()
    await parent.end(2)


def test_a_fork_inside_connect_is_told(mongo_url: str, database_name: str) -> None:
    async def parent() -> str:
        async with BeanieSessionStore.connect(mongo_url, database=database_name) as store:
            await store.append(KEY, [message()])
            works: list[Work] = [lambda: store.load(KEY), lambda: store.append(KEY, [message()])]
            return told_in_fork(lambda: outcomes(works, afresh))

    assert_told(asyncio.run(parent()))


def test_a_fork_with_a_client_of_its_own_works(
    loop: asyncio.AbstractEventLoop, mongo_url: str, database_name: str
) -> None:
    """A store that was made before follows ``init_beanie`` there."""
    parent = loop.run_until_complete(Parent.begin(mongo_url, database_name))

    async def child() -> str:
        own = await Parent.begin(mongo_url, database_name, is_used=False)
        await parent.stores["followed"].append(KEY, [message()])
        found = len(await own.stores["on"].load(KEY) or [])
        await close_client(own.client)
        return f"{found} entries"

    assert told_in_fork(lambda: asyncio.run(child())) == "3 entries"
    loop.run_until_complete(parent.end(3))


@pytest.mark.parametrize("is_connected", [True, False])
async def test_connect_in_a_fork_lends_the_classes_its_own_database(
    is_connected: bool, mongo_url: str, database_name: str
) -> None:
    """Whatever the parent's classes answer from, and whoever was changing them when it forked."""

    async def child() -> str:
        async with BeanieSessionStore.connect(mongo_url, database=database_name) as store:
            await store.append(KEY, [message()])
            return f"{await SessionSummary.find().count()} sessions"

    async def told() -> str:
        with bound_models._changing:
            return told_in_fork(lambda: asyncio.run(child()))

    if is_connected:
        async with BeanieSessionStore.connect(mongo_url, database=database_name):
            assert await told() == "1 sessions"
    else:
        parent = await Parent.begin(mongo_url, database_name, is_used=False)
        assert await told() == "1 sessions"
        await parent.end(1)


def test_a_client_that_nobody_used_before_the_fork_works(
    mongo_url: str, database_name: str
) -> None:
    """As one that a module makes, in an application that is loaded before its workers fork."""

    async def prepare() -> None:
        async with BeanieSessionStore.connect(mongo_url, database=database_name):
            pass

    asyncio.run(prepare())
    new_loop = asyncio.new_event_loop()
    asyncio.set_event_loop(new_loop)
    client = open_client(mongo_url)

    async def child() -> str:
        store = BeanieSessionStore.on(client[database_name])
        await store.append(KEY, [message()])
        return f"{len(await store.load(KEY) or [])} entries"

    assert told_in_fork(lambda: run_in(new_loop)(child)) == "1 entries"
    new_loop.run_until_complete(close_client(client))
    new_loop.close()
    asyncio.set_event_loop(None)


def test_a_fork_has_a_change_stream_of_its_own(
    mongo_url: str, database_name: str, loop: asyncio.AbstractEventLoop
) -> None:
    async def first_change() -> str:
        connection = BeanieSessionStore.connect(mongo_url, database=database_name)
        async with connection as store, store.feed() as feed:
            await store.append(KEY, [message()])
            return (await anext(feed)).kind

    async def opened() -> tuple[AsyncExitStack, Feed]:
        async with AsyncExitStack() as stack:
            connection = BeanieSessionStore.connect(mongo_url, database=database_name)
            store = await stack.enter_async_context(connection)
            feed = await stack.enter_async_context(store.feed())
            return stack.pop_all(), feed
        raise AssertionError

    stack, feed = loop.run_until_complete(opened())
    assert told_in_fork(lambda: asyncio.run(first_change())) == "created"
    # That of the parent goes on.
    assert loop.run_until_complete(anext(feed)).kind == "created"
    loop.run_until_complete(stack.aclose())
