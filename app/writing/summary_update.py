"""One try to append: what the summary must still be, and what it becomes.

It is a compare-and-swap on the summary, so of two writers one wins and the other looks
again. Whatever else rewrites folded state goes through it too, and moves ``next_seq`` on, so that
what other writers remember of the summary misses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from bson import ObjectId
from bson.int64 import Int64

from ...models.counting.marks import Mark
from ..database.commands import update_one
from ..database.documents import exactly, joined
from ..database.driver import ClientSession
from ..database.server import date_of
from ..encryption.seal import SessionCipher
from ..storage.backstop import appended, new_session
from ..storage.connection import Connection
from ..storage.criteria import NOT_EXPIRED
from ..storage.expiry import Retention
from ..storage.state import DATA_FIELDS, Folded, SessionState
from ..storage.values import chunk_documents
from ..transcript_key import TranscriptKey
from .summary_contents import fold_fields, totals_fields


class StaleStateError(Exception):
    """The session's summary is not what it was last known to be."""


class MoveFirstError(Exception):
    """The entries of a session are dated so early that they must be moved before its summary."""


class PositionTakenError(Exception):
    """The summary says that a position is free which is not, or says none at all."""


class SummaryUpdate(NamedTuple):
    """One try to append: what the summary must be, and what it and the entries become."""

    known: SessionState | None
    next: SessionState
    first_seq: int
    changes: dict[str, Any]
    removed: tuple[str, ...]
    data_chunks: tuple[bytes, ...] | None
    """What replaces the chunks that hold the fold; ``None`` leaves them alone."""
    is_followed: bool = False
    """Whether the dates of stored entries are to follow the summary's."""
    clears: bool = False
    """Whether it takes the place of a session that is gone, of which there may be remains."""
    pushed: Mapping[str, Any] = {}
    """What is added to lists of the summary."""
    marks: Mapping[int, Mark] = MappingProxyType({})
    """What entries carry besides, by their position."""
    cipher: SessionCipher | None = None
    """What seals that which is written; ``None`` where it is stored plain."""
    tries: Sequence[ObjectId] = ()
    """The ids of all tries to store the batch whose outcome is not known, this one's last."""

    @property
    def is_simple(self) -> bool:
        """Whether it moves no dates, and no earlier try may have stored the batch."""
        return not self.is_followed and len(self.tries) == 1

    def require_sealed(self, connection: Connection) -> None:
        """Write nothing plain where contents are to be sealed, whatever was forgotten before."""
        if connection.keyring is not None and self.cipher is None:
            raise AssertionError("contents that are to be encrypted would be stored plain")

    @property
    def leaves_remains(self) -> bool:
        """Whether anything may be left of the session whose place it takes."""
        return self.clears and self.first_seq > 1


