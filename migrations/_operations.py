"""What migration scripts are written in: steps on collections and indexes, each idempotent.

A script names its collections; a team whose Document classes have other names runs the same
script on theirs. Beanie takes no file that starts with an underscore for a migration.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from beanie import Document
from bson.int64 import Int64
from pymongo.errors import CollectionInvalid, OperationFailure, PyMongoError

from ..app.database.driver import database_of

logger = logging.getLogger("beanie_session_store.migrations")

_NAMESPACE_NOT_FOUND = 26
_INDEX_NOT_FOUND = 27
_NAMESPACE_EXISTS = 48

_POLL_SECONDS = 1.0
_BATCH = 1000
_MINUTE = timedelta(minutes=1)


async def _always_ours() -> None:
    return None


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a runner of ours lends to the script that it runs; Beanie's own lends nothing."""

    database: Any
    renamed: Mapping[str, str]
    """The actual names of collections, by the names in the scripts."""
    announce: Callable[[str], None] = logger.info
    """Told of each step, and how far a long one has come."""
    checkpoint: Callable[[], Awaitable[None]] = _always_ours
    """Awaited before each step; it raises when the script must not go on."""


surroundings: ContextVar[Surroundings | None] = ContextVar("surroundings", default=None)


async def create_collection(anchor: type[Document], name: str) -> None:
    """Create a collection, compressed with zstd where the server takes that.

    Does nothing if it exists. ``anchor`` is a Document class that the script gave to its
    migration; it tells the database.
    """
    database = _database(anchor)
    name = _actual(name)
    if name in await database.list_collection_names():
        logger.info("%s exists and keeps its block compression.", name)
        return
    await _begin(f"creating collection {name}")
    zstd = {"wiredTiger": {"configString": "block_compressor=zstd"}}
    try:
        await database.create_collection(name, storageEngine=zstd)
    except CollectionInvalid:
        # Made by another process since we looked.
        return
    except OperationFailure as error:
        logger.info("The server takes no zstd for %s (%s).", name, error.details)
        try:
            await database.create_collection(name)
        except CollectionInvalid:
            return


async def create_index(
    anchor: type[Document],
    collection: str,
    keys: Sequence[tuple[str, int | str]],
    name: str,
    **options: Any,
) -> None:
    """Create an index; does nothing if it exists as described."""
    database = _database(anchor)
    collection = _actual(collection)
    doing = f"building index {name} on {collection}"
    await _begin(doing)
    async with _announced_progress(database, collection, doing):
        await database[collection].create_index(list(keys), name=name, **options)


async def drop_index(anchor: type[Document], collection: str, name: str) -> None:
    """Drop an index; does nothing if it does not exist."""
    database = _database(anchor)
    collection = _actual(collection)
    await _begin(f"dropping index {name} of {collection}")
    try:
        await database[collection].drop_index(name)
    except OperationFailure as error:
        if error.code not in (_NAMESPACE_NOT_FOUND, _INDEX_NOT_FOUND):
            raise


async def drop_collection_if_empty(anchor: type[Document], name: str) -> None:
    """Drop a collection that holds nothing; one that holds documents stays."""
    database = _database(anchor)
    name = _actual(name)
    await _begin(f"dropping collection {name} if it is empty")
    # Set aside first: a document written between a look and a drop would be dropped with it.
    aside = f"{name}_dropping"
    try:
        if await database[name].find_one({}, {"_id": 1}) is not None:
            logger.warning("%s holds documents and is kept.", name)
            return
        await database[name].rename(aside)
    except OperationFailure as error:
        # Not there; or set aside already, by a run that was cut off here.
        if error.code not in (_NAMESPACE_NOT_FOUND, _NAMESPACE_EXISTS):
            raise
    back = [{"$merge": {"into": name, "whenMatched": "keepExisting"}}]
    await database.command("aggregate", aside, pipeline=back, cursor={})
    await database.drop_collection(aside)


