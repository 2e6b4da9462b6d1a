"""What is asked of the store and of each peer."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from claude_agent_sdk import SessionKey
from pymongo import AsyncMongoClient
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.monitoring import CommandListener

from ..entries import Entry

POOL_SIZE = 100

_CLONES = 1000


class Contender(ABC):
    """One way to store sessions, on one open connection pool."""

    name: ClassVar[str]

    @abstractmethod
    async def append(self, key: SessionKey, entries: list[Entry]) -> None:
        """Store a batch behind what the session has."""

    @abstractmethod
    async def load(self, key: SessionKey) -> list[Entry]:
        """All entries of the session's main transcript in order."""

    async def list_sessions(self, project_key: str) -> list[Any]:
        """Id and time of each session of the project."""
        raise NotImplementedError

    async def list_session_summaries(self, project_key: str) -> list[Any]:
        """The SDK's fold of each session of the project."""
        raise NotImplementedError

    @abstractmethod
    async def clone(self, key: SessionKey, names: list[str]) -> None:
        """Store what a session holds under other session ids too, by the quickest way."""

    @abstractmethod
    async def close(self) -> None:
        """Remove what was stored, and close the connections."""


class MongoContender(Contender):
    """A contender on bare PyMongo, with a database of its own."""

    def __init__(self, client: AsyncMongoClient[dict[str, Any]], database: str) -> None:
        self.client = client
        self.database: AsyncDatabase[dict[str, Any]] = client[database]

    @classmethod
    async def open(
        cls,
        url: str,
        prefix: str,
        listeners: Sequence[CommandListener] = (),
        pool_size: int = POOL_SIZE,
    ) -> MongoContender:
        """A contender that is ready to append."""
        contender = cls(
            AsyncMongoClient(
                url, w="majority", maxPoolSize=pool_size, event_listeners=list(listeners)
            ),
            f"{prefix}_{cls.name}",
        )
        await contender.prepare()
        return contender

    @abstractmethod
    async def prepare(self) -> None:
        """Make the collections and indexes."""

    async def clone(self, key: SessionKey, names: list[str]) -> None:
        await clone_documents(self.database, key, names)

    async def close(self) -> None:
        await self.client.drop_database(self.database.name)
        await self.client.close()


async def clone_documents(database: Any, key: SessionKey, names: list[str]) -> None:
    """Copy all documents of a session to other session ids, on the server."""
    for name in await database.list_collection_names():
        collection = database[name]
        if await collection.find_one(dict(key)) is None:
            continue
        for at in range(0, len(names), _CLONES):
            pipeline: list[dict[str, Any]] = [
                {"$match": dict(key)},
                {"$set": {"session_id": names[at : at + _CLONES]}},
                {"$unwind": "$session_id"},
                {"$unset": "_id"},
                {"$merge": {"into": name, "whenMatched": "fail"}},
            ]
            cursor = collection.aggregate(pipeline)
            # A coroutine in PyMongo, a cursor in Motor.
            if inspect.isawaitable(cursor):
                cursor = await cursor
            await cursor.to_list(None)
