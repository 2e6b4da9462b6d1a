"""A real Chromium, and the pages served to it over a socket, each from a thread of its own."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Mount
from support.watchdog import WATCHDOG_SECONDS

from beanie_session_store import BeanieSessionStore
from beanie_session_store.web import Access, session_pages

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

T = TypeVar("T")

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser")
_REQUIRED = "SESSION_STORE_BROWSER_REQUIRED"

# As root there is no sandbox; and it looks for nothing but what it is told to.
_FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--force-color-profile=srgb"),
)


@contextmanager
def launched() -> Iterator[Browser]:
    """Chromium without a window; skips the test by name where there is none."""
    missing = None if PROGRAM else "no Chromium here; Debian has it as the package chromium"
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing = "no playwright here: pip install -e '.[dev]'"
    if missing is not None:
        if os.environ.get(_REQUIRED):
            pytest.fail(f"{missing}, and {_REQUIRED} is set")
        pytest.skip(missing)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=PROGRAM, args=_FLAGS)
        yield browser
        browser.close()


@contextmanager
def opened(browser: Browser, **options: Any) -> Iterator[BrowserContext]:
    """A profile of its own, which waits for pages for as long as a busy machine takes."""
    with browser.new_context(**options) as context:
        context.set_default_timeout(WATCHDOG_SECONDS * 1_000)
        yield context


@dataclass
class Served:
    """Pages on a port of loopback, and the store behind them."""

    url: str
    store: BeanieSessionStore
    _loop: asyncio.AbstractEventLoop
    _server: uvicorn.Server

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something with the store, where its client is."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(WATCHDOG_SECONDS)

    def append(self, key: Any, entries: Sequence[Any]) -> None:
        """Write as an agent does."""
        self.run(self.store.append(key, entries))

    def cut(self) -> None:
        """Cut all connections, as a network does that is away for a moment."""

        def close() -> None:
            for connection in list(self._server.server_state.connections):
                connection.transport.abort()  # type: ignore[union-attr]

        self._loop.call_soon_threadsafe(close)

    def session(self, key: Any) -> str:
        """Where a session is."""
        return f"{self.url}/s/{key['project_key']}/{key['session_id']}"


@contextmanager
def served(mongo_url: str, database: str, **options: Any) -> Iterator[Served]:
    """The pages of a store; below ``/figures-only`` without what was said."""
    ready = threading.Event()
    found: list[Served] = []
    over: list[uvicorn.Server] = []

    async def serve() -> None:
        connection = BeanieSessionStore.connect(mongo_url, database=database)
        async with connection as store:

            async def whole(_: Request) -> Access:
                return Access(store, actor="u1")

            async def figures(_: Request) -> Access:
                return Access(store, contents=False, actor="u4")

            app = Starlette(
                routes=[
                    Mount("/figures-only", session_pages(figures)),
                    Mount("/sessions", session_pages(whole, **options)),
                ]
            )
            config = uvicorn.Config(
                app, port=0, log_level="critical", lifespan="off", timeout_graceful_shutdown=1
            )
            server = uvicorn.Server(config)
            over.append(server)
            serving = asyncio.ensure_future(server.serve())
            while not server.started and not serving.done():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            port = server.servers[0].sockets[0].getsockname()[1]
            url = f"http://127.0.0.1:{port}/sessions"
            found.append(Served(url, store, asyncio.get_running_loop(), server))
            ready.set()
            await serving

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    assert ready.wait(WATCHDOG_SECONDS)
    try:
        yield found[0]
    finally:
        over[0].should_exit = True
        thread.join(WATCHDOG_SECONDS)


@dataclass
class Watched:
    """A page of which everything is noted that it says, asks for and tries."""

    page: Page
    said: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, page: Page) -> Watched:
        watched = cls(page)

        def dialog(found: Any) -> None:
            watched.dialogs.append(found.message)
            found.dismiss()

        page.on("console", lambda message: watched.said.append(message.text))
        page.on("pageerror", lambda error: watched.said.append(str(error)))
        page.on("request", lambda request: watched.requests.append(request.url))
        page.on("dialog", dialog)
        page.on("popup", lambda popup: watched.dialogs.append(popup.url))
        return watched

    def assert_harmless(self, url: str) -> None:
        """Nothing ran, nothing was refused, and nothing was asked for but our own."""
        origin = url.split("/sessions")[0].split("/figures-only")[0]
        assert not self.dialogs
        assert not self.said
        elsewhere = [each for each in self.requests if not each.startswith(f"{origin}/")]
        assert not elsewhere
