"""What erasures have come to, kept in the database: so one that was killed goes on as itself.

A record is there for a little longer than the tombstones of its sessions. Whom it was about it says
as a digest alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bson import ObjectId

from ..database.collection_names import ERASURES
from ..database.driver import Collection, with_store_rules
from ..database.reads import retried
from ..storage.connection import Connection
from ..writing.tombstones import RECORD_STAYS


@dataclass(frozen=True, slots=True)
class ErasureRecord:
    """One erasure, as far as it is known to the database."""

    id: ObjectId
    began_at: datetime
    ended_at: datetime | None
    by: tuple[str, ...]
    counts: Mapping[str, int]
    until: datetime


class ErasureRecords:
    """The erasures of one subject in the collections of one store."""

    def __init__(
        self, connection: Connection, tenant: str, subject: Mapping[str, Any] | None
    ) -> None:
        self.documents: Collection = with_store_rules(connection.entries.collection.database)[
            ERASURES
        ]
        self._connection = connection
        self._owner = {"tenant": tenant, "collection": connection.summaries.name}
        self._subject = json.dumps(subject if subject is None else dict(subject), sort_keys=True)

    async def known(self) -> list[ErasureRecord]:
        """The erasures of the subject whose tombstones stand, or that were cut off.

        The last one comes first.
        """
        now = self._connection.server.now()
        # One without tombstones that was not finished goes on all the same.
        query = {**self._owner, "$or": [{"until": {"$gt": now}}, {"ended_at": None}]}

        async def attempt() -> list[ErasureRecord]:
            rows = await self.documents.find(query, sort=[("_id", -1)]).to_list(None)
            return [_record(row) for row in rows if row["subject"] == self._digest(row["_id"])]

        return await retried(self._connection.client, attempt)

    async def again(self, record: ErasureRecord) -> ErasureRecord:
        """An erasure as it is known now; as it was, where MongoDB has taken it meanwhile."""

        async def attempt() -> ErasureRecord:
            row = await self.documents.find_one({"_id": record.id})
            return record if row is None else _record(row)

        return await retried(self._connection.client, attempt)

    async def begin(self, until: datetime, by: str | None) -> ErasureRecord:
        """A new erasure."""
        record = ErasureRecord(
            id=ObjectId(),
            began_at=self._connection.server.now(),
            ended_at=None,
            by=() if by is None else (by,),
            counts={},
            until=until,
        )
        await self.documents.insert_one(
            {
                "_id": record.id,
                **self._owner,
                "subject": self._digest(record.id),
                "began_at": record.began_at,
                "by": list(record.by),
                "counts": {},
                "until": until,
                "expires_at": until + RECORD_STAYS,
            }
        )
        return record

    async def go_on(self, record: ErasureRecord, by: str | None) -> None:
        """Take up an erasure that was cut off."""
        if by is not None and by not in record.by:
            await self.documents.update_one({"_id": record.id}, {"$addToSet": {"by": by}})

    async def end(self, record: ErasureRecord) -> None:
        """Note that all of it is done."""
        ended_at = self._connection.server.now()
        await self.documents.update_one({"_id": record.id}, {"$set": {"ended_at": ended_at}})

    def _digest(self, erasure: ObjectId) -> str:
        return hashlib.sha256(erasure.binary + self._subject.encode()).hexdigest()


def _record(row: Mapping[str, Any]) -> ErasureRecord:
    return ErasureRecord(
        id=row["_id"],
        began_at=row["began_at"],
        ended_at=row.get("ended_at"),
        by=tuple(row["by"]),
        counts=row["counts"],
        until=row["until"],
    )
