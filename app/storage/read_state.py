"""What the summary of a session says, read before it is changed."""

from __future__ import annotations

from typing import Any, cast

from ...models.counting.tally import Tally
from ...models.totals import TEXTS
from ..database.driver import ClientSession
from ..database.reads import retried
from ..database.transactions import snapshot
from ..stored_times import whole_ms
from ..transcript_key import TranscriptKey
from .connection import Connection
from .living import is_position, removed_in
from .state import DATA_FIELDS, HIGHEST, STATE_PROJECTION, SessionState
from .values import folded_data


async def read_state(connection: Connection, key: TranscriptKey) -> SessionState | None:
    """What the summary of the key's session says now, or ``None`` without one."""

    async def attempt() -> SessionState | None:
        row = await _state_row(connection, key)
        if row is None or row.get("data_chunks") is None:
            return await _state(connection, key, row, None)
        # Chunks and the count of them must be of one moment.
        async with snapshot(connection.client, connection.server) as session:
            return await state_in(connection, key, session)

    return await retried(connection.client, attempt)


async def state_in(
    connection: Connection, key: TranscriptKey, session: ClientSession | None
) -> SessionState | None:
    """The same as :func:`read_state`, as a client session sees it."""
    row = await _state_row(connection, key, session)
    return await _state(connection, key, row, session)


async def _state_row(
    connection: Connection, key: TranscriptKey, session: ClientSession | None = None
) -> dict[str, Any] | None:
    # An aggregation, for not every engine knows $$NOW in the projection of a find.
    found = connection.summaries.find(key.of_session)
    rows = await found.aggregate([{"$project": STATE_PROJECTION}], session=session).to_list()
    return rows[0] if rows else None


async def _state(
    connection: Connection,
    key: TranscriptKey,
    row: dict[str, Any] | None,
    session: ClientSession | None,
) -> SessionState | None:
    if row is None:
        return None
    field = next((name for name in DATA_FIELDS if row.get(name) is not None), None)
    data = row.get("data")
    if field is not None and data is None:
        data = await folded_data(connection, key, row, session)
    removed = row.get("removed")
    stored_first = row.get("first_seq")
    first_seq = int(stored_first) if is_position(stored_first) else 1
    lowest = max([first_seq, *(before for _, before in removed_in(removed))])
    stored_seq = row.get("next_seq")
    is_free = type(stored_seq) is int and lowest <= stored_seq <= HIGHEST
    return SessionState(
        id=row["_id"],
        next_seq=cast("int", stored_seq) if is_free else 0,
        stored_next_seq=stored_seq,
        lowest=lowest,
        nulls=tuple([name for name, value in row.items() if value is None]),
        mtime=whole_ms(row.get("mtime")),
        data=data,
        data_field=field,
        totals=_totals(row),
        stored_totals=row.get("totals"),
        texts={name: row.get(name) for name in TEXTS},
        expires_at=row.get("expires_at"),
        held_at=row.get("held_at"),
        is_expired=row["is_expired"],
        erased_until=row["erased_until"] if row["is_erased"] else None,
        backstop=row.get("backstop"),
        first_seq=first_seq,
        has_remains=bool(row.get("remains") or removed),
    )


def _totals(row: dict[str, Any]) -> Tally | None:
    """The totals of a summary, unless an older release has appended since they were counted."""
    try:
        totals = row["totals"]
        return Tally.of(totals, row) if totals["next_seq"] == row["next_seq"] else None
    except Exception:
        # There are none, or something else has written them: to be counted anew.
        return None
