"""Commands that are sent by hand, where the driver's own methods do more than is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import bson
from bson.codec_options import CodecOptions
from bson.int64 import Int64
from bson.raw_bson import RawBSONDocument
from bson.timestamp import Timestamp
from pymongo import ReadPreference
from pymongo.errors import BulkWriteError

from ...models.plain import JSON_CODEC
from .driver import ClientSession, Collection, Record
from .server import Server

# The server answers with what fits 16 MiB, whatever is asked for.
_ALL_AT_ONCE = 2**31 - 1

_RAW = CodecOptions(document_class=RawBSONDocument)


async def find_all(
    collection: Collection,
    server: Server,
    query: Record,
    projection: Mapping[str, int],
    order: str,
) -> tuple[list[Record], Timestamp | None]:
    """The documents that match ``query``, by the rising values of ``order``, and their moment.

    The moment is ``None`` on a standalone server, which has none. ``order`` must be in the
    projection. A cursor with the same codec would make an object of Python's for each document
    first, which takes half as long as decoding it.
    """
    found: list[Record] = []
    moment: Timestamp | None = None
    command: Record = {
        "find": collection.name,
        "filter": query,
        "projection": projection,
        "sort": {order: 1},
        "batchSize": _ALL_AT_ONCE,
    }
    if server.has_transactions:
        command["readConcern"] = {"level": "snapshot"}
    while True:
        cursor = await _first_batch(collection, command)
        batch: list[Record] = cursor["firstBatch"]
        found += batch
        moment = cursor.get("atClusterTime")
        if not cursor["id"]:
            return found, moment
        # The rest by a query of its own: through several routers, a command of ours need not
        # come to the one that has the cursor.
        await collection.database.command(
            {"killCursors": collection.name, "cursors": [Int64(cursor["id"])]}
        )
        if server.has_transactions:
            command["readConcern"] = {"level": "snapshot", "atClusterTime": moment}
        command["filter"] = {**query, order: {**query.get(order, {}), "$gt": batch[-1][order]}}


async def find_at(
    collection: Collection, query: Record, projection: Mapping[str, int], moment: Timestamp | None
) -> Record | None:
    """A document as it was at a moment that was read at before."""
    command: Record = {
        "find": collection.name,
        "filter": query,
        "projection": projection,
        "limit": 1,
        "singleBatch": True,
    }
    if moment is not None:
        command["readConcern"] = {"level": "snapshot", "atClusterTime": moment}
    batch: list[Record] = (await _first_batch(collection, command))["firstBatch"]
    return batch[0] if batch else None


async def _first_batch(collection: Collection, command: Record) -> Record:
    """The cursor that a command opens, with what comes at once."""
    answer: Any = await collection.database.command(
        dict(command), read_preference=ReadPreference.PRIMARY, codec_options=_RAW
    )
    reply: Record = bson.decode(answer.raw, JSON_CODEC)  # pyright: ignore[reportUnknownMemberType]
    return reply["cursor"]


# What one command takes for sure; the driver cuts what is larger.
ONE_COMMAND_BYTES = 8 * 1024 * 1024


async def insert_encoded(
    collection: Collection, documents: Sequence[bytes], session: ClientSession | None
) -> None:
    """Insert BSON documents; where that is safe, with less work than ``insert_many`` does.

    Raises:
        BulkWriteError: as ``insert_many`` raises it.
    """
    raw = [RawBSONDocument(document) for document in documents]
    if session is None or sum(map(len, documents)) > ONE_COMMAND_BYTES:
        await collection.insert_many(raw, session=session)
    else:
        await _write(collection, {"insert": collection.name, "documents": raw}, session)


async def update_one(
    collection: Collection, query: Record, update: Record, session: ClientSession | None
) -> bool:
    """Update a document, with less work than the driver's own, and return whether one matched.

    Raises:
        BulkWriteError, WriteError: the server refused it.
    """
    if session is None:
        return bool((await collection.update_one(query, update)).matched_count)
    return bool(await update_each(collection, [(query, update)], session))


async def update_each(
    collection: Collection, updates: Sequence[tuple[Record, Record]], session: ClientSession
) -> int:
    """Update a document for each query in one command, and return how many matched.

    Raises:
        BulkWriteError: the server refused one.
    """
    statements = [{"q": query, "u": update} for query, update in updates]
    answer = await _write(collection, {"update": collection.name, "updates": statements}, session)
    matched: int = answer["n"]
    return matched


async def _write(collection: Collection, command: Record, session: ClientSession) -> Record:
    """Run a write in a transaction, where the driver neither retries it nor adds to it."""
    answer = await collection.database.command(
        command,
        # Else it would be that of the client.
        read_preference=ReadPreference.PRIMARY,
        session=session,
    )
    if "writeErrors" in answer:
        raise BulkWriteError(answer)
    return answer
