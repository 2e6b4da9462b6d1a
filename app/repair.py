"""Whether a session's summary says what is stored of it, and mending one that does not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bson.int64 import Int64

from ..models.totals import UNDER_WAY
from .attempts import Attempts
from .claim import (
    Claim,
    StaleStateError,
    advance_summary,
    changed_texts,
    mirrored,
    value_fields,
)
from .codec import encode_object
from .connection import Connection
from .counted import mark_entries
from .dating import follow
from .driver import ClientSession, TransientFailureError, snapshot, transact
from .errors import ContentionError, UnknownSessionError
from .key import TranscriptKey
from .reader import retried, state_in
from .recount import Recount, recount
from .remains import sweep
from .summaries import DATA_FIELDS, SessionState


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
class _Look:
    """A summary and its entries at one moment."""

    state: SessionState
    counted: Recount

    @property
    def verification(self) -> Verification:
        return Verification(
            self.counted.totals.entries, tuple(_differences(self.state, self.counted))
        )


async def verify(connection: Connection, key: TranscriptKey) -> Verification:
    """Compare the summary of a session with what is stored of it.

    Raises:
        UnknownSessionError: there is no such session.
    """
    return (await _look(connection, key)).verification


async def repair(connection: Connection, key: TranscriptKey) -> Verification:
    """Make the summary of a session say what is stored of it, and return what it said wrong.

    It also finishes what others left: remains to sweep, and entries' dates on their way.

    Raises:
        UnknownSessionError: there is no such session.
        ContentionError: it was written to all the time.
    """
    attempts = Attempts()
    while True:
        look = await _look(connection, key)
        found = look.verification
        if found.is_sound:
            await sweep(connection, key)
            await follow(connection, key)
            return found
        if connection.has_marks:
            await mark_entries(connection, key)
        claim = _mending(connection, look)

        async def work(session: ClientSession | None, claim: Claim = claim) -> None:
            assert claim.known is not None
            await advance_summary(connection, key, claim, claim.known, session)

        try:
            await transact(connection.client, connection.server, work, attempts)
            await sweep(connection, key)
            await follow(connection, key)
            return found
        except TransientFailureError:
            if not await attempts.pause():
                raise
        except StaleStateError:
            if not await attempts.pause():
                raise ContentionError(
                    f"Could not repair {key}: it is written to all the time; nothing was "
                    "changed. Try again."
                ) from None


async def _look(connection: Connection, key: TranscriptKey) -> _Look:
    async def attempt() -> _Look | None:
        async with snapshot(connection.client, connection.server) as session:
            while True:
                state = await state_in(connection, key, session)
                if state is None or state.is_expired:
                    return None
                counted = await recount(connection, key, session)
                if session is not None:
                    return _Look(state, counted)
                # Without snapshots, two reads are of one moment if nothing came in between.
                after = await state_in(connection, key, session)
                if after is not None and after.next_seq == state.next_seq:
                    return _Look(state, counted)

    look = await retried(connection.client, attempt)
    if look is None:
        raise UnknownSessionError(
            f"There is no {key}; nothing was changed. Check tenant, project key and session id."
        )
    return look


def _differences(state: SessionState, counted: Recount) -> Iterator[Difference]:
    if state.next_seq <= counted.last_seq:
        yield Difference("next_seq", state.next_seq, counted.last_seq + 1)
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


def _mending(connection: Connection, look: _Look) -> Claim:
    state, counted = look.state, look.counted
    next_seq = max(state.next_seq, counted.last_seq + 1) + 1
    value = encode_object(counted.data) if counted.data is not None else None
    fields = value_fields(value, "data", "packed_data")
    texts, untold = changed_texts(state.texts, counted.totals.texts)
    totals = counted.totals.resumed()
    totals.is_exact = connection.has_marks
    changes = {
        "next_seq": Int64(next_seq),
        "totals": totals.document(next_seq),
        **fields,
        **texts,
        **mirrored(state, next_seq),
    }
    removed = (*(name for name in DATA_FIELDS if name not in fields), *untold)
    if counted.data is None:
        # Without an entry it has no main transcript, and is not listed either.
        removed = (*removed, "mtime")
    elif state.mtime is None:
        changes["mtime"] = Int64(connection.server.now_ms())
    return Claim(
        known=state,
        next=state._replace(next_seq=next_seq),
        first_seq=state.next_seq,
        changes=changes,
        removed=removed,
        data_chunks=value.chunks if value else (),
    )
