"""The state that a session is written on from: exact, and mended where something else wrote it."""

from __future__ import annotations

import contextlib
import logging

from bson import ObjectId
from bson.int64 import Int64

from ..database.reads import retried
from ..errors import SessionErasedError, UnknownSessionError, UnsoundSessionError
from ..storage.connection import Connection
from ..storage.orphans import orphan_of
from ..storage.read_state import read_state
from ..storage.state import SessionState
from ..transcript_key import TranscriptKey
from .recount import counted_on
from .remains import next_free_position
from .repair import mend
from .summary_update import PositionTakenError

logger = logging.getLogger("beanie_session_store.writing")

_HEALINGS = 3


async def sound_state(connection: Connection, key: TranscriptKey) -> SessionState | None:
    """The state of a session, once what something else wrote into its summary is mended.

    Raises:
        UnsoundSessionError: it cannot be mended, or takes a decision.
    """
    healings = 0
    while True:
        try:
            return await exact_state(connection, key, None)
        except PositionTakenError:
            healings += 1
            await heal(connection, key, healings)


async def exact_state(
    connection: Connection, key: TranscriptKey, newest: SessionState | None
) -> SessionState | None:
    """The state of a session's summary, with exact totals even where an older release left none.

    ``newest`` is what was known of it.

    Raises:
        PositionTakenError: it is older than what is stored of the session, or there is none.
        SessionErasedError: the session was erased, and may not be begun again yet.
    """
    known = await read_state(connection, key)
    if known is None:
        return await _state_without_summary(connection, key)
    if known.is_expired:
        if known.erased_until is not None:
            raise SessionErasedError(
                f"{key} was erased; nothing was stored, and until "
                f"{known.erased_until:%Y-%m-%d %H:%M} UTC nothing is stored under its key. End the "
                "agent that still runs on it, or leave the session out of what you import; a new "
                "conversation begins as a session of another id."
            )
        return known._replace(next_seq=await _next_position(connection, key, known))
    is_counted = known.totals is not None and (known.totals.is_exact or not connection.has_marks)
    if known.next_seq and is_counted and not known.nulls and newest is None:
        return known
    if not known.next_seq or await _is_behind(connection, key, known, newest):
        raise PositionTakenError
    if is_counted:
        return known
    counted = await counted_on(connection, key)
    if counted.last_seq >= known.next_seq:
        raise PositionTakenError
    return known._replace(totals=counted.totals)


async def _is_behind(
    connection: Connection, key: TranscriptKey, known: SessionState, newest: SessionState | None
) -> bool:
    """Whether a summary that something else wrote, or may have written, was put back."""
    if newest is not None and newest.id == known.id and known.next_seq < newest.next_seq:
        return True
    if not known.nulls:
        return False
    behind = {"seq": {"$gte": Int64(known.next_seq)}}

    async def attempt() -> bool:
        return await connection.entries.find_one(key.of_session, behind).exists()

    return await retried(connection.client, attempt)


async def _next_position(connection: Connection, key: TranscriptKey, known: SessionState) -> int:
    """Where a session begins that takes the place of one that is gone."""
    return max(known.next_seq, known.lowest, await next_free_position(connection, key))


async def _state_without_summary(connection: Connection, key: TranscriptKey) -> SessionState | None:
    first_seq = await next_free_position(connection, key)
    if first_seq == 1:
        return None
    orphan = await orphan_of(connection, key)
    if orphan is not None and not orphan.may_have_expired:
        raise PositionTakenError
    return _gone(first_seq)


def _gone(next_seq: int) -> SessionState:
    """The state of a session that left entries but no summary."""
    return SessionState(ObjectId(), next_seq, 0, None, None, None, {}, is_expired=True)


async def heal(connection: Connection, key: TranscriptKey, healings: int) -> None:
    """Mend what something else wrote into the summary of a session, or took.

    Raises:
        UnsoundSessionError: it cannot be mended, or takes a decision.
    """
    if healings > _HEALINGS:
        raise UnsoundSessionError(
            f"Could not append to {key}: its summary gives no free position, and mending it did "
            "not help, for something else writes to it; nothing was stored. Find what that is, "
            "and run session-store verify --repair."
        )
    logger.warning("Something else than the store wrote or took the summary of %s: mending.", key)
    # It may have been deleted, or have expired, meanwhile.
    with contextlib.suppress(UnknownSessionError):
        await mend(connection, key)