async def fill_rows(
    anchor: type[Document],
    collection: str,
    rows: str,
    wanted: Mapping[str, Any],
    values: Mapping[str, Any],
) -> None:
    """Set fields of those rows, in a list of each document, that are as wanted.

    It can be repeated, beside whoever writes: it looks at each document by itself.
    """
    documents = _database(anchor)[_actual(collection)]
    await _begin(f"filling {rows} of {documents.name}")
    await documents.update_many(
        {rows: {"$elemMatch": dict(wanted)}},
        {"$set": {f"{rows}.$[row].{name}": value for name, value in values.items()}},
        array_filters=[{f"row.{name}": value for name, value in wanted.items()}],
    )


async def date_entries_later(anchor: type[Document], summaries: str, owned: Sequence[str]) -> None:
    """Date what belongs to each session with a date so late that one move of it is outlived.

    The summary then says so, unless a writer changed it meanwhile; such a session is left to the
    write path. Entries get later dates only, so it is safe beside whoever writes.
    """
    database = _database(anchor)
    rows = database[_actual(summaries)]
    collections = [database[_actual(name)] for name in owned]
    left = {"expires_at": {"$type": "date"}, "backstop": {"$exists": False}}
    behind: dict[str, Any] = {}
    done = 0
    await _begin(f"dating the entries of sessions in {rows.name} later")
    while True:
        page = await rows.find({**left, **behind}, sort=[("_id", 1)], limit=100).to_list(None)
        if not page:
            return
        behind = {"_id": {"$gt": page[-1]["_id"]}}
        for row in page:
            await _date_later(rows, collections, row)
        done += len(page)
        await _begin(f"dating entries later: {done:,} sessions")


async def _date_later(rows: Any, collections: Sequence[Any], row: Mapping[str, Any]) -> None:
    owner = {name: row[name] for name in ("tenant", "project_key", "session_id")}
    expires_at = row["expires_at"]
    # A session is dated 1.1 of its periods behind its last activity.
    until = expires_at + max(expires_at - (row.get("active_at") or row["created_at"]), _MINUTE)
    for first in range(0, row["next_seq"], _BATCH):
        part = {
            **owner,
            "seq": {"$gte": first, "$lt": first + _BATCH},
            "expires_at": {"$lt": until},
        }
        for collection in collections:
            await collection.update_many(part, {"$set": {"expires_at": until}})
    same = {name: row.get(name) for name in ("_id", "next_seq", "expires_at", "held_at")}
    backstop = {"until": until, "next_seq": Int64(row["next_seq"])}
    await rows.update_one(
        {**owner, **same, "backstop": {"$exists": False}}, {"$set": {"backstop": backstop}}
    )


def _database(anchor: type[Document]) -> Any:
    lent = surroundings.get()
    if lent is not None:
        return lent.database
    return database_of(anchor)


def _actual(name: str) -> str:
    lent = surroundings.get()
    return name if lent is None else lent.renamed.get(name, name)


async def _begin(doing: str) -> None:
    lent = surroundings.get()
    if lent is not None:
        await lent.checkpoint()
        lent.announce(doing)


@contextlib.asynccontextmanager
async def _announced_progress(database: Any, collection: str, doing: str) -> AsyncGenerator[None]:
    lent = surroundings.get()
    if lent is None:
        yield
        return
    watching = asyncio.create_task(_announce_progress(lent.announce, database, collection, doing))
    try:
        yield
    finally:
        watching.cancel()
        await asyncio.wait([watching])


async def _announce_progress(
    announce: Callable[[str], None], database: Any, collection: str, doing: str
) -> None:
    """Look at the server's own account of a build, until it is refused or cancelled."""
    mine = {"ns": f"{database.name}.{collection}", "progress.total": {"$gt": 0}}
    # The build runs in a thread of the server's own: nobody's operation, on an idle connection.
    everything = {"allUsers": True, "idleConnections": True}
    look = [{"$currentOp": everything}, {"$match": mine}, {"$limit": 1}]
    said = ""
    with contextlib.suppress(PyMongoError):
        while True:
            await asyncio.sleep(_POLL_SECONDS)
            found = await database.client.admin.command("aggregate", 1, pipeline=look, cursor={})
            for operation in found["cursor"]["firstBatch"]:
                progress = operation["progress"]
                done, total = progress["done"], progress["total"]
                message = f"{doing}: {done:,} of {total:,} ({100 * done // total}%)"
                if message != said:
                    announce(message)
                said = message
