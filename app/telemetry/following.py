"""Sending sessions to a collector while they are written."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from contextlib import aclosing
from time import monotonic

from opentelemetry.sdk.trace.export import SpanExporter

from ..concurrency.cancellation import completed
from ..database.failures import require_asyncio
from ..errors import SessionChangedError
from ..feed.changes import SessionChange
from ..store import BeanieSessionStore
from ..traces.session_spans import SessionSpans
from ..traces.spans import SessionSpan, nanoseconds_of
from .sdk_spans import SpanSender

logger = logging.getLogger("beanie_session_store.telemetry")

REST_SECONDS = 5.0
"""A session that nothing came to for so long is at the end of its turn, unless a tool runs."""

MOST_SESSIONS = 1_000
"""How many are remembered; one that was forgotten is sent from its beginning again."""


class _Followed:
    """A session, as far as it was read."""

    def __init__(self, spans: SessionSpans) -> None:
        self.spans = spans
        self.seq = 0
        self.changed_at: float | None = None
        """By the monotonic clock; ``None`` once all of it was sent."""


class _LiveTraces:
    def __init__(self, store: BeanieSessionStore, sender: SpanSender, with_content: bool) -> None:
        self._store = store
        self._sender = sender
        self._with_content = with_content
        self._sessions: OrderedDict[tuple[str, str], _Followed] = OrderedDict()

    async def changed(self, change: SessionChange) -> None:
        """Send what ended with a change."""
        name = change.project_key, change.session_id
        if change.kind == "deleted":
            await self._forget(self._sessions.pop(name, None))
            return
        if change.next_seq is None:
            return
        followed = self._sessions.get(name) or await self._begun(change)
        if followed is None or change.next_seq - 1 <= followed.seq:
            return
        self._sessions[name] = followed
        self._sessions.move_to_end(name)
        try:
            await self._read_on(change, followed)
        except SessionChangedError:
            # It was deleted, of which the feed will tell, or made anew.
            self._sessions.pop(name, None)
        if len(self._sessions) > MOST_SESSIONS:
            await self._forget(self._sessions.popitem(last=False)[1])

    async def rest(self) -> None:
        """Send what is at rest."""
        now = monotonic()
        for followed in list(self._sessions.values()):
            since = followed.changed_at
            if since is None or now - since < REST_SECONDS or not followed.spans.is_at_rest:
                continue
            await self._forget(followed)

    async def end(self) -> None:
        """Send all of what has begun."""
        for followed in self._sessions.values():
            await self._forget(followed)

    async def _forget(self, followed: _Followed | None) -> None:
        """Send what has not ended as if it had."""
        if followed is not None and followed.changed_at is not None:
            followed.changed_at = None
            await self._send(list(followed.spans.ended()))

    async def _begun(self, change: SessionChange) -> _Followed | None:
        summary = await self._store.summary(change.key())
        if summary is None:
            return None
        return _Followed(
            SessionSpans(
                change.session_id,
                begun_ns=nanoseconds_of(summary.created_at),
                copied_until=summary.totals.copied_until or 0,
                with_content=self._with_content,
            )
        )

    async def _read_on(self, change: SessionChange, followed: _Followed) -> None:
        ready: list[SessionSpan] = []
        stream = self._store.stream(change.key(), followed.seq or None, with_subagents=True)
        async with aclosing(stream) as entries:
            async for entry in entries:
                followed.seq = entry.seq
                followed.changed_at = monotonic()
                ready.extend(followed.spans.add(entry, entry.subpath, entry.seq))
        await self._send(ready)

    async def _send(self, spans: list[SessionSpan]) -> None:
        if not await self._sender.send(spans):
            logger.warning(
                "The exporter did not take %s spans of sessions; send_traces sends them again.",
                len(spans),
            )


async def follow_traces(
    store: BeanieSessionStore,
    exporter: SpanExporter,
    *,
    with_content: bool = False,
    after: str | None = None,
) -> None:
    """Send the tenant's sessions as traces while they are written, until it is cancelled.

    A response is sent when the next one begins, a call of a tool with its result, a turn with the
    next prompt; and what there is when nothing came for five seconds and no tool runs. A session
    is sent from its beginning when something first comes to it; what was sent before has the same
    ids. What a response took is what was known when it was sent: :func:`send_traces` has what it
    took in the end. Spans that the exporter does not take are logged and left out.

    Args:
        store: where from.
        exporter: such as ``OTLPSpanExporter(endpoint="http://localhost:4318/v1/traces")``.
        with_content: also prompts, answers, arguments and results of tools.
        after: the token of a feed to go on behind; ``None`` for what comes from now on.

    Raises:
        StandaloneError: the server is no replica set.
        FeedOverrunError: changes came faster than the exporter takes spans.
        SessionStoreError: as for :meth:`BeanieSessionStore.feed`.
    """
    require_asyncio()
    follower = _LiveTraces(store, SpanSender(exporter), with_content)
    async with store.feed(after=after) as feed:
        coming = asyncio.ensure_future(anext(feed))
        try:
            while True:
                await asyncio.wait([coming], timeout=REST_SECONDS)
                if coming.done():
                    await follower.changed(coming.result())
                    coming = asyncio.ensure_future(anext(feed))
                await follower.rest()
        finally:
            coming.cancel()
            await asyncio.gather(coming, return_exceptions=True)
            await completed(follower.end(), "send the traces of sessions")
