"""Batches that may be stored: no server said in time whether their transaction holds.

Each try gives its first document an ``_id`` of its own, so a batch that comes again can be asked
after, even one without any uuid and with other batches in between.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from beanie.operators import In
from bson import ObjectId

from ..database.documents import Row
from ..database.driver import ClientSession
from ..database.reads import confirmed
from ..storage.codec import EncodedEntry
from ..storage.connection import Connection
from ..storage.living import live_of
from ..storage.uuids import fingerprint
from ..transcript_key import TranscriptKey
from .observers import StoredBatch

_MOST = 1024


class UnknownOutcomes:
    """The tries with unknown outcome, by transcript and batch, for the most recent ones."""

    def __init__(self) -> None:
        self._tries: OrderedDict[tuple[str, TranscriptKey, bytes], list[ObjectId]] = OrderedDict()

    def take(self, place: str, key: TranscriptKey, batch: Sequence[EncodedEntry]) -> list[ObjectId]:
        """The ids of the tries to store a batch that may hold; forgotten.

        ``place`` is the collection, by its full name: an application that makes a new client, or
        calls ``init_beanie`` once more, is still asked after what it tried before.
        """
        # Nearly always there are none at all, and a digest is not free.
        if not self._tries:
            return []
        return self._tries.pop((place, key, _digest(batch)), [])

    def put(
        self, place: str, key: TranscriptKey, batch: Sequence[EncodedEntry], tries: list[ObjectId]
    ) -> None:
        """Note that tries to store a batch may hold."""
        self._tries[place, key, _digest(batch)] = tries
        if len(self._tries) > _MOST:
            self._tries.popitem(last=False)


class _FirstOfBatchRow(Row):
    seq: Any = None
    created_at: Any = None


async def stored_by(
    connection: Connection, key: TranscriptKey, tries: Sequence[ObjectId]
) -> StoredBatch | None:
    """What one of the tries has stored, if one did and a majority has it."""
    return await confirmed(
        connection.client,
        connection.server,
        lambda session: _stored_by(connection, key, tries, session),
    )


async def _stored_by(
    connection: Connection,
    key: TranscriptKey,
    tries: Sequence[ObjectId],
    session: ClientSession | None,
) -> StoredBatch | None:
    entries = connection.entries
    first = await entries.find_one(In("_id", list(tries)), rows=_FirstOfBatchRow, session=session)
    if first is None:
        return None
    # Entries of one append follow one another, and have its time.
    from_there = {"seq": {"$gte": first.seq}, "created_at": first.created_at}
    count = await entries.find(key.of_transcript, from_there, session=session).count()
    live = await live_of(connection, key, session)
    is_new = live is not None and live.first_seq == first.seq
    return StoredBatch(first.seq, count, is_new)


async def is_any_stored(
    connection: Connection, tries: Sequence[ObjectId], session: ClientSession | None
) -> bool:
    """Whether one of the tries has stored its batch, as a client session sees it."""
    return await connection.entries.find_one(In("_id", list(tries))).exists(session)


def _digest(batch: Sequence[EncodedEntry]) -> bytes:
    digest = hashlib.sha256()
    for encoded in batch:
        digest.update(fingerprint(encoded.content()))
    return digest.digest()
