"""Whether a store can be used is said soon, truthfully and without storing anything."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from httpx import ASGITransport, AsyncClient
from starlette.applications import Starlette
from support.command import SessionStoreCommand
from support.entries import KEY, turn
from support.secured import SecuredServer
from support.server import Commands, connected, failing
from support.watchdog import WATCHDOG_SECONDS

from beanie_session_store import (
    BeanieSessionStore,
    HealthChecks,
    Readiness,
    SessionSummary,
    TranscriptEntry,
    upgrade_schema,
)
from beanie_session_store.app.database import bound_models
from beanie_session_store.app.database.driver import Database
from beanie_session_store.app.health import endpoints


async def test_a_usable_store_is_ready_and_nothing_is_stored(store: BeanieSessionStore) -> None:
    assert await store.readiness(timeout=WATCHDOG_SECONDS) == Readiness(True)
    await store.append(KEY, turn(1))
    assert await store.readiness(timeout=WATCHDOG_SECONDS) == Readiness(True)
    assert await SessionSummary.count() == 1
    assert await TranscriptEntry.count() == 6


async def test_it_asks_for_what_a_majority_confirms(mongo_url: str, database_name: str) -> None:
    commands = Commands()
    async with connected(mongo_url, event_listeners=[commands], w=1) as client:
        await upgrade_schema(client[database_name])
        store = BeanieSessionStore.on(client[database_name])
        assert (await store.readiness(timeout=WATCHDOG_SECONDS)).is_ready
        commands.sent.clear()
        assert (await store.readiness(timeout=WATCHDOG_SECONDS)).is_ready
    by_name = dict(commands.sent)
    assert by_name["update"]["writeConcern"] == {"w": "majority"}
    reads = [sent for name, sent in commands.sent if name in ("find", "aggregate")]
    assert {"level": "majority"} in [each.get("readConcern") for each in reads]


@pytest.mark.parametrize("commands", [["update"], ["find", "aggregate"]], ids=["write", "read"])
async def test_no_answer_is_one_after_the_timeout(
    store: BeanieSessionStore, database: Database, commands: list[str]
) -> None:
    assert (await store.readiness(timeout=WATCHDOG_SECONDS)).is_ready
    block = {"blockConnection": True, "blockTimeMS": 2000, "failCommands": commands}
    async with failing(database, "", {"times": 2}, **block):
        found = await store.readiness(timeout=0.3)
    assert not found.is_ready
    assert found.reason
    assert (await store.readiness(timeout=WATCHDOG_SECONDS)).is_ready


async def test_what_came_first_in_this_process_holds_up_no_answer(
    mongo_url: str, database_name: str
) -> None:
    async with connected(mongo_url) as client:
        await upgrade_schema(client[database_name])
        store = BeanieSessionStore.on(client[database_name])
        # As a first use that waits for a server which does not answer.
        with bound_models._changing:  # pyright: ignore[reportPrivateUsage]
            look = store.readiness(timeout=0.1)
            found = await asyncio.wait_for(look, WATCHDOG_SECONDS)
        assert not found.is_ready
        assert found.reason
        # On a busy machine the time is over before it comes to that.
        assert "within 0.1 s" in found.reason or "longer than it may" in found.reason
        assert (await store.readiness(timeout=WATCHDOG_SECONDS)).is_ready


async def test_a_server_that_is_not_there(store: BeanieSessionStore) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"mongodb://127.0.0.1:{taken.getsockname()[1]}/?directConnection=true"
        async with connected(url) as client:
            found = await BeanieSessionStore.on(client["app"]).readiness(timeout=0.5)
    assert not found.is_ready
    assert found.reason
    assert "Check that it runs" in found.reason


async def test_a_database_without_schema_and_a_closed_client(
    mongo_url: str, database_name: str
) -> None:
    async with connected(mongo_url) as client:
        bare = BeanieSessionStore.on(client[f"{database_name}_bare"])
        found = await bare.readiness(timeout=WATCHDOG_SECONDS)
        assert not found.is_ready
        assert found.reason
        assert "upgrade" in found.reason
        await upgrade_schema(client[database_name])
        store = BeanieSessionStore.on(client[database_name])
        assert (await store.readiness(timeout=WATCHDOG_SECONDS)).is_ready
    found = await store.readiness(timeout=WATCHDOG_SECONDS)
    assert not found.is_ready
    assert found.reason
    assert "closed" in found.reason


async def test_a_standalone_server_keeps_no_promise(standalone_database: Database) -> None:
    await upgrade_schema(standalone_database)
    found = await BeanieSessionStore.on(standalone_database).readiness(timeout=WATCHDOG_SECONDS)
    assert not found.is_ready
    assert found.reason
    assert "replica set" in found.reason


async def test_who_may_only_read_is_not_ready(secured: SecuredServer) -> None:
    async with connected(secured.url()) as client:
        await upgrade_schema(client["readiness"])
    _, url = secured.user(("read", "readiness"))
    async with connected(url) as client:
        found = await BeanieSessionStore.on(client["readiness"]).readiness(timeout=WATCHDOG_SECONDS)
    assert not found.is_ready
    assert found.reason
    assert "readWrite" in found.reason


@pytest.mark.parametrize("timeout", [0, -1, True, "2", None, float("inf"), float("nan")])
async def test_a_timeout_that_is_none_is_refused(store: BeanieSessionStore, timeout: Any) -> None:
    with pytest.raises(ValueError, match="number of seconds"):
        await store.readiness(timeout=timeout)


def client_of(look: Callable[[], Any], **options: Any) -> AsyncClient:
    app = Starlette()
    app.mount("/health", HealthChecks(look, **options))
    return AsyncClient(transport=ASGITransport(app=app), base_url="http://testserver")


async def test_the_paths_that_an_orchestrator_asks(store: BeanieSessionStore) -> None:
    async with client_of(partial(store.readiness, timeout=WATCHDOG_SECONDS)) as client:
        for path, status, said in (
            ("livez", 200, {"live": True}),
            ("readyz", 200, {"ready": True}),
            ("other", 404, {"error": "There are /livez and /readyz here."}),
            ("", 404, {"error": "There are /livez and /readyz here."}),
        ):
            answer = await client.get(f"/health/{path}")
            assert (answer.status_code, answer.json()) == (status, said)
            assert answer.headers["cache-control"] == "no-store"
        assert (await client.post("/health/livez")).status_code == 405
        head = await client.head("/health/readyz")
        assert (head.status_code, head.content) == (200, b"")


async def test_why_not_is_said_unless_it_is_not_to_be() -> None:
    async def look() -> Readiness:
        return Readiness(False, "no primary at 10.0.0.1:27017")

    async with client_of(look) as client:
        answer = await client.get("/health/readyz")
        assert answer.status_code == 503
        assert answer.json() == {"ready": False, "reason": "no primary at 10.0.0.1:27017"}
        assert (await client.get("/health/livez")).status_code == 200
    async with client_of(look, show_reasons=False) as client:
        assert (await client.get("/health/readyz")).json() == {"ready": False}


async def test_however_many_ask_one_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoints, "_KEPT_SECONDS", WATCHDOG_SECONDS)
    looks = 0
    go_on = asyncio.Event()

    async def look() -> Readiness:
        nonlocal looks
        looks += 1
        await go_on.wait()
        return Readiness(True)

    async with client_of(look) as client:
        asking = [asyncio.ensure_future(client.get("/health/readyz")) for _ in range(20)]
        await asyncio.sleep(0.05)
        # Whoever does not wait for the answer takes it from nobody.
        asking[0].cancel()
        await asyncio.sleep(0)
        go_on.set()
        answers = await asyncio.gather(*asking, return_exceptions=True)
        assert [a.status_code for a in answers[1:] if not isinstance(a, BaseException)] == [
            200
        ] * 19
        assert (await client.get("/health/readyz")).status_code == 200
    assert looks == 1


async def test_a_look_that_fails_is_tried_again() -> None:
    looks = iter([RuntimeError("a fault of the look"), Readiness(True)])

    async def look() -> Readiness:
        found = next(looks)
        if isinstance(found, Exception):
            raise found
        return found

    async with client_of(look) as client:
        with pytest.raises(RuntimeError):
            await client.get("/health/readyz")
        assert (await client.get("/health/readyz")).status_code == 200


async def test_it_stands_alone_under_a_server_too() -> None:
    sent: list[Any] = []
    received = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

    async def receive() -> Any:
        return next(received)

    async def send(message: Any) -> None:
        sent.append(message["type"])

    async def look() -> Readiness:
        return Readiness(True)

    await HealthChecks(look)({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    await HealthChecks(look)({"type": "websocket", "path": "/livez"}, receive, send)
    assert sent[-1] == "websocket.close"


async def test_the_command_exits_as_containers_expect(mongo_url: str, database: Database) -> None:
    wait = "--timeout", str(WATCHDOG_SECONDS)
    done = await SessionStoreCommand(mongo_url, database.name)("health", *wait)
    assert (done.code, done.output) == (0, "ready\n")
    done = await SessionStoreCommand(mongo_url, f"{database.name}_bare")("health", "--json", *wait)
    assert done.code == 1
    found = json.loads(done.output)
    assert found["ready"] is False
    assert "schema upgrade" in found["reason"]
    done = await SessionStoreCommand(mongo_url, database.name)("health", "--timeout", "0")
    assert done.code == 2
