"""What changes comes to the pages as it does: each entry once, in order, over reconnections."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Mount
from support.entries import KEY, SUBAGENT, message, turn
from support.pages import prompt
from support.watchdog import WATCHDOG_SECONDS
from support.watches import until_watched

from beanie_session_store import BeanieSessionStore
from beanie_session_store.app.database.driver import Database
from beanie_session_store.app.feed import hub
from beanie_session_store.app.web import event_stream, live_routes
from beanie_session_store.app.web.session_rows import anchor_of
from beanie_session_store.web import Access, session_pages

LIVE = "/s/project/session/live"


class Reader:
    """A browser that reads events of one request, without a socket."""

    def __init__(
        self,
        app: Any,
        path: str,
        query: str = "",
        headers: dict[str, str] | None = None,
        method: str = "GET",
    ):
        self.status = 0
        self.headers: dict[str, str] = {}
        self.events: asyncio.Queue[tuple[str, str | None, Any] | None] = asyncio.Queue()
        self._gone = asyncio.Event()
        self._text = ""
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(k.encode(), v.encode()) for k, v in (headers or {}).items()],
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "scheme": "http",
            "server": ("team.example", 80),
        }
        self.is_stuck = False
        self._task = asyncio.create_task(app(scope, self._receive, self._send))

    async def _receive(self) -> dict[str, Any]:
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        while self.is_stuck:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {k.decode(): v.decode() for k, v in message["headers"]}
            return
        self._text += message["body"].decode()
        *whole, self._text = self._text.split("\n\n")
        for block in whole:
            fields = dict(line.split(": ", 1) for line in block.split("\n") if line[0] != ":")
            if "event" in fields:
                data = json.loads(fields["data"])
                self.events.put_nowait((fields["event"], fields.get("id"), data))
        if not message.get("more_body"):
            self.events.put_nowait(None)

    async def take(self, count: int) -> list[tuple[str, str | None, Any]]:
        async def some() -> list[Any]:
            return [await self.events.get() for _ in range(count)]

        return await asyncio.wait_for(some(), WATCHDOG_SECONDS)

    async def leave(self) -> None:
        self._gone.set()
        await asyncio.wait_for(self._task, WATCHDOG_SECONDS)

    async def ended(self) -> None:
        await asyncio.wait_for(self._task, WATCHDOG_SECONDS)


def app_of(store: BeanieSessionStore, **options: Any) -> Any:
    async def access(request: Request) -> Access:
        return Access(store, **options)

    return Starlette(routes=[Mount("/", session_pages(access))])


@asynccontextmanager
async def reading(app: Any, path: str = LIVE, **options: Any) -> AsyncIterator[Reader]:
    reader = Reader(app, path, **options)
    try:
        yield reader
    finally:
        await reader.leave()


async def test_entries_come_once_and_in_order_from_a_position_on(
    store: BeanieSessionStore,
) -> None:
    await store.append(KEY, [prompt("one"), prompt("two")])
    async with reading(app_of(store), query="after=1") as reader:
        name, _, data = (await reader.take(1))[0]
        assert (name, data["position"]) == ("live", 2)
        assert reader.headers["content-type"].startswith("text/event-stream")
        assert reader.headers["cache-control"] == "no-store"
        assert "default-src 'none'" in reader.headers["content-security-policy"]
        await store.append(KEY, [prompt("three")])
        await store.append(SUBAGENT, [prompt("four")])
        await store.append(KEY, [prompt("five"), prompt("six")])
        found = await reader.take(3)
        while found[-1][1] != "6":
            found += await reader.take(1)
    assert {name for name, _, _ in found} == {"entry"}
    positions = [int(number or 0) for _, number, _ in found]
    assert positions == sorted(set(positions))
    assert positions[0] == 2


async def test_a_browser_that_comes_back_misses_nothing(store: BeanieSessionStore) -> None:
    await store.append(KEY, [prompt("one")])
    app = app_of(store)
    async with reading(app) as reader:
        assert (await reader.take(2))[1][1] == "1"
    await store.append(KEY, [prompt("two"), prompt("three")])
    async with reading(app, query="after=0", headers={"last-event-id": "1"}) as again:
        assert [number for _, number, _ in await again.take(3)] == [None, "2", "3"]


async def test_a_session_that_is_deleted_says_so_and_ends(store: BeanieSessionStore) -> None:
    await store.append(KEY, [prompt("one")])
    app = app_of(store)
    async with reading(app, query="after=1") as reader:
        ((_, _, first),) = await reader.take(1)
        await store.delete(KEY)
        assert (await reader.take(2))[0][0] == "gone"
        await reader.ended()
    # So does one that was deleted while nobody was connected; made anew, it is another one.
    async with reading(app, headers={"last-event-id": "1"}) as again:
        assert (await again.take(2))[0][0] == "gone"
    await store.append(KEY, [prompt("anew")])
    async with reading(app, headers={"last-event-id": "1"}) as anew:
        name, _, data = (await anew.take(1))[0]
    assert (name, data["session"] == first["session"]) == ("live", False)


async def test_nothing_of_a_deleted_session_is_shown_in_one_made_anew(
    store: BeanieSessionStore,
) -> None:
    app = app_of(store)
    # It keeps the feed open between the two readers.
    async with reading(app, "/live") as others:
        await others.take(1)
        for text, other in (("erased", "anew"), ("anew", "erased")):
            await store.append(KEY, [prompt(text)])
            async with reading(app) as reader:
                shown = json.dumps(await reader.take(2))
            assert text in shown
            assert other not in shown
            await store.delete(KEY)


@pytest.mark.parametrize("is_made_anew", [False, True])
async def test_a_session_that_is_deleted_while_it_is_read_is_gone(
    store: BeanieSessionStore, monkeypatch: pytest.MonkeyPatch, is_made_anew: bool
) -> None:
    real = live_routes.live_fragments

    async def just_before(*read: Any) -> Any:
        await store.delete(KEY)
        if is_made_anew:
            await store.append(KEY, [prompt("anew")])
        return await real(*read)

    monkeypatch.setattr(live_routes, "live_fragments", just_before)
    await store.append(KEY, [prompt("one")])
    async with reading(app_of(store)) as reader:
        found = await reader.take(3)
        await reader.ended()
    assert [each and each[0] for each in found] == ["live", "gone", None]


@pytest.mark.parametrize("path", [LIVE, "/live"])
async def test_the_head_of_live_events_is_answered_at_once(
    store: BeanieSessionStore, database: Database, path: str
) -> None:
    await store.append(KEY, [prompt("one")])
    reader = Reader(app_of(store), path, method="HEAD")
    assert await reader.take(1) == [None]
    await reader.ended()
    assert reader.status == 200
    assert reader.headers["content-type"].startswith("text/event-stream")
    await until_watched(database, 0)


async def test_a_session_of_which_one_hears_late_that_it_was_made_is_live(
    store: BeanieSessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, heard = hub.Hub._understood, asyncio.Event()

    async def late(self: hub.Hub, document: Any) -> Any:
        await heard.wait()
        return await real(self, document)

    monkeypatch.setattr(hub.Hub, "_understood", late)
    app = app_of(store)
    async with reading(app, "/live") as others:
        await others.take(1)
        await store.append(KEY, [prompt("before")])
        await store.delete(KEY)
        await store.append(KEY, [prompt("one")])
        async with reading(app) as reader:
            assert [name for name, _, _ in await reader.take(2)] == ["live", "entry"]
            heard.set()
            await store.append(KEY, [prompt("two")])
            assert (await reader.take(1))[0][0] == "entry"


@pytest.mark.parametrize("query", ["after=x", "after=-1", "after=²", "after=" + "9" * 30])
async def test_what_is_no_position_is_refused(store: BeanieSessionStore, query: str) -> None:
    await store.append(KEY, turn(1))
    async with reading(app_of(store), query=query) as reader:
        await reader.ended()
        assert reader.status == 400


async def test_another_tenants_session_is_the_same_as_none(store: BeanieSessionStore) -> None:
    await BeanieSessionStore(tenant="other").append(KEY, turn(1))
    async with reading(app_of(store)) as reader:
        await reader.ended()
        assert reader.status == 404


async def test_who_sees_figures_alone_is_refused_entries_and_sees_rows_of_figures(
    store: BeanieSessionStore,
) -> None:
    await store.append(KEY, [prompt("a secret")])
    app = app_of(store, contents=False)
    async with reading(app) as reader:
        await reader.ended()
        assert reader.status == 403
    async with reading(app, "/live") as rows:
        await rows.take(1)
        await store.append(KEY, [prompt("another secret")])
        ((name, _, (row,)),) = await rows.take(1)
        assert name == "rows"
        assert "secret" not in json.dumps(row)
        # Nor can an address of the session be made of it, or of what is said at its end.
        await store.delete(KEY)
        last = await rows.take(1)
        assert [name for name, _, _ in last] == ["gone"]
        assert f"/{KEY['session_id']}" not in json.dumps([row, last])


async def test_the_list_hears_of_its_rows_and_no_others(store: BeanieSessionStore) -> None:
    app = app_of(store)
    other = {**KEY, "project_key": "other"}
    async with reading(app, "/live", query="project=project") as reader:
        await reader.take(1)
        await store.append(other, [prompt("elsewhere")])
        await store.append(KEY, [prompt("here")])
        ((name, _, rows),) = await reader.take(1)
        assert name == "rows"
        assert [(row["at"], row["new"]) for row in rows] == [(anchor_of(KEY), True)]
        assert "here" in rows[0]["html"]
        await store.append(KEY, [message("more")])
        assert [row["new"] for row in (await reader.take(1))[0][2]] == [False]
        await store.delete(KEY)
        assert (await reader.take(1))[0] == ("gone", None, [anchor_of(KEY)])


async def test_many_read_at_the_cost_of_one_and_leave_nothing_open(
    store: BeanieSessionStore, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    real = live_routes.live_fragments

    async def counted(viewer: Any, key: Any, after: int) -> Any:
        asked.append(after)
        return await real(viewer, key, after)

    monkeypatch.setattr(live_routes, "live_fragments", counted)
    await store.append(KEY, [prompt("one")])
    app = app_of(store)
    readers = [Reader(app, LIVE, query="after=1") for _ in range(50)]
    for reader in readers:
        await reader.take(1)
    await until_watched(database, 1)
    for text in ("two", "three", "four"):
        await store.append(KEY, [prompt(text)])
        for reader in readers:
            await reader.take(1)
    assert len(asked) < 10
    for reader in readers:
        await reader.leave()
    await until_watched(database, 0)


async def test_one_that_takes_nothing_is_let_go_and_holds_up_nobody(
    store: BeanieSessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "_SLOW_SECONDS", 0.3)
    await store.append(KEY, [prompt("one")])
    app = app_of(store)
    async with reading(app, query="after=1") as quick:
        slow = Reader(app, LIVE, query="after=1")
        await quick.take(1)
        await slow.take(1)
        slow.is_stuck = True
        await store.append(KEY, [prompt("two")])
        assert (await quick.take(1))[0][1] == "2"
        await slow.ended()
        async with reading(app, headers={"last-event-id": "1"}) as again:
            assert [number for _, number, _ in await again.take(2)] == [None, "2"]


async def test_a_standalone_server_says_that_it_tells_of_nothing(
    standalone_database: Database,
) -> None:
    store = BeanieSessionStore()
    await store.append(KEY, [prompt("one")])
    for path in (LIVE, "/live"):
        async with reading(app_of(store), path) as reader:
            assert (await reader.take(1))[0][0] == "off"
