"""Whether a session's summary says what is stored of it, and mending one that does not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from beanie.operators import Unset
from bson import ObjectId
from bson.int64 import Int64
from pymongo.errors import DuplicateKeyError

from ...models.counting.tally import UNDER_WAY
from ..database.attempts import Attempts
from ..database.documents import Row
from ..database.driver import ClientSession
from ..database.reads import retried
from ..database.transactions import TransientFailureError, snapshot, transact
from ..encryption.seal import SessionCipher
from ..errors import ContentionError, UnknownSessionError, UnsoundSessionError
from ..storage.connection import Connection
from ..storage.living import live_of
from ..storage.orphans import Orphan, orphan_of
from ..storage.read_state import state_in
from ..storage.seals import cipher_to_write, is_sealed
from ..storage.state import DATA_FIELDS, SessionState
from ..transcript_key import TranscriptKey
from .count_marks import mark_entries
from .dating import follow
from .recount import Recount, recount
from .remains import sweep
from .summary_contents import fold_fields, totals_fields
from .summary_update import (
    StaleStateError,
    SummaryUpdate,
    advance_summary,
    mirrored,
)


@dataclass(frozen=True, slots=True)
class Difference:
    """A field of a summary that does not say what is stored."""

    field: str
    """Such as ``data``, ``mtime`` or ``totals.usage``."""
    stored: Any
    expected: Any


@dataclass(frozen=True, slots=True)
class Verification:
    """What came of comparing a session's summary with its entries."""

    entries: int
    """Entries of all transcripts of the session."""
    differences: tuple[Difference, ...]

    @property
    def is_sound(self) -> bool:
        """Whether the summary says what is stored."""
        return not self.differences


@dataclass(frozen=True, slots=True)
class _Comparison:
    """A summary and its entries at one moment."""

    state: SessionState
    counted: Recount

    @property
    def lacks_mtime(self) -> bool:
        return self.state.mtime is None and self.counted.data is not None

    @property
    def verification(self) -> Verification:
        return Verification(
            self.counted.totals.entries, tuple(_differences(self.state, self.counted))
        )


async def verify(connection: Connection, key: TranscriptKey) -> Verification:
    """Compare the summary of a session with what is stored of it.

    Raises:
        UnknownSessionError: there is no such session, or only entries that may be left of one.
    """
    look = await _look(connection, key)
    if look is not None:
        return look.verification
    orphan = await orphan_of(connection, key)
    if orphan is None or orphan.may_have_expired:
        raise _unknown(key)
    return _without_summary(orphan)


async def repair(
    connection: Connection, key: TranscriptKey, *, bring_back: bool = False
) -> Verification:
    """Mend the summary of a session, and finish what others left: remains, and entries' dates.

    Raises:
        UnknownSessionError: there is no such session, or only entries that may be left of one.
        UnsoundSessionError: whether it was deleted cannot be told.
        ContentionError: it was written to all the time.
    """
    found = await mend(connection, key, bring_back=bring_back, despite_damage=True)
    await sweep(connection, key)
    await follow(connection, key)
    return found


async def mend(
    connection: Connection,
    key: TranscriptKey,
    *,
    bring_back: bool = False,
    despite_damage: bool = False,
) -> Verification:
    """Make the summary of a session say what is stored of it, and return what it said wrong.

    A summary that something else took is made anew, unless the session may have expired or been
    deleted; ``bring_back`` makes it all the same, and begins the session's period anew. One whose
    seal is broken is only replaced ``despite_damage``: for who was asked to.

    Raises:
        UnknownSessionError: there is no such session, or only entries that may be left of one.
        UnsoundSessionError: whether it was deleted cannot be told.
        ContentionError: it was written to all the time.
    """
    attempts = Attempts()
    rebuilt: Verification | None = None
    while True:
        look = await _look(connection, key, despite_damage)
        if look is None:
            rebuilt = await _rebuild(connection, key, bring_back)
            if not await attempts.pause():
                raise _contended(key)
            continue
        found = rebuilt or look.verification
        if look.verification.is_sound:
            return found
        if connection.has_marks:
            await mark_entries(connection, key)
        written_at = await _last_written(connection, key) if look.lacks_mtime else None
        cipher = await _cipher(connection, key, look.state)
        update = _mending(connection, look, written_at, cipher)

        async def work(session: ClientSession | None, update: SummaryUpdate = update) -> None:
            assert update.known is not None
            await advance_summary(connection, key, update, update.known, session)

        try:
            await transact(connection.client, connection.server, work, attempts)
            return found
        except TransientFailureError:
            if not await attempts.pause():
                raise
        except StaleStateError:
            if not await attempts.pause():
                raise _contended(key) from None


async def _rebuild(
    connection: Connection, key: TranscriptKey, bring_back: bool
) -> Verification | None:
    """Put a summary beside entries that have none, for :func:`mend` to fill in.

    It gives no position yet: whoever appends before that is done does it first.
    """
    orphan = await orphan_of(connection, key)
    if orphan is None:
        if await live_of(connection, key, None) is None:
            raise _unknown(key)
        # Another one made it meanwhile.
        return None
    if not orphan.is_lost and not bring_back:
        if orphan.may_have_expired:
            raise _unknown(key)
        raise UnsoundSessionError(
            f"{key} has {orphan.entries} entries and no summary, and whether it was deleted, or in "
            "part, cannot be told; nothing was changed. Run session-store verify --repair "
            "--bring-back, or await store.repair(key, bring_back=True), to have it back with all "
            "of them, or delete it."
        )
    summary: dict[str, Any] = {
        "_id": ObjectId(),
        **key.of_session,
        "created_at": orphan.created_at,
        "active_at": orphan.active_at,
        **connection.summary_defaults(),
    }
    if orphan.dated:
        for documents in (connection.entries, connection.chunks):
            await documents.find(key.of_session).update(Unset({"expires_at": ""}))
        summary["released_at"] = connection.server.now()
    last = connection.entries.find_one(key.of_session, {"seq": Int64(orphan.last_seq)})

    async def work(session: ClientSession | None) -> None:
        # It may have been deleted since.
        if not await last.exists(session):
            raise StaleStateError
        # The driver's own: what a class of a team adds is encoded already.
        await connection.summaries.collection.insert_one(summary, session=session)

    with suppress(StaleStateError, DuplicateKeyError, TransientFailureError):
        await transact(connection.client, connection.server, work, Attempts())
        return _without_summary(orphan)
    return None


