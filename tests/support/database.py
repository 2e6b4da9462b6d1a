"""Databases that are migrated, with Beanie initialised on them."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from beanie import init_beanie
from pymongo import MongoClient
from pymongo.errors import PyMongoError

from beanie_session_store import DOCUMENT_MODELS, upgrade_schema
from beanie_session_store.app.database import server
from beanie_session_store.app.database.driver import Database, close_client, open_client
from beanie_session_store.app.storage import connection
from beanie_session_store.app.storage.expiry import retention_cache_of

Upgrade = Callable[[Database], Coroutine[Any, Any, Any]]
"""What makes a new database one of its kind."""

_LOG = "claude_transcript_migrations"
_OURS = "tests-between"
_MANY = 8
# The server looks through what was deleted until it clears it away: a new database costs less.
_MANY_DELETED = 2000
_LOOKS = 10


async def prepared(database: Database) -> Database:
    """Migrate a database, and initialise Beanie on it."""
    await upgrade_schema(database)
    return await bound(database)


async def bound(database: Database) -> Database:
    """Initialise Beanie on a database that is migrated, and has its indexes from that."""
    forget_servers()
    retention_cache_of(database.client).clear()
    await init_beanie(database=database, document_models=DOCUMENT_MODELS, skip_indexes=True)
    return database


def forget_servers() -> None:
    """What is known of servers, and of databases by their names, whichever client found it.

    Clients of one server are equal, so an earlier one may have known a database as it is no more.
    """
    connection._checked.clear()
    connection._pairs.clear()
    server._servers.clear()


@contextmanager
def own_loop(
    url: str, name: str
) -> Iterator[Callable[[Callable[[], Coroutine[Any, Any, None]]], None]]:
    """One event loop and one client for all examples of a property."""
    loop = asyncio.new_event_loop()
    client = open_client(url)
    try:
        loop.run_until_complete(prepared(client[name]))
        yield lambda work: loop.run_until_complete(work())
    finally:
        loop.run_until_complete(close_client(client))
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


@dataclass(frozen=True)
class _Used:
    """A database that a test has done with, and what it was before."""

    name: str
    migrated: dict[str, Any]
    connections: frozenset[int]
    """Those that the test opened and left open: who has one may still have something on its way."""


class Databases:
    """Databases of one server, each for one test at a time.

    To migrate one takes longer than most tests do, so one that a test leaves with its collections
    and indexes as they were is emptied and used again.
    """

    def __init__(self, url: str, new_name: Callable[[], str]) -> None:
        self._url = url
        self._new_name = new_name
        self._client = MongoClient[dict[str, Any]](url, appname=_OURS)
        self._used: defaultdict[Upgrade, deque[_Used]] = defaultdict(deque)
        self._kept: list[str] = []

    @contextmanager
    def bare(self) -> Iterator[str]:
        """A database that is not there yet, dropped at exit."""
        name = self._new_name()
        yield name
        self._drop(name)

    @contextmanager
    def migrated(self, upgrade: Upgrade = upgrade_schema) -> Iterator[str]:
        """A database that is migrated and empty."""
        open_before = self._connections()
        used = self._used[upgrade]
        name, migrated = self._left_clean(used, open_before) or self._new(upgrade)
        yield name
        used.append(_Used(name, migrated, self._connections() - open_before))

    def close(self) -> None:
        """Drop all that is there."""
        kept, self._kept = self._kept, []
        for name in [*(used.name for kind in self._used.values() for used in kind), *kept]:
            self._drop(name)
        self._client.close()

    def _drop(self, name: str) -> None:
        try:
            self._client[name].command("dropDatabase", maxTimeMS=1000)
        except PyMongoError:
            # A transaction that its writer left open holds it, for a minute at most.
            self._kept.append(name)

    def _new(self, upgrade: Upgrade) -> tuple[str, dict[str, Any]]:
        async def migrate() -> None:
            client = open_client(self._url)
            await upgrade(client[name])
            await close_client(client)

        name = self._new_name()
        loop = asyncio.new_event_loop()
        try:
            loop.run_until_complete(migrate())
            loop.run_until_complete(loop.shutdown_default_executor())
        finally:
            loop.close()
        return name, self._description(name)

    def _left_clean(
        self, used: deque[_Used], open_now: frozenset[int]
    ) -> tuple[str, dict[str, Any]] | None:
        """One of those that were used, emptied."""
        for _ in range(_LOOKS):
            for each in [each for each in used if open_now.isdisjoint(each.connections)]:
                used.remove(each)
                if self._emptied(each):
                    return each.name, each.migrated
                self._drop(each.name)
            if not used:
                return None
            # The server is about to notice that nobody is connected any more.
            time.sleep(0.01)
            open_now = self._connections()
        if len(used) > _MANY:
            # Where others use the server too, they may stay connected for long.
            self._drop(used.popleft().name)
        return None

    def _emptied(self, used: _Used) -> bool:
        database = self._client[used.name]
        if self._description(used.name) != used.migrated:
            return False
        try:
            deleted = [
                database.command("delete", name, deletes=[{"q": {}, "limit": 0}], maxTimeMS=1000)
                for name in used.migrated
                if name != _LOG
            ]
        except PyMongoError:
            # A transaction that its writer left open holds a document.
            return False
        return sum(each["n"] for each in deleted) < _MANY_DELETED

    def _description(self, name: str) -> dict[str, Any]:
        def all_of(command: str, value: Any = 1) -> list[dict[str, Any]]:
            # The server's own answer, which is looked at for nearly every test.
            return self._client[name].command(command, value)["cursor"]["firstBatch"]

        return {
            each["name"]: (
                each["options"],
                all_of("listIndexes", each["name"]),
                all_of("find", _LOG) if each["name"] == _LOG else None,
            )
            for each in all_of("listCollections")
            if each["type"] == "collection"
        }

    def _connections(self) -> frozenset[int]:
        """Whose are open, but for ours."""
        everyone = {"allUsers": True, "idleConnections": True, "idleSessions": False}
        theirs = {
            "client": {"$exists": True},
            "appName": {"$ne": _OURS},
            # It only asks how the server is, and is noticed to be gone with the next answer.
            "command.hello": {"$exists": False},
        }
        found = self._client.admin.aggregate(
            [
                {"$currentOp": everyone},
                {"$match": theirs},
                {"$project": {"connectionId": 1}},
            ]
        )
        return frozenset(each["connectionId"] for each in found)
