"""Server-sent events: an answer that goes on until its reader leaves, or is too slow."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from time import monotonic
from typing import Any

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ..concurrency.cancellation import cancel_and_wait

ALIVE_SECONDS = 15.0
"""After so long without an event a comment is sent, by which one notices who has gone."""

# Whoever takes nothing for so long is let go, and asks again where it was.
_SLOW_SECONDS = 30.0

# Then the reader asks again where it was, and whether it may is asked anew.
_LONGEST_SECONDS = 600.0

_AGAIN_MS = 2_000


def event(name: str, data: Any, id: str | int | None = None) -> bytes:  # noqa: A002
    """One event; the data is JSON, which has no line breaks."""
    number = "" if id is None else f"id: {id}\n"
    return f"event: {name}\n{number}data: {json.dumps(data)}\n\n".encode()


def last_event(headers: Headers) -> str | None:
    """What a browser that comes back says it has seen last."""
    return headers.get("last-event-id") or None


class EventStream(Response):
    """Sends events as they come; the generator is closed when the reader leaves.

    Who asks for the head alone gets that, and no event is waited for.
    """

    def __init__(self, events: AsyncGenerator[bytes]) -> None:
        super().__init__(media_type="text/event-stream")
        del self.headers["content-length"]
        # Else a proxy would keep them until it has a page full.
        self.headers["X-Accel-Buffering"] = "no"
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "HEAD":
            await self._events.aclose()
            await send(self._start)
            await _sent(send, b"", more=False)
            return
        sending = asyncio.ensure_future(self._send(send))
        leaving = asyncio.ensure_future(_left(receive))
        try:
            await asyncio.wait([sending, leaving], return_when=asyncio.FIRST_COMPLETED)
        finally:
            done = await cancel_and_wait(sending, leaving)
        if isinstance(done[0], Exception) and not isinstance(done[0], (OSError, TimeoutError)):
            raise done[0]

    @property
    def _start(self) -> dict[str, Any]:
        return {"type": "http.response.start", "status": 200, "headers": self.raw_headers}

    async def _send(self, send: Send) -> None:
        await send(self._start)
        async with aclosing(self._events) as events:
            await _sent(send, f"retry: {_AGAIN_MS}\n\n".encode())
            coming = asyncio.ensure_future(anext(events))
            end = monotonic() + _LONGEST_SECONDS
            try:
                while monotonic() < end:
                    await asyncio.wait([coming], timeout=ALIVE_SECONDS)
                    if not coming.done():
                        await _sent(send, b": alive\n\n")
                        continue
                    try:
                        found = coming.result()
                    except StopAsyncIteration:
                        break
                    await _sent(send, found)
                    coming = asyncio.ensure_future(anext(events))
            finally:
                await cancel_and_wait(coming)
        await _sent(send, b"", more=False)


async def _sent(send: Send, body: bytes, *, more: bool = True) -> None:
    message = {"type": "http.response.body", "body": body, "more_body": more}
    await asyncio.wait_for(send(message), _SLOW_SECONDS)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