def planned_update(
    connection: Connection,
    count: int,
    known: SessionState | None,
    folded: Folded,
    retention: Retention,
    tries: Sequence[ObjectId],
    next_mtime: Callable[[int, int | None], int],
    cipher: SessionCipher | None = None,
) -> SummaryUpdate:
    """A try to append ``count`` entries, of which ``folded`` is the summary's new state.

    ``next_mtime`` says when a session changes, by the time now and when it last did; ``cipher``
    seals what is said.

    Raises:
        MoveFirstError: the dates of the session's entries have to be moved before.
    """
    clears = known is not None and known.is_expired
    first_seq = known.next_seq if known else 1
    if clears:
        known = None
    now_ms = connection.server.now_ms()
    now = date_of(now_ms)
    if known is None:
        dated = new_session(retention, now, first_seq + count)
    else:
        becomes = appended(known.dated, retention, now, first_seq + count)
        if becomes is None:
            raise MoveFirstError
        dated = becomes
    mtime = known.mtime if known else None
    data = known.data if known else None
    field = known.data_field if known else None
    chunks: tuple[bytes, ...] | None = None
    next_seq = first_seq + count
    changes: dict[str, Any] = {
        "next_seq": Int64(next_seq),
        "active_at": now,
    }
    removed: tuple[str, ...] = ()
    if dated.expires_at is not None and (known is None or known.expires_at != dated.expires_at):
        changes["expires_at"] = dated.expires_at
    if dated.backstop is not None:
        changes["backstop"] = dated.backstop
    if dated.is_moving and known is not None and known.dated.entry_date != dated.entry_date:
        removed = ("moved_through",)
    elif known is not None and known.backstop is not None and dated.backstop is None:
        # What was there is none, as something else put it there.
        removed = ("backstop",)
    if clears and first_seq > 1:
        changes |= {"first_seq": Int64(first_seq), "remains": True}
    is_to_seal = cipher is not None and known is not None and known.has_plain
    if folded.data is not None:
        mtime = next_mtime(now_ms, mtime)
        changes["mtime"] = Int64(mtime)
    new_data = data if folded.data is None else folded.data
    # Most batches change nothing in the fold; then the summary's text stays as it is.
    if new_data is not None and (new_data != data or is_to_seal):
        fields, parts = fold_fields(new_data, cipher)
        changes |= fields
        (field,) = fields
        stale = tuple(name for name in DATA_FIELDS if name != field)
        if known and (known.data_field in stale or is_to_seal):
            removed = (*removed, *stale)
        if parts or (known and known.data_field == "data_chunks"):
            chunks = parts
        data = new_data
    # Behind what listings read, which then need not pass over it.
    texts = folded.totals.texts
    told, untold = totals_fields(folded.totals, next_seq, known, cipher)
    changes |= told
    folded.totals.settle()
    if known and known.nulls:
        # Else the next one who reads it would look again what wrote there.
        removed = (*removed, *(name for name in known.nulls if name not in changes))
    return SummaryUpdate(
        marks=folded.marks,
        tries=(*tries, ObjectId()),
        known=known,
        next=SessionState(
            id=known.id if known else ObjectId(),
            next_seq=next_seq,
            mtime=mtime,
            data=data,
            data_field=field,
            totals=folded.totals,
            texts=texts,
            expires_at=dated.expires_at,
            held_at=dated.held_at,
            backstop=dated.backstop,
            first_seq=known.first_seq if known else first_seq,
            sealed_with=None if cipher is None else cipher.key_id,
        ),
        first_seq=first_seq,
        changes=changes,
        removed=(*removed, *untold),
        data_chunks=chunks,
        is_followed=dated.is_moving,
        clears=clears,
        cipher=cipher,
    )


def mirrored(known: SessionState, next_seq: int) -> dict[str, Any]:
    """What else changes with the position of the next entry, if anything."""
    backstop = known.dated.carried_to(next_seq).backstop
    return {} if backstop is None or known.dated.is_foreign else {"backstop": backstop}


async def advance_summary(
    connection: Connection,
    key: TranscriptKey,
    update: SummaryUpdate,
    known: SessionState,
    session: ClientSession | None,
    fence: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Change the summary if it still is as ``known`` has it, and meets the ``fence``.

    Raises:
        StaleStateError: it is not.
    """
    # A command made by hand: Beanie's update would be another hundredth of an append's time.
    query, operators = claim(key, update, known, fence)
    if not await update_one(connection.summaries.collection, query, operators, session):
        raise StaleStateError
    await replace_summary_chunks(connection, key, update, session)


def claim(
    key: TranscriptKey,
    update: SummaryUpdate,
    known: SessionState,
    fence: Mapping[str, Any] = MappingProxyType({}),
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The query that finds the summary if it still is as ``known`` has it, and what to change."""
    operators: dict[str, Any] = {"$set": update.changes}
    if update.removed:
        operators["$unset"] = dict.fromkeys(update.removed, "")
    if update.pushed:
        operators["$push"] = update.pushed
    # A session that was deleted and made anew counts from 1 again; its _id tells it apart.
    query = {
        **key.of_session,
        "_id": known.id,
        # What is no position may be anything.
        "next_seq": known.next_seq or {"$eq": known.stored_next_seq},
        "expires_at": exactly(known.expires_at),
        "held_at": exactly(known.held_at),
        "backstop": exactly(known.backstop),
    }
    if known.expires_at is not None:
        query |= NOT_EXPIRED
    if fence:
        query = joined((query, fence))
    return query, operators


async def replace_summary_chunks(
    connection: Connection, key: TranscriptKey, update: SummaryUpdate, session: ClientSession | None
) -> None:
    """Store the chunks of a fold that no summary can hold, in place of those before."""
    if update.data_chunks is None:
        return
    owner = {
        **key.of_session,
        "collection": connection.summaries.name,
        "subpath": "",
        "seq": 0,
    }
    await connection.chunks.find(owner).delete(session=session)
    if update.data_chunks:
        date = update.next.dated.entry_date
        dated = {} if date is None else {"expires_at": date}
        chunks = chunk_documents({**owner, **dated}, update.data_chunks)
        # The driver's own: documents of bytes that are there already.
        await connection.chunks.collection.insert_many(chunks, session=session)
