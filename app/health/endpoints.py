"""``/livez`` and ``/readyz``: what orchestrators ask of an application that uses a store."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

from .readiness import Readiness

_Scope: TypeAlias = MutableMapping[str, Any]
_Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]

# However many ask, the server is looked at no more often.
_KEPT_SECONDS = 1.0


class HealthChecks:
    """An ASGI application of two paths.

    It is to be mounted: ``app.mount("/health", HealthChecks(store.readiness))``.

    ``GET /livez`` is answered with 200 as long as the event loop turns; it asks no server, for an
    application that is restarted because its database is away is not better for it. ``GET
    /readyz`` is answered with 200 if the store can append and read with its promises, else with
    503 and the reason, as JSON: ``{"ready": false, "reason": "..."}``.

    Args:
        look: what tells whether the store can be used: the :meth:`readiness` of one.
        show_reasons: whether ``/readyz`` says why not; reasons name the servers.
    """

    def __init__(
        self, look: Callable[[], Awaitable[Readiness]], *, show_reasons: bool = True
    ) -> None:
        self._look = look
        self._show_reasons = show_reasons
        self._last: tuple[float, Readiness] | None = None
        self._looking: asyncio.Future[Readiness] | None = None

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1000})
        else:
            status, answer = await self._answer(scope)
            await _respond(send, status, answer, is_head=scope["method"] == "HEAD")

    async def _answer(self, scope: _Scope) -> tuple[int, dict[str, Any]]:
        root = scope.get("root_path", "")
        path = scope["path"]
        # Frameworks differ in whether the path still has the mount in front.
        path = path[len(root) :] if root and path.startswith(root) else path
        if path not in ("/livez", "/readyz"):
            return 404, {"error": "There are /livez and /readyz here."}
        if scope["method"] not in ("GET", "HEAD"):
            return 405, {"error": "Ask with GET."}
        if path == "/livez":
            return 200, {"live": True}
        found = await self._readiness()
        if found.is_ready:
            return 200, {"ready": True}
        reason = {"reason": found.reason} if self._show_reasons else {}
        return 503, {"ready": False, **reason}

    async def _readiness(self) -> Readiness:
        if self._last is not None and time.monotonic() - self._last[0] < _KEPT_SECONDS:
            return self._last[1]
        looking = self._looking
        if looking is None or looking.done():
            looking = self._looking = asyncio.ensure_future(self._look())
        # Whoever asks may go away, and others wait for the same look.
        found = await asyncio.shield(looking)
        self._last = time.monotonic(), found
        return found


async def _respond(send: _Send, status: int, answer: dict[str, Any], *, is_head: bool) -> None:
    body = json.dumps(answer).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if is_head else body})


async def _lifespan(receive: _Receive, send: _Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
