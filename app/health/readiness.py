"""Whether a store can append and read here and now, with its promises: cheap, and soon answered."""

from __future__ import annotations

from dataclasses import dataclass

from beanie.operators import Set
from bson import ObjectId

from ..errors import ServerError
from ..storage.connection import Connection


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether a store can be used, and if not, why."""

    is_ready: bool
    reason: str | None = None
    """What is wrong and what to do, where it is not ready."""


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
