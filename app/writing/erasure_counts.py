"""How much there is of a session that is erased, counted while others write to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from beanie.operators import Set
from bson import ObjectId
from bson.int64 import Int64

from ..database.driver import ClientSession
from ..database.transactions import snapshot
from ..storage.connection import Connection
from ..storage.living import MARKED
from ..transcript_key import TranscriptKey
from .dating import DatedRow
from .recount import is_appended
from .summary_update import StaleStateError
from .tombstones import Erasing

SAME = ("id", "expires_at", "held_at")
"""What makes it the session that was looked at."""


async def counted_to_erase(
    connection: Connection, key: TranscriptKey, row: DatedRow, erasing: Erasing
) -> tuple[DatedRow, dict[str, int]]:
    """A session's summary with what there was of the session at the moment it is of.

    The chunks of the summary itself are not in it: they change with each append.

    Raises:
        StaleStateError: it is another session than was looked at, or is held or expires by now.
    """
    async with snapshot(connection.client, connection.server) as session:
        this = row.as_read(*SAME)
        found = await connection.summaries.find_one(
            key.of_session, this, rows=DatedRow, session=session
        )
        if found is None:
            raise StaleStateError
        counts = await erasing.counted(connection, key, session)
        folds = connection.chunks.find(
            key.of_session, {"collection": connection.summaries.name}, session=session
        )
        return found, {**counts, "chunks": counts["chunks"] - await folds.count()}


async def since_counted(
    connection: Connection,
    key: TranscriptKey,
    counted: DatedRow,
    fence: Mapping[str, Any],
    session: ClientSession | None,
) -> tuple[DatedRow, dict[str, int]]:
    """A session's summary as it is by now, with its chunks and what came since it was counted.

    Raises:
        StaleStateError: it has to be counted again, or is not to be deleted any more.
    """
    chunks = connection.chunks
    of_summary = {"collection": connection.summaries.name}
    folds = chunks.find(key.of_session, of_summary, session=session)
    if session is None:
        # Nothing keeps others off there. What came meanwhile shows at the summary.
        return counted, {"chunks": await folds.count()}
    same = {**counted.as_read(*SAME), **fence}
    this = connection.summaries.find_one(key.of_session, same)
    # First, so that of those who write all the time it is not the erasure that always has to wait.
    await this.update(Set({"counting": ObjectId()}), session=session)
    now = await connection.summaries.find_one(key.of_session, same, rows=DatedRow, session=session)
    if now is None:
        raise StaleStateError
    before, after = counted.next_seq, now.next_seq
    if before == after:
        return now, {"chunks": await folds.count()}
    if not isinstance(before, int) or not isinstance(after, int) or after - before > MARKED:
        raise StaleStateError
    if not await is_appended(connection, key, before, after, session):
        raise StaleStateError
    added = {"collection": connection.entries.name, "seq": {"$gte": Int64(before)}}
    chunked = await chunks.find(key.of_session, added, session=session).count()
    return now, {"entries": after - before, "chunks": chunked + await folds.count()}