def _without_summary(orphan: Orphan) -> Verification:
    return Verification(
        orphan.entries, (Difference("summary", None, f"one of {orphan.entries} entries"),)
    )


async def _last_written(connection: Connection, key: TranscriptKey) -> int | None:
    """When the last entry of the main transcript was stored, epoch milliseconds."""
    row = await connection.entries.find_one(
        key.session.of_transcript, rows=_WrittenRow, sort=[("seq", -1)]
    )
    return None if row is None else round(row.created_at.timestamp() * 1000)


class _WrittenRow(Row):
    created_at: Any = None


def _unknown(key: TranscriptKey) -> UnknownSessionError:
    return UnknownSessionError(
        f"There is no {key}; nothing was changed. Check tenant, project key and session id."
    )


def _contended(key: TranscriptKey) -> ContentionError:
    return ContentionError(
        f"Could not repair {key}: it is written to all the time; nothing was changed. Try again."
    )


async def _look(
    connection: Connection, key: TranscriptKey, despite_damage: bool = False
) -> _Comparison | None:
    async def attempt() -> _Comparison | None:
        async with snapshot(connection.client, connection.server) as session:
            while True:
                state = await state_in(connection, key, session, despite_damage=despite_damage)
                if state is None or state.is_expired:
                    return None
                counted = await recount(connection, key, session)
                if session is not None:
                    return _Comparison(state, counted)
                # Without snapshots, two reads are of one moment if nothing came in between.
                after = await state_in(connection, key, session)
                if after is not None and after.next_seq == state.next_seq:
                    return _Comparison(state, counted)

    return await retried(connection.client, attempt)


def _differences(state: SessionState, counted: Recount) -> Iterator[Difference]:
    if state.next_seq <= counted.last_seq or not state.next_seq:
        expected_seq = max(state.lowest, counted.last_seq + 1)
        yield Difference("next_seq", state.stored_next_seq, expected_seq)
    if (state.mtime is not None) != (counted.data is not None):
        yield Difference("mtime", state.mtime, "a time" if counted.data else None)
    if state.data != counted.data:
        yield Difference("data", state.data, counted.data)
    expected = counted.totals.document(state.next_seq)
    if state.totals is None:
        yield Difference("totals", None, expected)
    else:
        stored = dict(state.stored_totals or {})
        for totals in (stored, expected):
            in_flight = totals.pop("in_flight", {})
            # How much of what is under way is remembered depends on how it was counted.
            totals["in_flight"] = {k: v for k, v in in_flight.items() if k not in UNDER_WAY}
        for field in sorted(expected.keys() | stored.keys()):
            if stored.get(field) != expected.get(field):
                yield Difference(f"totals.{field}", stored.get(field), expected.get(field))
    for field, text in counted.totals.texts.items():
        if state.texts.get(field) != text:
            yield Difference(field, state.texts.get(field), text)


async def _cipher(
    connection: Connection, key: TranscriptKey, state: SessionState
) -> SessionCipher | None:
    """What seals a summary: if it is made anew, with the key that its entries are sealed with."""
    keyring = connection.keyring
    if keyring is not None and state.sealed_with is None:
        last = await connection.entries.find_one(
            key.of_session, {"packed": {"$type": "binData"}}, rows=_SealedRow, sort=[("seq", -1)]
        )
        if last is not None and is_sealed(last.packed):
            return await keyring.cipher_for(key.session, last.packed)
    return await cipher_to_write(connection, key, state, None)


class _SealedRow(Row):
    packed: Any = None


def _mending(
    connection: Connection,
    look: _Comparison,
    written_at: int | None,
    cipher: SessionCipher | None,
) -> SummaryUpdate:
    state, counted = look.state, look.counted
    next_seq = max(state.next_seq, state.lowest, counted.last_seq + 1) + 1
    fields: dict[str, Any] = {}
    parts: tuple[bytes, ...] = ()
    if counted.data is not None:
        fields, parts = fold_fields(counted.data, cipher)
    totals = counted.totals.resumed()
    totals.is_exact = connection.has_marks
    told, untold = totals_fields(totals, next_seq, state, cipher)
    changes = {
        "next_seq": Int64(next_seq),
        **fields,
        **told,
        **mirrored(state, next_seq),
    }
    removed = (*(name for name in DATA_FIELDS if name not in fields), *untold)
    if counted.data is None:
        # Without an entry it has no main transcript, and is not listed either.
        removed = (*removed, "mtime")
    elif state.mtime is None:
        changes["mtime"] = Int64(written_at or connection.server.now_ms())
    return SummaryUpdate(
        known=state,
        next=state._replace(next_seq=next_seq),
        first_seq=state.next_seq,
        changes=changes,
        removed=removed,
        data_chunks=parts,
        cipher=cipher,
    )
