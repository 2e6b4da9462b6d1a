"""The entries of a batch: inserted behind what the summary claims, or taken back."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from beanie.operators import In
from bson.int64 import Int64
from pymongo.errors import BulkWriteError, PyMongoError

from ...models.entry import CHUNK_INDEX, COUNTED_INDEX, ORDER_INDEX, UUID_INDEX
from ..database.commands import insert_encoded
from ..database.driver import ClientSession
from ..database.server_codes import DUPLICATE_KEY
from ..encryption.seal import Sealed
from ..storage.codec import EncodedEntry
from ..storage.connection import Connection
from ..storage.seals import sealed_parts
from ..storage.values import chunk_documents
from ..transcript_key import TranscriptKey
from .repair import mend
from .summary_update import PositionTakenError, StaleStateError, SummaryUpdate
from .written_documents import entry_documents

logger = logging.getLogger("beanie_session_store.writing")

# A team's own unique index may refuse an entry too, but not because it is stored already.
_UUID_KEYS: list[tuple[str, Any]] = list(UUID_INDEX.document["key"].items())
_COUNTED_KEYS: list[tuple[str, Any]] = list(COUNTED_INDEX.document["key"].items())
_POSITION_KEYS: list[list[tuple[str, Any]]] = [
    list(index.document["key"].items()) for index in (ORDER_INDEX, CHUNK_INDEX)
]


class ReplayError(Exception):
    """A key of the batch is stored already, or no longer, so nothing of the batch was."""


class CountedError(Exception):
    """What the batch was counted as was counted before, so nothing of the batch was stored."""


async def require_owners(
    connection: Connection,
    key: TranscriptKey,
    batch: Sequence[EncodedEntry],
    update: SummaryUpdate,
    session: ClientSession | None,
) -> None:
    """Look that the uuid of each further entry under it is still another's.

    Had that one been deleted meanwhile, the further one would not be recognised when it comes
    again: its uuid would be free.

    Raises:
        ReplayError: it is not.
    """
    further = [encoded for encoded in batch if encoded.is_further]
    if not further:
        return
    needed = {encoded.own_key for encoded in further} - {encoded.uuid for encoded in batch}
    if not needed:
        return
    begun = {"seq": {"$gte": update.next.first_seq}} if update.next.first_seq > 1 else {}
    owners = connection.entries.find(
        key.of_transcript, In("uuid", list(needed)), begun, session=session
    )
    if await owners.count() < len(needed):
        raise ReplayError


async def insert_entries(
    connection: Connection,
    key: TranscriptKey,
    batch: Sequence[EncodedEntry],
    update: SummaryUpdate,
    session: ClientSession | None,
) -> None:
    """Store the entries, and what of them does not fit a document, at the positions claimed.

    Raises:
        ReplayError: one is stored already.
        CountedError: what one counts for was counted before.
        PositionTakenError: a position is not free.
        StaleStateError: there are remains of an earlier session, of which nobody told.
    """
    update.require_sealed(connection)
    date = update.next.dated.entry_date
    dated = {} if date is None else {"expires_at": date}
    chunks: list[dict[str, Any]] = []
    for seq, encoded in enumerate(batch, update.first_seq):
        if encoded.chunks:
            owner = {
                **key.of_transcript,
                "collection": connection.entries.name,
                "seq": Int64(seq),
                **dated,
            }
            chunks.extend(chunk_documents(owner, _parts(encoded, key, seq, update)))
    if chunks:
        try:
            # The driver's own: documents of bytes that are there already.
            await connection.chunks.collection.insert_many(chunks, session=session)
        except BulkWriteError as error:
            _require_free(_refusing(error))
            raise
    documents = entry_documents(connection, key, batch, update)
    try:
        # By hand: the documents are bytes already.
        await insert_encoded(connection.entries.collection, documents, session)
    except BulkWriteError as error:
        refusing = _refusing(error)
        if _UUID_KEYS in refusing:
            raise ReplayError from None
        if _COUNTED_KEYS in refusing:
            raise CountedError from None
        if update.known is None and error.details.get("writeErrors", ({},))[0].get("code") == (
            DUPLICATE_KEY
        ):
            # Remains that nobody told of a moment ago.
            raise StaleStateError from None
        _require_free(refusing)
        raise


def _parts(
    encoded: EncodedEntry, key: TranscriptKey, seq: int, update: SummaryUpdate
) -> Sequence[bytes]:
    if update.cipher is None:
        return encoded.chunks
    return sealed_parts(encoded.chunks, update.cipher.of(key.subpath), Sealed.ENTRY, seq)


def _refusing(error: BulkWriteError) -> list[list[tuple[str, Any]]]:
    """The keys of the unique indexes that refused something."""
    return [
        list(failure.get("keyPattern", {}).items())
        for failure in error.details.get("writeErrors", ())
        if failure.get("code") == DUPLICATE_KEY
    ]


def _require_free(refusing: Sequence[list[tuple[str, Any]]]) -> None:
    if any(keys in refusing for keys in _POSITION_KEYS):
        raise PositionTakenError from None


async def take_back(
    connection: Connection, key: TranscriptKey, update: SummaryUpdate, count: int
) -> None:
    """Without transactions: take back what a failed insert left, and fold anew what is stored."""
    positions = {"$gte": update.first_seq, "$lt": update.first_seq + count}
    claimed = {**key.of_transcript, "seq": positions}
    mine = {"created_at": update.changes["active_at"]}
    try:
        # Where the positions were not free, what else stands there is of another time.
        await connection.entries.find(claimed, mine).delete()
        # The driver's own, for Beanie 1 has no distinct.
        others: list[int] = await connection.entries.collection.distinct("seq", claimed)
        parts = {**claimed, "seq": {**positions, "$nin": others}}
        await connection.chunks.find(parts, {"collection": connection.entries.name}).delete()
        await mend(connection, key.session)
    except PyMongoError:
        logger.warning(
            "Could not take back a failed append to %s: the server has no transactions and went "
            "away. Some entries of the batch may be stored, and its summary may be ahead of them.",
            key,
        )
