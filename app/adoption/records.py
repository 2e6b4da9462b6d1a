"""How far each session of a source was adopted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bson import ObjectId
from bson.int64 import Int64
from pymongo.errors import DuplicateKeyError

from ..database.driver import ClientSession, Collection
from ..schema.unfit_collections import require_fit_collections
from ..transcript_key import TranscriptKey
from .reader import SourceEntry

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
        return {**key.of_session, "source": self._source}
