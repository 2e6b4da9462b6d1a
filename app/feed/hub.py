"""The one change stream over the sessions of a database, and all in the process who listen.

It opens with the first listener and closes with the last. Nobody who listens is waited for.
"""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from time import monotonic
from typing import Any, Protocol

from bson import ObjectId, Timestamp
from pymongo.errors import OperationFailure, PyMongoError

from ..concurrency.cancellation import cancel_and_wait, completed
from ..database.attempts import STEADY_SECONDS, Attempts
from ..database.change_streams import open_change_stream
from ..database.deadlines import started_without_deadline
from ..database.driver import Record, start_session
from ..database.reads import is_resumable
from ..errors import ClientClosedError, FeedLostError, InvalidQueryError, StandaloneError
from ..instruments.operations import apart
from ..storage.background import stopped_with
from ..storage.connection import Connection
from ..storage.criteria import NOT_DELETED
from ..transcript_key import TranscriptKey
from .changes import PIPELINE, OwnedChange, is_of_dates, place_of, session_in, token_at, token_of

KEPT = 5_000
"""How many changes are kept in memory for those who come back."""

_KEPT_NAMES = 20_000

_NAMES = {"tenant": 1, "project_key": 1, "session_id": 1}

# What the server says of a token that is no longer, or never was, of its log.
_LOST = {260, 280, 286}
_MALFORMED = {9, 40647, 40649, 50811, 50788}

Topic = str | TranscriptKey
"""What a listener wants to hear of: a tenant, or one session."""


def is_about(told: OwnedChange, topic: Topic) -> bool:
    """Whether a change is what somebody wants to hear of."""
    return topic == (told.session if isinstance(topic, TranscriptKey) else told.session.tenant)


class Listener(Protocol):
    """Who is told of changes; each call returns at once and raises nothing."""

    def told(self, told: OwnedChange) -> None:
        """Something changed."""
        ...

    def ended(self, error: Exception) -> None:
        """There is no more to come."""
        ...


