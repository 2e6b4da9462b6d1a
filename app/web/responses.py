"""Answers: pages from templates, downloads, refusals, and the headers that keep them safe."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.datastructures import MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..text import line
from .addresses import Addresses
from .refusals import Refused
from .viewer import Viewer
from .wording import FILTERS

_HERE = Path(__file__).parent
_STATIC = {
    "app.js": "text/javascript",
    "icon.svg": "image/svg+xml",
    "live.js": "text/javascript",
    "style.css": "text/css",
}
_READS = ("GET", "HEAD")
_YEAR = 365 * 24 * 3600


def page(viewer: Viewer, template: str, *, status: int = 200, **context: Any) -> Response:
    """A page from a template, which also knows ``viewer``, ``access`` and ``links``."""
    return html(
        fragment(viewer, template, **context),
        status=status,
    )


def fragment(viewer: Viewer, template: str, **context: Any) -> str:
    """HTML from a template, as :func:`page` and the script's requests have it."""
    given = {"viewer": viewer, "access": viewer.access, "links": viewer.links, **context}
    return templates().get_template(template).render(given)


def html(text: str, *, status: int = 200) -> Response:
    """An answer in HTML; lone surrogates, which it cannot hold, are replaced."""
    body = text.encode("utf-8", "replace")
    return Response(body, status, media_type="text/html")


def refusal(links: Addresses, refused: Refused, viewer: Viewer | None = None) -> Response:
    """The page that says why there is none."""
    given = {
        "viewer": viewer,
        "access": viewer and viewer.access,
        "links": links,
        "refused": refused,
    }
    answer = html(templates().get_template("refused.html").render(given), status=refused.status)
    if refused.again is not None:
        answer.headers["Retry-After"] = answer.headers["Refresh"] = str(refused.again)
    return answer


def attachment(body: bytes, name: str, media_type: str) -> Response:
    """A download: browsers keep it as a file of that name, and never run it."""
    return Response(body, headers=attachment_headers(name), media_type=media_type)


def attachment_headers(name: str) -> dict[str, str]:
    """Headers of a download, for answers that are streamed."""
    safe = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "_" for c in name)
    whole = quote(name.encode("utf-8", "replace"), safe="")
    return {
        "Content-Disposition": f"attachment; filename=\"{safe}\"; filename*=UTF-8''{whole}",
        "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
    }


@cache
def templates() -> Environment:
    """The templates; what they are given is escaped."""
    found = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["one_line"] = line
    found.filters.update(FILTERS)
    return found


@cache
def static_files() -> Mapping[str, bytes]:
    """The files of the pages' own that are there."""
    there = {name: _HERE / "static" / name for name in _STATIC}
    return {name: path.read_bytes() for name, path in there.items() if path.is_file()}


@cache
def static_hash() -> str:
    """Changes with the files, so that browsers keep each version for good."""
    digest = hashlib.sha256()
    for name, body in sorted(static_files().items()):
        digest.update(f"{name} {len(body)}\n".encode() + body)
    return digest.hexdigest()[:16]


def static_file(name: str) -> Response:
    """A file of the pages' own."""
    kept = {"Cache-Control": f"public, max-age={_YEAR}, immutable"}
    return Response(static_files()[name], headers=kept, media_type=_STATIC[name])


class Secured:
    """Sends the headers with every answer, whoever made it."""

    def __init__(self, app: ASGIApp, frame_ancestors: tuple[str, ...]) -> None:
        self._app = app
        ancestors = " ".join(frame_ancestors) or "'none'"
        self._headers = {
            "Content-Security-Policy": (
                "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
                "connect-src 'self'; form-action 'self'; base-uri 'none'; "
                f"frame-ancestors {ancestors}"
            ),
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
            # What was erased is not to come back from a browser's memory.
            "Cache-Control": "no-store",
        }
        if not frame_ancestors:
            self._headers["X-Frame-Options"] = "DENY"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
            await send(message)

        if scope["method"] in _READS:
            await self._app(scope, receive, secured)
        else:
            refused = Response("These pages only read.", 405, {"Allow": ", ".join(_READS)})
            await refused(scope, receive, secured)
