"""What the summary of a session says, read before it is changed."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

from bson import ObjectId

from ...models.counting.tally import Tally
from ...models.totals import TEXTS
from ..database.driver import ClientSession
from ..database.reads import retried
from ..database.transactions import snapshot
from ..errors import DamagedSealError, PlainContentsError
from ..stored_times import whole_ms
from ..transcript_key import TranscriptKey
from .connection import Connection
from .living import is_position, removed_in
from .seals import is_sealed, key_id_in, opened_state, subject_of_summary
from .state import DATA_FIELDS, HIGHEST, STATE_PROJECTION, SessionState
from .values import folded_data

_STATE_AND_METADATA: dict[str, Any] = {**STATE_PROJECTION, "metadata": 1, "packed_metadata": 1}


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
    connection: Connection,
    key: TranscriptKey,
    session: ClientSession | None,
    *,
    despite_damage: bool = False,
) -> SessionState | None:
    """The same as :func:`read_state`, as a client session sees it.

    With ``despite_damage`` nothing is known of what is said in a summary whose seal is broken, or
    missing where one is demanded; else that is an error.
    """
    row = await _state_row(connection, key, session)
    return await _state(connection, key, row, session, despite_damage)


async def _state_row(
    connection: Connection, key: TranscriptKey, session: ClientSession | None = None
) -> dict[str, Any] | None:
    # An aggregation, for not every engine knows $$NOW in the projection of a find.
    found = connection.summaries.find(key.of_session)
    fields = STATE_PROJECTION if connection.keyring is None else _STATE_AND_METADATA
    rows = await found.aggregate([{"$project": fields}], session=session).to_list()
    return rows[0] if rows else None


async def _state(
    connection: Connection,
    key: TranscriptKey,
    row: dict[str, Any] | None,
    session: ClientSession | None,
    despite_damage: bool = False,
) -> SessionState | None:
    if row is None:
        return None
    field = next((name for name in DATA_FIELDS if row.get(name) is not None), None)
    # Of a session that is gone nothing is read, and its key may be gone as well.
    said = _SummaryContents(None, {name: row.get(name) for name in TEXTS}, row.get("totals"))
    if not row["is_expired"]:
        try:
            said = await _said(connection, key, row, session, field)
        except (DamagedSealError, PlainContentsError):
            if not despite_damage:
                raise
            said = _SummaryContents(None, {}, None, has_plain=True)
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
        data=said.data,
        data_field=field,
        totals=_totals(row, said.totals, said.texts),
        stored_totals=said.totals,
        texts=said.texts,
        sealed_with=said.key_id,
        has_plain=said.has_plain,
        subject=said.subject,
        expires_at=row.get("expires_at"),
        held_at=row.get("held_at"),
        is_expired=row["is_expired"],
        erased_until=row["erased_until"] if row["is_erased"] else None,
        backstop=row.get("backstop"),
        first_seq=first_seq,
        has_remains=bool(row.get("remains") or removed),
    )


class _SummaryContents(NamedTuple):
    """What a summary has of what is said in the session."""

    data: Any
    texts: dict[str, Any]
    totals: Any
    key_id: ObjectId | None = None
    has_plain: bool = False
    subject: str = ""


async def _said(
    connection: Connection,
    key: TranscriptKey,
    row: dict[str, Any],
    session: ClientSession | None,
    field: str | None,
) -> _SummaryContents:
    texts: dict[str, Any] = {name: row.get(name) for name in TEXTS}
    totals: Any = row.get("totals")
    keyring = connection.keyring
    data: Any = None
    if field is not None:
        is_plain = keyring is None and field == "data"
        data = row["data"] if is_plain else await folded_data(connection, key, row, session)
    is_opened = is_sealed(row.get("sealed"))
    # Of totals that something else took away, all is counted anew.
    if is_opened and (keyring is None or isinstance(totals, dict)):
        texts, hidden = await opened_state(connection, key, row)
        whole = cast("dict[str, Any]", totals)
        whole = {**whole, "in_flight": {**whole.get("in_flight", {}), **hidden}}
        return _SummaryContents(data, texts, whole, key_id_in(row), _has_plain(row))
    if keyring is None:
        return _SummaryContents(data, texts, totals)
    if not is_opened and any(texts.values()):
        keyring.take_plain(f"The summary of {key}")
    return _SummaryContents(data, texts, totals, None, True, subject_of_summary(keyring, row))


def _has_plain(row: dict[str, Any]) -> bool:
    """Whether something plain stands beside what is sealed."""
    packed = row.get("packed_data")
    is_plain = row.get("data") is not None or (packed is not None and not is_sealed(packed))
    return is_plain or any(row.get(name) for name in TEXTS)


def _totals(row: dict[str, Any], totals: Any, texts: dict[str, Any]) -> Tally | None:
    """The totals of a summary, unless an older release has appended since they were counted."""
    try:
        return Tally.of(totals, texts) if totals["next_seq"] == row["next_seq"] else None
    except Exception:
        # There are none, or something else has written them: to be counted anew.
        return None
