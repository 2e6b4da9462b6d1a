"""Writing adopted entries: the store's write path, with the source's times and a record.

The record of how far a session was read is written in the transaction that stores the entries.
So a run that was killed goes on exactly where it stopped, entries without uuid included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from bson import ObjectId
from bson.int64 import Int64
from pymongo.errors import DuplicateKeyError

from .adoption_reader import SourceEntry
from .attempts import Attempts
from .codec import EncodedEntry, EncodedValue, distinct
from .collection_kinds import require_fit_collections
from .connection import Connection
from .driver import ClientSession, Collection, TransientFailureError, transact
from .key import TranscriptKey
from .writer import Writer

RECORDS = "claude_transcript_adoptions"
"""How far each session was adopted. It outlives the session: a deleted one stays deleted."""

_MAX_BROKEN = 1000


class OvertakenError(Exception):
    """Another run, or the application, wrote to the session in the meantime."""


@dataclass(frozen=True, slots=True)
class Record:
    """How far a session of a source was adopted."""

    session: ObjectId | None = None
    """``_id`` of the summary that it was adopted into."""
    version: int = 0
    """Rises with every change; 0 was never stored."""
    read: int = 0
    """Documents of the source that were dealt with."""
    positions: dict[str, Any] = field(default_factory=dict[str, Any])
    """Per subpath, the order value of the last document dealt with."""
    broken: tuple[Any, ...] = ()
    """``_id`` of documents that could not be adopted and are looked at again."""

    def after(self, batch: Sequence[SourceEntry]) -> Record:
        """The record once ``batch`` is dealt with."""
        positions = dict(self.positions)
        for entry in batch:
            if entry.subpath is not None:
                positions[entry.subpath] = entry.order
        known = [entry.id for entry in batch if entry.id in self.broken]
        whole = [entry.id for entry in batch if entry.encoded is not None]
        broken = [e.id for e in batch if e.encoded is None and e.id not in known]
        return replace(
            self,
            read=self.read + len(batch) - len(known),
            positions=positions,
            broken=(*(each for each in self.broken if each not in whole), *broken)[:_MAX_BROKEN],
        )


class Records:
    """The records of one source, in the database that adopts from it."""

    def __init__(self, collection: Collection, source: str) -> None:
        self._collection = collection
        self._source = source

    async def prepare(self) -> None:
        """Create the collection's index, on which exclusion among runs rests."""
        await require_fit_collections(self._collection.database, [self._collection.name])
        fields = ("tenant", "project_key", "session_id", "source")
        await self._collection.create_index(
            [(name, 1) for name in fields], name="adoption", unique=True
        )

    async def find(self, key: TranscriptKey) -> Record | None:
        """The record of a session, ``None`` before its adoption began."""
        row = await self._collection.find_one(self._owner(key))
        if row is None:
            return None
        return Record(
            session=row["session"],
            version=row["version"],
            read=row["read"],
            positions={each["subpath"]: each["order"] for each in row["positions"]},
            broken=tuple(row["broken"]),
        )

    async def put(self, key: TranscriptKey, record: Record, session: ClientSession | None) -> None:
        """Store a record in place of the one it was made from.

        Raises:
            OvertakenError: another run stored one in the meantime.
        """
        row = {
            "session": record.session,
            "version": record.version + 1,
            "read": Int64(record.read),
            "positions": [
                {"subpath": subpath, "order": order} for subpath, order in record.positions.items()
            ],
            "broken": list(record.broken),
        }
        if record.version:
            query = {**self._owner(key), "version": record.version}
            result = await self._collection.update_one(query, {"$set": row}, session=session)
            if not result.matched_count:
                raise OvertakenError
            return
        try:
            await self._collection.insert_one({**self._owner(key), **row}, session=session)
        except DuplicateKeyError:
            raise OvertakenError from None

    def _owner(self, key: TranscriptKey) -> dict[str, Any]:
        return {**key.session_filter(), "source": self._source}


class AdoptingWriter(Writer):
    """Appends batches of one session with the times they have in the source, and the record."""

    # Two runs may adopt the same session at once.
    others_repeat_too = True

    def __init__(
        self, metadata: EncodedValue | None, records: Records, record: Record, mtime: int | None
    ) -> None:
        super().__init__(metadata)
        self.record = record
        """The record as stored."""
        self.stored = 0
        """Entries stored so far."""
        self._records = records
        self._source_mtime = mtime
        self._next: Record | None = None
        self._created_at: dict[int, datetime | None] = {}
        self._put: Record | None = None
        self._put_entries = 0

    async def adopt(
        self,
        connection: Connection,
        key: TranscriptKey,
        batch: Sequence[SourceEntry],
        record: Record | None,
    ) -> None:
        """Store the entries of ``batch``, all of one transcript, together with ``record``.

        Without a record the session may be there already, and the batch is compared with it as
        any batch that comes again.

        Raises:
            OvertakenError: nothing was stored, for the session is not as ``self.record`` has it.
        """
        entries = distinct([each.encoded for each in batch if each.encoded is not None])
        self._created_at = {id(each.encoded): each.created_at for each in batch}
        self._next = record
        self._put = None
        self._put_entries = 0
        if entries:
            await self.append(connection, key, entries)
            self.stored += self._put_entries
        if record is not None and self._put is None:
            await self.put(connection, key, record)
        elif self._put is not None:
            self.record = self._put

    async def put(self, connection: Connection, key: TranscriptKey, record: Record) -> None:
        """Store a record alone."""

        async def work(session: ClientSession | None) -> None:
            await self._records.put(key, record, session)

        attempts = Attempts()
        while True:
            try:
                await transact(connection.client, connection.server, work, attempts)
                break
            except TransientFailureError:
                if not await attempts.pause():
                    raise
        self.record = replace(record, version=record.version + 1)

    def _mtime(self, now: int, last: int | None) -> int:
        if self._source_mtime is None:
            return super()._mtime(now, last)
        # Microseconds, say, would be of the year 58875, and the session the newest one for ever.
        source = min(self._source_mtime, now)
        # An application that wrote to it since has moved it on.
        return source if last is None else max(last, source)

    async def _claim_and_insert(
        self,
        connection: Connection,
        key: TranscriptKey,
        batch: Sequence[EncodedEntry],
        claim: Any,
        session: ClientSession | None,
    ) -> None:
        # What an earlier try put was rolled back with it.
        self._put = None
        self._put_entries = 0
        known = claim.known
        if self._next is not None and (known and known.id) != self.record.session:
            raise OvertakenError
        times = iter([self._created_at[id(encoded)] for encoded in batch])

        def fields() -> dict[str, Any]:
            # Called once per entry, in order; what it gives goes before the time of the insert.
            created_at = next(times)
            added = connection.entry_defaults()
            return added if created_at is None else {**added, "created_at": created_at}

        dated = replace(connection, entry_defaults=fields)
        await super()._claim_and_insert(dated, key, batch, claim, session)
        created_at = self._created_at[id(batch[0])]
        if known is None and created_at is not None:
            summary = {**key.session_filter(), "_id": claim.next.id}
            change = {"$set": {"created_at": created_at}}
            await connection.summaries.update_one(summary, change, session=session)
        self._put_entries = len(batch)
        if self._next is not None:
            record = replace(self._next, session=claim.next.id)
            await self._records.put(key, record, session)
            self._put = replace(record, version=record.version + 1)
