"""A session as a download: Markdown, HTML in one file, or JSON Lines as stored."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from http import HTTPStatus

from starlette.responses import Response, StreamingResponse

from ...models.packing import full_stack
from ..errors import TransferError
from ..jobs.page_export import page_texts
from ..reading.listings import SessionListing
from ..rendering.formats import page_of
from ..rendering.pieces import Page
from ..sdk import SessionKey
from ..store import BeanieSessionStore
from ..transcript_key import session_key
from .refusals import Refused, no_such_session
from .responses import attachment_headers
from .session_view import SESSION_PATH, SessionQuery
from .viewer import PageRoute, Viewer

_TYPES = {
    "markdown": "text/markdown; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "jsonl": "application/x-ndjson",
}
# Each part of an answer costs its sender as much as a page of text.
_PART_CHARACTERS = 64_000


async def markdown(viewer: Viewer) -> Response:
    """The session as a page of Markdown."""
    return await _page(viewer, "markdown")


async def html_file(viewer: Viewer) -> Response:
    """The session as one file of HTML, which is never opened as a page of ours."""
    return await _page(viewer, "html")


async def json_lines(viewer: Viewer) -> Response:
    """The entries of a transcript as they are stored: the main one, or that of a subagent."""
    key = viewer.session_key
    if await viewer.store.summary(key) is None:
        raise no_such_session()
    subpath = SessionQuery.of(viewer.request.query_params).subpath
    if subpath:
        key = session_key(key["project_key"], key["session_id"], subpath=subpath)
    name = f"{key['session_id']}{'-' + subpath.rpartition('/')[2] if subpath else ''}.jsonl"
    return _download(_lines(viewer.store, key), name, "jsonl")


async def _page(viewer: Viewer, form: str) -> Response:
    try:
        page = page_of(form)
    except TransferError as error:
        raise Refused(HTTPStatus.NOT_IMPLEMENTED, "This cannot be exported", str(error)) from None
    key = viewer.session_key
    sessions = viewer.store.all_sessions(key["project_key"], key["session_id"])
    listing = await anext(aiter(sessions), None)
    if listing is None:
        raise no_such_session()
    name = f"{key['session_id']}{page.ending}"
    return _download(_texts(page, viewer.store, listing), name, form)


def _download(parts: AsyncIterator[str], name: str, form: str) -> Response:
    return StreamingResponse(
        _in_larger_parts(parts), headers=attachment_headers(name), media_type=_TYPES[form]
    )


async def _texts(
    page: Page, store: BeanieSessionStore, listing: SessionListing
) -> AsyncIterator[str]:
    async for text, _ in page_texts(page, store, listing):
        yield text


async def _lines(store: BeanieSessionStore, key: SessionKey) -> AsyncIterator[str]:
    async for entry in store.stream(key):
        yield full_stack(lambda entry=entry: json.dumps(entry)) + "\n"


async def _in_larger_parts(parts: AsyncIterator[str]) -> AsyncIterator[bytes]:
    waiting: list[str] = []
    size = 0
    async for part in parts:
        waiting.append(part)
        size += len(part)
        if size >= _PART_CHARACTERS:
            yield "".join(waiting).encode("utf-8", "replace")
            waiting, size = [], 0
            # A reader who is fast is never waited for, and others are to be served as well.
            await asyncio.sleep(0)
    yield "".join(waiting).encode("utf-8", "replace")


routes: list[PageRoute] = [
    PageRoute(f"{SESSION_PATH}/export.md", markdown, does="export"),
    PageRoute(f"{SESSION_PATH}/export.html", html_file, does="export"),
    PageRoute(f"{SESSION_PATH}/export.jsonl", json_lines, does="export"),
]
