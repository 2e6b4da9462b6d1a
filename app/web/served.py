"""Pages for whoever has the token that was printed, on this machine alone.

Any page in the person's browser can send requests to loopback, by a name of its own that leads
there too. So a request must come by an address of loopback, from no other page, and with the token.
"""

from __future__ import annotations

import hmac
import re
import secrets
from http import HTTPStatus
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from ..store import BeanieSessionStore
from .access import Access
from .addresses import Addresses
from .application import session_pages
from .refusals import Refused
from .responses import Secured, refusal, static_hash

LOOPBACK = "127.0.0.1"

_HOSTS = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d{1,5})?", re.IGNORECASE)
_STATIC = re.compile(r"/static/[0-9a-f]+/[\w.-]+")


def new_token() -> str:
    """What nobody guesses."""
    return secrets.token_urlsafe(32)


def kept_of(token: str) -> str:
    """What a browser keeps of a token in its cookie: it opens no address."""
    return hmac.new(token.encode(), b"cookie", "sha256").hexdigest()


def served_pages(store: BeanieSessionStore, token: str, port: int) -> ASGIApp:
    """The pages of a store's sessions for who has the token, or the cookie that it gave."""

    async def access(_: object) -> Access:
        return Access(store)

    return _Guarded(session_pages(access), token, port)


class _Guarded:
    """Lets through what the person at this machine asks for."""

    def __init__(self, pages: ASGIApp, token: str, port: int) -> None:
        self._pages = pages
        self._token = token
        # Browsers send cookies of one port of a host to all others.
        self._cookie = f"session-store-{port}"
        self._kept = kept_of(token)
        self._refused = Secured(self._refuse, ())
        self._opened = Secured(self._open, ())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._pages(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        await self._chosen(scope)(scope, receive, send)

    def _chosen(self, scope: Scope) -> ASGIApp:
        headers = Headers(scope=scope)
        if not _is_of_this_machine(headers):
            return self._refused
        query = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
        if "token" in query:
            return self._opened if _is_same(query["token"], self._token) else self._refused
        if _is_same(_cookies(headers).get(self._cookie, ""), self._kept):
            return self._pages
        # The refusal has its looks from there, and nothing is in them.
        return self._pages if _STATIC.fullmatch(scope["path"]) else self._refused

    async def _open(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The same address without the token, so that it stays out of histories and pictures."""
        said = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        rest = urlencode([(name, value) for name, value in said if name != "token"])
        path = "/" + scope.get("raw_path", scope["path"].encode()).decode("latin-1").lstrip("/\\")
        answer = RedirectResponse(f"{path}?{rest}" if rest else path, HTTPStatus.SEE_OTHER)
        answer.set_cookie(self._cookie, self._kept, httponly=True, samesite="strict", path="/")
        await answer(scope, receive, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer: Response = refusal(Addresses.below("", static_hash()), _NO_TOKEN)
        await answer(scope, receive, send)


_NO_TOKEN = Refused(
    HTTPStatus.FORBIDDEN,
    "This address needs its token",
    "This address needs the token that session-store serve printed. Open the whole address that "
    "stands in its terminal.",
)


def _is_of_this_machine(headers: Headers) -> bool:
    hosts = headers.getlist("host")
    if len(hosts) != 1 or not _HOSTS.fullmatch(hosts[0]):
        return False
    origins = headers.getlist("origin")
    if any(origin.lower() != f"http://{hosts[0].lower()}" for origin in origins):
        return False
    # A link on another page may lead here, and finds what any stranger finds.
    site = headers.get("sec-fetch-site", "none")
    return site in ("none", "same-origin") or headers.get("sec-fetch-mode") == "navigate"


def _is_same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), expected.encode())


def _cookies(headers: Headers) -> dict[str, str]:
    pairs = (each.strip().partition("=") for each in headers.get("cookie", "").split(";"))
    return {name: value for name, _, value in pairs}
