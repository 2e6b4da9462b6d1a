"""Holding a session, so that it does not expire, and releasing it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from ..database.transactions import holds_already
from ..storage.background import go_on
from ..storage.backstop import Dated
from ..storage.connection import Connection
from ..storage.expiry import Retention
from ..transcript_key import TranscriptKey
from ..writing.dating import DatedRow, change_dates, follow

# Moved in a fraction of a second.
_FEW_ENTRIES = 2_000
_NEAR = timedelta(hours=1)
_ENTRIES_FOLLOW = (
    "and the dates of its entries follow with the next append or sweep; calling it again is safe"
)


async def hold(connection: Connection, key: TranscriptKey, *, wait: bool = False) -> None:
    """Keep a session from expiring until it is released; ``wait`` for its entries' dates too.

    Raises:
        UnknownSessionError: there is no such session, or it has expired.
    """

    def held(row: DatedRow, _: Retention) -> tuple[Dated, dict[str, Any]] | None:
        if row.held_at is not None:
            return None
        dated = row.dated
        # As far as the entries' dates allow, until they have none.
        dated = dated._replace(expires_at=dated.until(None), held_at=connection.server.now())
        return (dated.announced(None) if _has_dates(dated) else dated), {}

    await change_dates(connection, key, held)
    with holds_already(f"it is held, {_ENTRIES_FOLLOW}"):
        summaries = connection.summaries
        row = await summaries.find_one(key.of_session, rows=DatedRow)
        date = None if row is None else row.dated.expires_at
        # What the release before dated has no time to spare.
        is_near = date is not None and date < connection.server.now() + _NEAR
        await _follow_up(connection, key, wait or is_near)


async def release(connection: Connection, key: TranscriptKey, *, wait: bool = False) -> None:
    """Let a session that was held expire again: its period begins now.

    Raises:
        UnknownSessionError: there is no such session.
    """
    now = connection.server.now()

    def released(row: DatedRow, retention: Retention) -> tuple[Dated, dict[str, Any]]:
        dated = row.dated
        wanted, to = retention.expiry(now), retention.backstop(now)
        dated = dated._replace(expires_at=dated.until(wanted), held_at=None)
        fields = {"released_at": now}
        return (dated.announced(to) if to is not None or _has_dates(dated) else dated), fields

    await change_dates(connection, key, released)
    with holds_already(f"it is released, {_ENTRIES_FOLLOW}"):
        await _follow_up(connection, key, wait)


def _has_dates(dated: Dated) -> bool:
    return dated.expires_at is not None or dated.backstop is not None


async def _follow_up(connection: Connection, key: TranscriptKey, wait: bool) -> None:
    """Move the entries' dates: at once where that is quick, else in the background."""
    summaries = connection.summaries
    row = await summaries.find_one(key.of_session, rows=DatedRow)
    if row is not None and (wait or row.entries <= _FEW_ENTRIES):
        await follow(connection, key)
    else:
        go_on(connection, key, follow)