class Hub:
    """A change stream and those who listen to it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._summaries = connection.summaries.confirmed.collection
        self._listeners: dict[Topic, set[Listener]] = {}
        self._sessions: OrderedDict[ObjectId, TranscriptKey] = OrderedDict()
        self._task: asyncio.Task[None] | None = None
        self._ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._users = 0
        self._error: Exception | None = None
        self._position = ""
        self._from = ""
        self._kept: deque[OwnedChange] = deque(maxlen=KEPT)
        self._catching_up = asyncio.Lock()

    @asynccontextmanager
    async def listening(self, listener: Listener, topic: Topic) -> AsyncGenerator[str]:
        """Tell a listener of all changes behind the place that is given, until the exit."""
        self._users += 1
        try:
            if self._task is None:
                self._task = started_without_deadline(self._run())
                stopped_with(self._connection.client, self._task)
            await asyncio.shield(self._ready)
            if self._error is not None:
                raise self._error
            self._listeners.setdefault(topic, set()).add(listener)
            yield self._position
        finally:
            found = self._listeners.get(topic, set())
            found.discard(listener)
            if not found:
                self._listeners.pop(topic, None)
            self._users -= 1
            if not self._users:
                await completed(self._close(), "close the feed of sessions")

    def kept_behind(self, token: str) -> list[OwnedChange] | None:
        """The changes between a place and now; ``None`` if not all of them are in memory."""
        if token < self._from:
            return None
        return [told for told in self._kept if told.change.token > token]

    async def read_between(self, token: str, until: str) -> AsyncGenerator[OwnedChange]:
        """The changes behind one place and up to another, from the server's log.

        It takes a change stream of its own for as long. Of all who catch up, one at a time asks the
        server, and nobody waits for what another does between two changes.

        Raises:
            FeedLostError: they are not all in the log.
            InvalidQueryError: no server gave out this token.
        """
        try:
            async for told in self._behind(token, until):
                yield told
        except OperationFailure as error:
            if error.code in _MALFORMED:
                raise InvalidQueryError(
                    "after is no token of this database's feed; nothing was read."
                ) from error
            if error.code in _LOST:
                raise _lost("its token is of another database, or too old") from error
            raise

    async def _behind(self, token: str, until: str) -> AsyncGenerator[OwnedChange]:
        async with AsyncExitStack() as stack:
            async with self._catching_up:
                opening = open_change_stream(self._summaries, PIPELINE, **place_of(token))
                changes = await stack.enter_async_context(opening)
            while token < until:
                async with self._catching_up:
                    document = await changes.next()
                if document is None:
                    # The log holds no more: the place to reach is one at which nothing changed.
                    return
                token = token_of(document)
                told = await self._understood(document)
                if told is not None and token <= until:
                    yield told

    async def _run(self) -> None:
        apart()
        try:
            await self._follow_on()
        except asyncio.CancelledError:
            self._end(
                ClientClosedError(
                    "The feed of sessions ended: the MongoDB client was closed. Leave feeds while "
                    "their client is open."
                )
            )
            raise
        except Exception as error:
            self._end(error)

    def _end(self, error: Exception) -> None:
        # Whoever comes now gets a stream of their own.
        _forget(self)
        self._error = error
        if not self._ready.done():
            self._ready.set_result("")
        for listener in {each for found in self._listeners.values() for each in found}:
            listener.ended(error)

    async def _follow_on(self) -> None:
        """Follow over lost connections and elections."""
        attempts = Attempts()
        while True:
            began = monotonic()
            try:
                await self._follow()
            except PyMongoError as error:
                if isinstance(error, OperationFailure) and error.code in _LOST:
                    raise _lost("the server's log does not go back so far any more") from error
                if not is_resumable(error):
                    raise
                if monotonic() - began > STEADY_SECONDS:
                    attempts = Attempts()
                if not await attempts.pause():
                    raise

    async def _follow(self) -> None:
        if not self._position:
            self._from = self._position = token_at(await self._now())
        place = place_of(self._position)
        async with open_change_stream(self._summaries, PIPELINE, **place) as changes:
            if not self._ready.done():
                self._ready.set_result(self._position)
            while changes.alive:
                document = await changes.next()
                if document is None:
                    continue
                told = await self._understood(document)
                self._position = token_of(document)
                if told is not None:
                    self._keep(told)
                    for topic in (told.session.tenant, told.session):
                        for listener in tuple(self._listeners.get(topic, ())):
                            listener.told(told)
        raise _lost("the collection of sessions was dropped or renamed")

    def _keep(self, told: OwnedChange) -> None:
        if len(self._kept) == KEPT:
            self._from = self._kept[0].change.token
        self._kept.append(told)

    async def _now(self) -> Timestamp:
        session = await start_session(self._connection.client)
        async with session:
            await self._summaries.database.command("ping", session=session)
            assert session.operation_time is not None
            return session.operation_time

    async def _understood(self, document: Record) -> OwnedChange | None:
        if is_of_dates(document):
            return None
        found = document.get("documentKey", {}).get("_id")
        session = session_in(document) or self._sessions.get(found)
        if session is None:
            session = await self._session_of(found, document["clusterTime"])
            if session is None:
                return None
        told = OwnedChange.of(session, document)
        if told.change.kind == "deleted":
            # OwnedChange once, though the summary of a large one goes later.
            self._sessions.pop(found, None)
        else:
            self._sessions[found] = session
            self._sessions.move_to_end(found)
            if len(self._sessions) > _KEPT_NAMES:
                self._sessions.popitem(last=False)
        return told

    async def _session_of(self, found: ObjectId, changed: Timestamp) -> TranscriptKey | None:
        """Whose a summary is, or was just before a change took it."""
        # What was marked as deleted was told of then.
        query: Record = {"_id": found, **NOT_DELETED}
        document = await self._summaries.find_one(query, _NAMES)
        if document is None:
            # The server knows the past of the last minutes.
            with suppress(OperationFailure):
                before = Timestamp(changed.time, changed.inc - 1)
                document = await self._as_of(before, query)
        return None if document is None else session_in(document)

    async def _as_of(self, time: Timestamp, query: Record) -> Record | None:
        reply: dict[str, Any] = await self._summaries.database.command(
            {
                "find": self._summaries.name,
                "filter": query,
                "projection": _NAMES,
                "limit": 1,
                "singleBatch": True,
                "readConcern": {"level": "snapshot", "atClusterTime": time},
            }
        )
        return next(iter(reply["cursor"]["firstBatch"]), None)

    async def _close(self) -> None:
        if self._users:
            return
        _forget(self)
        task, self._task = self._task, None
        if task is not None:
            await cancel_and_wait(task)


def _lost(why: str) -> FeedLostError:
    return FeedLostError(
        f"The feed of sessions cannot go on: {why}, so changes may have been missed. Look at what "
        "is stored now (store.sessions()), and begin a new feed without after=."
    )


_hubs: dict[tuple[object, ...], Hub] = {}

if hasattr(os, "register_at_fork"):
    # What follows the server there does not run here.
    os.register_at_fork(after_in_child=_hubs.clear)


def hub_of(connection: Connection) -> Hub:
    """The hub of a database, for this client and event loop.

    Raises:
        StandaloneError: the server is no replica set.
    """
    if not connection.server.has_transactions:
        raise StandaloneError(
            "Cannot follow sessions as they change: the MongoDB server is no replica set, and only "
            "those tell of changes. Make it a replica set (of one member, if need be), or ask "
            "sessions() now and then."
        )
    name = _name_of(connection)
    if name not in _hubs:
        _hubs[name] = Hub(connection)
    return _hubs[name]


def _name_of(connection: Connection) -> tuple[object, ...]:
    # Clients of one server are equal, but one that is closed takes its stream along.
    loop = asyncio.get_running_loop()
    return id(connection.client), loop, connection.summaries.collection.full_name


def _forget(hub: Hub) -> None:
    for name in [name for name, each in _hubs.items() if each is hub]:
        del _hubs[name]
