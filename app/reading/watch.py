"""Following a transcript while it is written."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from time import monotonic

from pymongo.errors import OperationFailure, PyMongoError

from ..concurrency.cancellation import ended_with_caller
from ..database.attempts import STEADY_SECONDS, Attempts
from ..database.change_streams import open_change_stream
from ..database.driver import Record, start_session
from ..database.reads import is_resumable
from ..errors import StandaloneError
from ..instruments.followers import Follower
from ..storage.connection import Connection
from ..transcript_key import TranscriptKey
from .stream import Place, StreamedEntry, read_on

_HISTORY_LOST = 286

# A watcher that asks again at once takes back its connection before those who wait for one wake
# up: as many watchers as the pool has connections would stop everything else on the client.
_REST_SECONDS = 0.01


async def watch(
    connection: Connection, key: TranscriptKey, after: int, with_subagents: bool
) -> AsyncGenerator[StreamedEntry]:
    """The stored entries behind position ``after``, then every new one as it is committed."""
    if not connection.server.has_transactions:
        raise StandaloneError(
            f"Cannot watch {key}: the MongoDB server is no replica set, and only those tell of "
            "changes. Make it a replica set (of one member, if need be), or poll stream()."
        )
    # What an election takes back must not be seen, for its position is given away again.
    confirmed = replace(
        connection,
        entries=connection.entries.confirmed,
        summaries=connection.summaries.confirmed,
        chunks=connection.chunks.confirmed,
    )
    with Follower("watch") as follower:
        place = Place(key, after, with_subagents=with_subagents)
        entries = _watch(confirmed, place, follower)
        while True:
            entry = await ended_with_caller(anext(entries))
            try:
                yield entry
            except GeneratorExit:
                await entries.aclose()
                raise


async def _watch(
    confirmed: Connection, place: Place, follower: Follower
) -> AsyncGenerator[StreamedEntry]:
    """Follow a transcript over lost connections and elections."""
    attempts = Attempts()
    while True:
        began = monotonic()
        try:
            async with aclosing(_follow(confirmed, place, follower)) as entries:
                async for entry in entries:
                    yield entry
        except PyMongoError as error:
            lost = isinstance(error, OperationFailure) and error.code == _HISTORY_LOST
            if not (lost or is_resumable(error)):
                raise
            if monotonic() - began > STEADY_SECONDS:
                attempts = Attempts()
            if not await attempts.pause(error):
                raise


async def _follow(
    connection: Connection, place: Place, follower: Follower
) -> AsyncGenerator[StreamedEntry]:
    """Follow a session until it is made, or until its changes are no longer told."""
    session = await start_session(connection.client)
    async with session:
        # Tells the time on the server; whatever comes later is seen as a change.
        await connection.entries.collection.database.command("ping", session=session)
        start = session.operation_time
        follower.since = monotonic()
        async with aclosing(read_on(connection, place, session)) as entries:
            async for entry in entries:
                yield entry
        known = place.session
        # The driver's own, for Beanie has no change streams.
        changes = open_change_stream(
            connection.summaries.collection, _changes_of(place), start_at_operation_time=start
        )
        async with changes:
            # It ends when the collection is dropped.
            while changes.alive:
                follower.since = None
                change = await changes.next()
                follower.since = monotonic()
                if change is None:
                    follower.since = None
                    await asyncio.sleep(_REST_SECONDS)
                    continue
                if change["operationType"] == "delete":
                    raise place.changed()
                # Dates that are moved on, say, concern nobody here.
                is_update = change["operationType"] == "update"
                if is_update and change.get("next_seq", 0) <= place.position + 1:
                    continue
                # On whichever member, the next read sees at least what the change told of.
                session.advance_operation_time(change["clusterTime"])
                async with aclosing(read_on(connection, place, session)) as entries:
                    async for entry in entries:
                        yield entry
                if place.session != known:
                    break


def _changes_of(place: Place) -> list[Record]:
    # Every append changes the summary, in the transaction that stores the entries.
    created: Record = {"operationType": "insert"}
    for name, value in place.key.of_session.items():
        created[f"fullDocument.{name}"] = value
    mine: list[Record] = [created]
    if place.session is not None:
        mine.append({"documentKey._id": place.session})
    return [
        {"$match": {"$or": mine}},
        {
            "$project": {
                "operationType": 1,
                "clusterTime": 1,
                "next_seq": "$updateDescription.updatedFields.next_seq",
            }
        },
    ]


__all__ = ["watch"]
