"""A tenant's sessions as they change, for one who follows them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager

from ..database.failures import reported
from ..errors import FeedOverrunError
from ..storage.connection import Connection
from ..transcript_key import TranscriptKey
from .changes import OwnedChange, SessionChange
from .hub import Hub, Topic, hub_of, is_about

MOST_PENDING = 10_000
"""How many changes wait for one who takes them too slowly."""


class Feed:
    """The changes of a tenant's sessions: ``async for change in feed``, which never ends by itself.

    Raises:
        FeedOverrunError: more changes came than were taken; go on with a new feed,
            ``after=feed.token``.
        FeedLostError: changes may have been missed, and no token brings them back.
        SessionStoreError: as for the store.
    """

    def __init__(self, connection: Connection, topic: Topic) -> None:
        self._client = connection.client
        self._topic = topic
        self.doing = "follow", topic if isinstance(topic, TranscriptKey) else f"tenant {topic}"
        self._earlier: AsyncGenerator[OwnedChange] | None = None
        self._pending: deque[SessionChange] = deque()
        self._came = asyncio.Event()
        self._error: Exception | None = None
        self.source: object = None
        """The change stream behind it; feeds of one process and database have the same."""
        self.token = ""
        """Where it is: that of the last change that was taken, or where it began."""

    def told(self, told: OwnedChange) -> None:
        """Keep a change until it is taken."""
        if self._error is not None or told.change.token <= self.token:
            return
        if len(self._pending) >= MOST_PENDING:
            self._pending.clear()
            self.ended(
                FeedOverrunError(
                    f"More than {MOST_PENDING} changes of sessions waited for this feed, which was "
                    "taken from too slowly, so it was ended; nothing is lost. Go on with a new "
                    "one, store.feed(after=feed.token), and hand over what takes long."
                )
            )
            return
        self._pending.append(told.change)
        self._came.set()

    def ended(self, error: Exception) -> None:
        """Raise an error once what came before is taken."""
        self._error = self._error or error
        self._came.set()

    def __aiter__(self) -> Feed:
        return self

    async def __anext__(self) -> SessionChange:
        with reported(self._client, *self.doing):
            change = await self._next()
        self.token = change.token
        return change

    async def _next(self) -> SessionChange:
        if self._earlier is not None:
            async for told in self._earlier:
                if is_about(told, self._topic):
                    return told.change
            self._earlier = None
        while not self._pending:
            if self._error is not None:
                raise self._error
            self._came.clear()
            await self._came.wait()
        return self._pending.popleft()

    @asynccontextmanager
    async def entered(self, hub: Hub, after: str | None) -> AsyncGenerator[None]:
        """Listen to a hub, from now on or behind a place, until the exit."""
        async with hub.listening(self, self._topic) as now:
            self.source = hub
            self.token = now if after is None else after
            if after is None:
                yield
                return
            kept = hub.kept_behind(after)
            if kept is not None:
                mine = [told.change for told in kept if is_about(told, self._topic)]
                self._pending.extend(mine)
                yield
                return
            async with aclosing(hub.read_between(after, now)) as self._earlier:
                yield


@asynccontextmanager
async def followed(connection: Connection, topic: Topic, after: str | None) -> AsyncGenerator[Feed]:
    """A feed of a tenant's sessions, or of one, from now on, or behind a place."""
    feed = Feed(connection, topic)
    async with AsyncExitStack() as stack:
        with reported(connection.client, *feed.doing):
            await stack.enter_async_context(feed.entered(hub_of(connection), after))
        yield feed
