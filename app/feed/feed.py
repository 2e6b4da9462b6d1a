"""A tenant's sessions as they change, for one who follows them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from time import monotonic

from ..concurrency.cancellation import cancel_and_wait, completed
from ..database.failures import reported
from ..errors import FeedOverrunError
from ..instruments.followers import Follower
from ..storage.connection import Connection
from ..transcript_key import TranscriptKey
from .changes import OwnedChange, SessionChange
from .hub import Hub, Topic, hub_of, is_about

MOST_PENDING = 10_000
"""How many changes wait for one who takes them too slowly."""


class _Missed:
    """The changes that a feed missed, from the server's log.

    What was asked for stays asked for when its asker is cancelled, and the next one gets it.
    """

    def __init__(self, hub: Hub, topic: Topic, until: str) -> None:
        self._hub = hub
        self._topic = topic
        self._until = until
        self._changes: AsyncGenerator[OwnedChange] | None = None
        self._coming: asyncio.Task[SessionChange | None] | None = None

    async def next(self, after: str) -> SessionChange | None:
        """The first change behind a place, from which none was taken yet; ``None`` at the end."""
        if self._coming is None:
            self._coming = asyncio.ensure_future(self._read(after))
        # It goes on when this is cancelled.
        await asyncio.wait([self._coming])
        coming, self._coming = self._coming, None
        return coming.result()

    async def _read(self, after: str) -> SessionChange | None:
        if self._changes is None:
            self._changes = self._hub.read_between(after, self._until)
        try:
            async for told in self._changes:
                if is_about(told, self._topic):
                    return told.change
        except BaseException:
            # It is at its end for good, and the next look begins anew where this one failed.
            self._changes = None
            raise
        return None

    async def close(self) -> None:
        """Read no more; nothing stays open."""
        if self._coming is not None:
            await cancel_and_wait(self._coming)
        if self._changes is not None:
            await self._changes.aclose()


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
        self._earlier: _Missed | None = None
        self._pending: deque[tuple[float, SessionChange]] = deque()
        """Each with when it came, by the monotonic clock."""
        self.follower = Follower("feed")
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
        now = monotonic()
        if self.follower.since is None:
            self.follower.since = now
        self._pending.append((now, told.change))
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
            change = await self._earlier.next(self.token)
            if change is not None:
                return change
            self._earlier = None
        while not self._pending:
            if self._error is not None:
                raise self._error
            self.follower.since = None
            self._came.clear()
            await self._came.wait()
        self.follower.since, change = self._pending.popleft()
        return change

    @asynccontextmanager
    async def entered(self, hub: Hub, after: str | None) -> AsyncGenerator[None]:
        """Listen to a hub, from now on or behind a place, until the exit."""
        async with hub.listening(self, self._topic) as now:
            self.source = hub
            self.token = now if after is None else after
            if after is None:
                yield
                return
            came = self.follower.since = monotonic()
            kept = hub.kept_behind(after)
            if kept is not None:
                mine = [(came, told.change) for told in kept if is_about(told, self._topic)]
                self._pending.extend(mine)
                yield
                return
            earlier = self._earlier = _Missed(hub, self._topic, now)
            try:
                yield
            finally:
                await completed(earlier.close(), "close the log of sessions")


@asynccontextmanager
async def followed(connection: Connection, topic: Topic, after: str | None) -> AsyncGenerator[Feed]:
    """A feed of a tenant's sessions, or of one, from now on, or behind a place."""
    feed = Feed(connection, topic)
    async with AsyncExitStack() as stack:
        stack.enter_context(feed.follower)
        with reported(connection.client, *feed.doing):
            await stack.enter_async_context(feed.entered(hub_of(connection), after))
        yield feed
