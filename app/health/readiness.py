"""Whether a store can append and read here and now, with its promises: cheap, and soon answered."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

import pymongo
from beanie.operators import Set
from bson import ObjectId

from ..errors import ServerError, SessionStoreError
from ..storage.connection import Connection

# What the driver says of its own deadline says more.
_GRACE_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether a store can be used, and if not, why."""

    is_ready: bool
    reason: str | None = None
    """What is wrong and what to do, where it is not ready."""


async def readiness_by(look: Coroutine[Any, Any, None], timeout: float) -> Readiness:
    """What a look at a store says within ``timeout`` seconds; it raises what is wrong."""
    looking = asyncio.ensure_future(_within(look, timeout))
    # Nobody may be left to hear what comes of it.
    looking.add_done_callback(lambda done: done.cancelled() or done.exception())
    try:
        # The driver's own deadline ends no wait for others in this process.
        await asyncio.wait([looking], timeout=timeout + _GRACE_SECONDS)
    finally:
        is_answered = looking.done()
        looking.cancel()
    if not is_answered:
        return Readiness(
            False,
            f"Could not write and read within {timeout:g} s: no server answered, or what came "
            "first in this process still waits for one; nothing was changed. Check that it runs "
            "and can be reached, and ask again.",
        )
    try:
        looking.result()
    except SessionStoreError as error:
        return Readiness(False, str(error))
    return Readiness(True)


async def _within(look: Coroutine[Any, Any, None], timeout: float) -> None:
    with pymongo.timeout(timeout):
        await look


async def require_ready(connection: Connection) -> None:
    """Write and read nothing, as an append and a load would write and read something.

    Raises:
        ServerError: the server has no transactions, so no batch is surely stored whole.
        PyMongoError: no primary takes writes, no majority confirms them, or the user may not.
    """
    if not connection.server.has_transactions:
        raise ServerError(
            "The server has no transactions, for it is no replica set: an append that is cut off "
            "may be stored in part. Make it a replica set, of one member if need be."
        )
    # A write that finds nothing is answered once a majority has all that was written before it.
    nobody = {"tenant": "", "project_key": "", "session_id": "", "_id": ObjectId()}
    await connection.summaries.find_one(nobody).update(Set({"mtime": 0}))
    await connection.entries.confirmed.find_one(nobody).exists()
