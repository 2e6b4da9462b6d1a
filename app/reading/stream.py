"""Transcripts read back one entry at a time."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from bson import ObjectId
from pymongo.errors import PyMongoError

from ..database.attempts import Attempts
from ..database.driver import ClientSession
from ..database.elections import confirmed_primary
from ..database.reads import is_resumable
from ..database.transactions import snapshot
from ..errors import SessionChangedError
from ..storage.connection import Connection
from ..storage.living import Live, live_of
from ..storage.values import CONTENT, content_of
from ..transcript_key import TranscriptKey


class StreamedEntry(dict[str, Any]):
    """A transcript entry, equal to the plain dict, that knows its position."""

    __slots__ = ("seq", "subpath")

    seq: int
    """Position within the session, from 1; pass it as ``after`` to go on behind this entry."""
    subpath: str
    """The transcript that it is of: ``""`` for the main one."""


async def stream(
    connection: Connection, key: TranscriptKey, after: int, with_subagents: bool
) -> AsyncGenerator[StreamedEntry]:
    """The entries behind position ``after``, one at a time and in order."""
    attempts = Attempts()
    place = Place(key, after, with_subagents=with_subagents)
    while True:
        try:
            async with (
                confirmed_primary(connection.client),
                snapshot(connection.client, connection.server) as session,
                contextlib.aclosing(read_on(connection, place, session)) as entries,
            ):
                async for entry in entries:
                    yield entry
                    attempts = Attempts()
            return
        except PyMongoError as error:
            # A slow consumer outlives cursors and snapshots; the next one goes on from here.
            if not is_resumable(error) or not await attempts.pause(error):
                raise


@dataclass(slots=True)
class Place:
    """How far a reader of a transcript has come."""

    key: TranscriptKey
    position: int
    session: ObjectId | None = None
    """The ``_id`` of the session's summary; a session that is made anew has another."""
    with_subagents: bool = False
    """Whether all transcripts of the session are read together, in the order of writing."""

    def query(self, live: Live) -> dict[str, Any]:
        """What is behind it."""
        key = self.key
        if self.with_subagents:
            behind = max(self.position, live.first_seq - 1)
            return {**key.of_session, **live.in_session(), "seq": {"$gt": behind}}
        behind = max(self.position, live.first_of(key.subpath) - 1)
        return {**key.of_transcript, "seq": {"$gt": behind}}

    def changed(self) -> SessionChangedError:
        """The error for a session that is no longer the one that was read."""
        return SessionChangedError(
            f"Stopped reading {self.key} behind position {self.position}: it expired, was "
            "deleted, or was deleted and made anew in the meantime. What came so far "
            "is from the old session; start again to read what is there now."
        )


async def read_on(
    connection: Connection, place: Place, session: ClientSession | None
) -> AsyncGenerator[StreamedEntry]:
    """The entries behind a place, which moves with them.

    Raises:
        SessionChangedError: the place is in a session that is gone.
    """
    key = place.key
    live = await live_of(connection, key, session)
    found = None if live is None else live.id
    place.session = place.session or found
    if found != place.session:
        raise place.changed()
    if live is None:
        return
    # The order of one transcript is that of an index, and takes no room to sort.
    several = {"allow_disk_use": True} if place.with_subagents else {}
    # The driver's own cursor: a model of each entry would take as long as reading it.
    async for document in connection.entries.collection.find(
        place.query(live), {**CONTENT, "subpath": 1}, sort=[("seq", 1)], session=session, **several
    ):
        subpath: str = document["subpath"]
        transcript = key if subpath == key.subpath else key.with_subpath(subpath)
        streamed = StreamedEntry(await content_of(connection, transcript, document, session))
        streamed.seq = place.position = document["seq"]
        streamed.subpath = subpath
        yield streamed
