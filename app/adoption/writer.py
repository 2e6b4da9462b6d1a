"""Writing adopted entries: the store's write path, with the source's times and a record.

The record of how far a session was read is written in the transaction that stores the entries.
So a run that was killed goes on exactly where it stopped, entries without uuid included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from beanie.operators import Set

from ..database.attempts import Attempts
from ..database.driver import ClientSession
from ..database.transactions import TransientFailureError, transact
from ..storage.codec import EncodedEntry, EncodedValue, distinct
from ..storage.connection import Connection
from ..transcript_key import TranscriptKey
from ..writing.summary_update import SummaryUpdate
from ..writing.write_policy import SourceTimePolicy
from ..writing.writer import Writer
from .reader import SourceEntry
from .records import OvertakenError, Record, Records


class AdoptingWriter:
    """Appends batches of one session with the times they have in the source, and the record."""

    def __init__(
        self, metadata: EncodedValue | None, records: Records, record: Record, mtime: int | None
    ) -> None:
        self.record = record
        """The record as stored."""
        self.stored = 0
        """Entries stored so far."""
        self._records = records
        self._policy = _AdoptionPolicy(records, mtime)
        self._writer = Writer(metadata, self._policy)

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
        policy = self._policy
        policy.expect(batch, self.record, record)
        if entries:
            await self._writer.append(connection, key, entries)
            self.stored += policy.count
        if policy.put is not None:
            self.record = policy.put
        elif record is not None:
            await self.put(connection, key, record)

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


class _AdoptionPolicy(SourceTimePolicy):
    """Entries keep their times, and the record is stored with them."""

    # Two runs may adopt the same session at once.
    others_repeat_too = True

    def __init__(self, records: Records, source_mtime: int | None) -> None:
        super().__init__(source_mtime)
        self.put: Record | None = None
        """The record as it was stored with the last batch."""
        self.count = 0
        """Entries that were stored of it."""
        self._records = records
        self._before: Record | None = None
        self._next: Record | None = None
        self._created_at: dict[int, datetime | None] = {}

    def expect(
        self, batch: Sequence[SourceEntry], before: Record, following: Record | None
    ) -> None:
        """Take up a batch, and the record to store with it in place of ``before``."""
        self._created_at = {id(each.encoded): each.created_at for each in batch}
        self._before, self._next = before, following
        self.put, self.count = None, 0

    def begin(
        self, connection: Connection, batch: Sequence[EncodedEntry], update: SummaryUpdate
    ) -> Connection:
        self.put, self.count = None, 0
        session = update.known.id if update.known else None
        if self._next is not None and self._before and session != self._before.session:
            raise OvertakenError
        times = iter([self._created_at[id(encoded)] for encoded in batch])

        def fields() -> dict[str, Any]:
            # Called once per entry, in order; what it gives goes before the time of the insert.
            created_at = next(times)
            added = connection.entry_defaults()
            return added if created_at is None else {**added, "created_at": created_at}

        return replace(connection, entry_defaults=fields)

    async def stored(
        self,
        connection: Connection,
        key: TranscriptKey,
        batch: Sequence[EncodedEntry],
        update: SummaryUpdate,
        session: ClientSession | None,
    ) -> None:
        created_at = self._created_at[id(batch[0])]
        if update.known is None and created_at is not None:
            summary = connection.summaries.find_one(key.of_session, {"_id": update.next.id})
            await summary.update(Set({"created_at": created_at}), session=session)
        self.count = len(batch)
        if self._next is not None:
            record = replace(self._next, session=update.next.id)
            await self._records.put(key, record, session)
            self.put = replace(record, version=record.version + 1)
