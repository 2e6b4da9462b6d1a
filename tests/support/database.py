"""A database that is migrated, with Beanie initialised on it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from beanie import init_beanie

from beanie_session_store import DOCUMENT_MODELS, upgrade_schema
from beanie_session_store.app.driver import Database, close_client, open_client


async def prepared(database: Database) -> Database:
    await upgrade_schema(database)
    await init_beanie(database=database, document_models=DOCUMENT_MODELS)
    return database


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
