"""The pages as a browser gets them, mounted as a team mounts them, without a socket."""

from __future__ import annotations

from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Mount

from beanie_session_store import BeanieSessionStore
from beanie_session_store.web import Access, session_pages

MOUNT = "/team/sessions"


def pages_of(
    store: BeanieSessionStore,
    *,
    contents: bool = True,
    actor: str | None = None,
    mount: str = MOUNT,
    **options: Any,
) -> httpx.AsyncClient:
    """A client of pages that show the store's sessions to whoever asks, from their mount on."""

    async def access(request: Request) -> Access:
        return Access(store, contents=contents, actor=actor)

    return client_of(session_pages(access, **options), mount=mount)


def client_of(pages: Any, *, mount: str = MOUNT) -> httpx.AsyncClient:
    """A client of the pages, from their mount on."""
    app = Starlette(routes=[Mount(mount, pages)])
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url=f"http://team.example{mount}"
    )
