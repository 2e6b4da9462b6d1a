"""Sweeping what is left of sessions that are gone, in batches that do not grow."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from time import monotonic
from typing import Any

from bson.int64 import Int64

from .attempts import Attempts
from .connection import Connection
from .driver import ClientSession, TransientFailureError, transact
from .expiry import DELETED
from .key import TranscriptKey
from .reader import retried

_BATCH = 100

# The rest of the time is for others.
_SHARE = 0.25

_FIELDS = dict.fromkeys(("next_seq", "first_seq", "removed", "remains", "expires_at"), 1)


async def next_free_position(connection: Connection, key: TranscriptKey) -> int:
    """Where a session without a summary begins: behind all that is left of earlier ones."""

    async def attempt() -> int:
        entries = connection.entries
        owner = key.session_filter()
        if await entries.find_one(owner, {"_id": 1}) is None:
            return 1
        last = 0
        for subpath in await entries.distinct("subpath", owner):
            found = await entries.find_one(
                {**owner, "subpath": subpath}, {"_id": 0, "seq": 1}, sort=[("seq", -1)]
            )
            last = max(last, found["seq"] if found else 0)
        return last + 1

    return await retried(connection.client, attempt)


async def sweep(connection: Connection, key: TranscriptKey) -> None:
    """Delete what is left of earlier sessions of this key, and of its deleted subagents.

    It is known by its positions, which are never given away again; so any number of sweepers may
    work at once, beside appends to the session that lives.
    """
    while True:
        row = await connection.summaries.find_one(key.session_filter(), _FIELDS)
        if row is None:
            return
        if row.get("expires_at") == DELETED:
            await _sweep(connection, key.session_filter(), row["next_seq"])
            await _sweep_chunks(connection, key.session_filter(), row["next_seq"])
            gone = {**key.session_filter(), "_id": row["_id"], "expires_at": DELETED}
            if (await connection.summaries.delete_one(gone)).deleted_count:
                return
        elif row.get("remains"):
            first_seq = row.get("first_seq", 1)
            await _sweep(connection, key.session_filter(), first_seq)
            await _sweep_chunks(connection, key.session_filter(), first_seq)
            this = {**key.session_filter(), "_id": row["_id"]}
            await connection.summaries.update_one(this, {"$unset": {"remains": ""}})
        elif row.get("removed"):
            await _sweep_removed(connection, key, row)
        else:
            return


async def sweep_unowned(connection: Connection, key: TranscriptKey) -> bool:
    """Delete what is left of a session whose summary MongoDB took, and return whether there was.

    MongoDB takes the rest too, but later.
    """
    before = await next_free_position(connection, key)
    # In this order: what is begun from now on begins behind that.
    owner = key.session_filter()
    if before == 1 or await connection.summaries.find_one(owner, {"_id": 1}) is not None:
        return False
    await _sweep(connection, owner, before)
    await _sweep_chunks(connection, owner, before)
    return True


async def _sweep_removed(
    connection: Connection, key: TranscriptKey, row: Mapping[str, Any]
) -> None:
    for each in row["removed"]:
        owner = key.with_subpath(each["subpath"]).transcript_filter()
        await _sweep(connection, owner, each["before"])
        await _sweep_chunks(connection, owner, each["before"])
        # What it was is told by no other field of the summary.
        this = {**key.session_filter(), "_id": row["_id"]}
        await connection.summaries.update_one(this, {"$pull": {"removed": each}})


async def _sweep(connection: Connection, owner: dict[str, Any], before: int) -> None:
    """Delete entries with their chunks, in the order of the index."""
    query = {**owner, "seq": {"$lt": Int64(before)}}
    order = [("subpath", 1), ("seq", 1)]
    fields = {"_id": 0, "subpath": 1, "seq": 1, "chunks": 1}
    while True:
        began = monotonic()
        found = await connection.entries.find(query, fields, sort=order, limit=_BATCH).to_list(
            _BATCH
        )
        if not found:
            return
        bounds: dict[str, int] = {}
        chunked: set[str] = set()
        for each in found:
            bounds[each["subpath"]] = each["seq"]
            if "chunks" in each:
                chunked.add(each["subpath"])
        for subpath in chunked:
            parts = {**owner, "subpath": subpath, "seq": {"$lte": bounds[subpath]}}
            await connection.chunks.delete_many({**parts, "collection": connection.entries.name})

        async def work(session: ClientSession | None, bounds: dict[str, int] = bounds) -> None:
            for subpath, last in bounds.items():
                batch = {**owner, "subpath": subpath, "seq": {"$lte": last}}
                await connection.entries.delete_many(batch, session=session)

        # One commit is less work for the server than as many as there are entries. Where MongoDB
        # itself is at them, the next round finds what it left.
        with contextlib.suppress(TransientFailureError):
            await transact(connection.client, connection.server, work, Attempts())
        await asyncio.sleep((monotonic() - began) * (1 / _SHARE - 1))


async def _sweep_chunks(connection: Connection, owner: dict[str, Any], before: int) -> None:
    """Delete the chunks of entries that went with their summary."""
    parts = {**owner, "collection": connection.entries.name, "seq": {"$lt": Int64(before)}}
    while True:
        began = monotonic()
        found = await connection.chunks.find(parts, {"_id": 1}, limit=_BATCH).to_list(_BATCH)
        if not found:
            return
        ids = [each["_id"] for each in found]
        await connection.chunks.delete_many({**owner, "_id": {"$in": ids}})
        await asyncio.sleep((monotonic() - began) * (1 / _SHARE - 1))
