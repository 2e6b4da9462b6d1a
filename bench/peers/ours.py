"""The store itself, through its public methods.

Per append to a session that this process wrote last: ``update``, ``insert``,
``commitTransaction``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from claude_agent_sdk import SessionKey
from pymongo.monitoring import CommandListener

from beanie_session_store import DOCUMENT_MODELS, BeanieSessionStore, upgrade_schema
from beanie_session_store.app.database.driver import bind_models, close_client, open_client

from ..entries import Entry
from .contender import POOL_SIZE, Contender, clone_documents


class Ours(Contender):
    name = "ours"

    def __init__(self, client: Any, database: str) -> None:
        self.client = client
        self.database = client[database]
        self.store = BeanieSessionStore()

    @classmethod
    async def open(
        cls,
        url: str,
        prefix: str,
        listeners: Sequence[CommandListener] = (),
        pool_size: int = POOL_SIZE,
    ) -> Ours:
        """The store on a migrated database."""
        client = open_client(
            url, w="majority", maxPoolSize=pool_size, event_listeners=list(listeners)
        )
        contender = cls(client, f"{prefix}_{cls.name}")
        await upgrade_schema(contender.database)
        await bind_models(contender.database, DOCUMENT_MODELS)
        return contender

    async def append(self, key: SessionKey, entries: list[Entry]) -> None:
        await self.store.append(key, entries)

    async def load(self, key: SessionKey) -> list[Entry]:
        return await self.store.load(key) or []

    async def list_sessions(self, project_key: str) -> list[Any]:
        return await self.store.list_sessions(project_key)

    async def list_session_summaries(self, project_key: str) -> list[Any]:
        return await self.store.list_session_summaries(project_key)

    async def clone(self, key: SessionKey, names: list[str]) -> None:
        await clone_documents(self.database, key, names)

    async def close(self) -> None:
        await self.client.drop_database(self.database.name)
        await close_client(self.client)
