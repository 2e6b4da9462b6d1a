"""A service tells browsers what an agent does, as it does it: server-sent events over HTTP."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest
import uvicorn
from support.entries import message, turn
from support.server import connected
from support.watchdog import WATCHDOG_SECONDS
from support.watches import until_watched

from beanie_session_store import BeanieSessionStore
from beanie_session_store.app.database.driver import Database

FOLDER = Path(__file__).parents[1] / "example_app"
SESSION = "3f9f3a5e-0c1f-4b5e-9a2b-0d5a1f1f1f1f"


class Service:
    """The example service on a port of its own, and one of its customers."""

    def __init__(self, http: httpx.AsyncClient, database: Database, customer: str, key: Any):
        self.http = http
        self.database = database
        self.store = BeanieSessionStore(tenant=customer)
        self.key = key
        self.path = f"/customers/{customer}/conversations/{SESSION}/live"

    @asynccontextmanager
    async def live(self, last: int | None = None) -> AsyncIterator[AsyncIterator[dict[str, str]]]:
        """The events of the conversation behind the one that came last."""
        headers = {} if last is None else {"Last-Event-ID": str(last)}
        async with self.http.stream("GET", self.path, headers=headers) as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            yield parsed(response.aiter_lines())


async def parsed(lines: AsyncIterator[str]) -> AsyncIterator[dict[str, str]]:
    """Events as a browser reads them; what begins with a colon has an empty name."""
    event: dict[str, str] = {}
    async for line in lines:
        if line:
            name, _, value = line.partition(":")
            event[name] = value.strip()
        else:
            yield event
            event = {}


async def take(events: AsyncIterator[dict[str, str]], count: int) -> list[dict[str, str]]:
    return [await asyncio.wait_for(anext(events), WATCHDOG_SECONDS) for _ in range(count)]


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(FOLDER)
    import app  # pyright: ignore[reportMissingImports]

    return app


@pytest.fixture
async def service(
    example: ModuleType, mongo_url: str, database_name: str, tmp_path: Path
) -> AsyncIterator[Service]:
    async with connected(mongo_url) as client:
        app = example.create_app(client, tmp_path, database_name)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", ws="none"))
        with socket.create_server(("127.0.0.1", 0)) as listener:
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            async with httpx.AsyncClient(
                base_url=url, trust_env=False, timeout=WATCHDOG_SECONDS
            ) as http:
                customer = await http.post("/customers", json={"name": "Acme"})
                project = example.project_key_for_directory(str(tmp_path))
                key = {"project_key": project, "session_id": SESSION}
                yield Service(http, client[database_name], customer.json()["_id"], key)
            server.should_exit = True
            await serving


async def test_a_browser_sees_what_is_stored_and_what_comes(service: Service) -> None:
    await service.store.append(service.key, turn(1))
    async with service.live() as events:
        seen = await take(events, 6)
        await service.store.append(service.key, [message("a\nb \ud83d"), *turn(2)])
        seen += await take(events, 7)
    assert [event["id"] for event in seen] == [str(seq) for seq in range(1, 14)]
    stored = await service.store.load(service.key)
    assert [json.loads(event["data"]) for event in seen] == stored


async def test_a_browser_that_comes_back_goes_on_where_it_was(service: Service) -> None:
    await service.store.append(service.key, turn(1))
    async with service.live() as events:
        last = int((await take(events, 4))[-1]["id"])
    await service.store.append(service.key, turn(2))
    async with service.live(last) as events:
        assert [event["id"] for event in await take(events, 8)] == [str(n) for n in range(5, 13)]
    headers = {"Last-Event-ID": "x"}
    assert (await service.http.get(service.path, headers=headers)).status_code == 422


async def test_a_browser_that_goes_away_ends_its_watch_alone(service: Service) -> None:
    await service.store.append(service.key, turn(1))
    async with service.live() as staying:
        await take(staying, 6)
        async with service.live() as leaving:
            await take(leaving, 6)
            await until_watched(service.database, 2)
        await until_watched(service.database, 1)
        await service.store.append(service.key, [message("still there")])
        assert (await take(staying, 1))[0]["id"] == "7"
    await until_watched(service.database, 0)


async def test_a_browser_is_told_that_the_session_is_gone(service: Service) -> None:
    await service.store.append(service.key, turn(1))
    async with service.live() as events:
        await take(events, 6)
        await service.store.delete(service.key)
        assert await take(events, 1) == [{"event": "gone", "data": "gone"}]
        with pytest.raises(StopAsyncIteration):
            await anext(events)


async def test_an_idle_connection_is_kept_alive(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("live.ALIVE_SECONDS", 0.1)
    # Of a session that is not there nobody is told anything.
    await service.store.append(service.key, turn(0)[:1])
    async with service.live() as events:
        assert [event["id"] for event in await take(events, 1)] == ["1"]
        assert await take(events, 2) == [{"": "alive"}] * 2
        await service.store.append(service.key, turn(1))
        ids = [event["id"] for event in await take(events, 6) if "id" in event]
        while len(ids) < 6:
            ids += [event["id"] for event in await take(events, 1) if "id" in event]
        assert ids == ["2", "3", "4", "5", "6", "7"]
