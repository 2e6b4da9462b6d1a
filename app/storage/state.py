"""A session's folded state: read, folded on, written and remembered."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, cast

from bson import ObjectId

from ...models.counting.marks import Mark, Wanted
from ...models.counting.tally import Tally
from ...models.totals import TEXTS
from ..sdk import SessionKey, SessionStoreEntry, SessionSummaryEntry
from ..transcript_key import TranscriptKey
from .backstop import Backstop, Dated, backstop_in
from .criteria import ERASED, EXPIRED

logger = logging.getLogger("beanie_session_store.storage")

DATA_FIELDS = ("data", "packed_data", "data_chunks")
"""Where a summary keeps the fold: natively, packed, or the number of chunks."""

STATE_PROJECTION: dict[str, Any] = {
    **dict.fromkeys(
        (
            *("next_seq", "mtime", *DATA_FIELDS, "totals", *TEXTS, "expires_at", "held_at"),
            *("backstop", "first_seq", "remains", "removed", "erased_until", "sealed"),
        ),
        1,
    ),
    "is_expired": EXPIRED["$expr"],
    "is_erased": ERASED["$expr"],
}

HIGHEST = 2**62
"""No position of a session is behind this: there must be room for what is still to come."""

# Both bound the memory of one store, however many sessions pass through it.
_MAX_STATES = 1024
_MAX_STATES_SIZE = 8 * 1024 * 1024


class SessionState(NamedTuple):
    """A session's summary as last seen; ``id`` and ``next_seq`` tell whether it still holds."""

    id: ObjectId
    next_seq: int
    mtime: int | None
    """Epoch milliseconds of the last append to the main transcript, or ``None`` without one."""
    data: Mapping[str, Any] | None
    """The SDK's fold, or ``None`` while the main transcript is empty."""
    data_field: str | None
    """Which of ``DATA_FIELDS`` keeps the fold in the database."""
    totals: Tally | None
    """What the session did, or ``None`` where an older release has written to it since."""
    texts: Mapping[str, str | None]
    """The texts that the summary has in the database, by the names in ``TEXTS``."""
    expires_at: datetime | None = None
    held_at: datetime | None = None
    stored_totals: Mapping[str, Any] | None = None
    """The totals as they were read, word for word."""
    is_expired: bool = False
    """Whether its date had passed, by the server's clock, when it was read, or it was deleted."""
    erased_until: datetime | None = None
    """Until when nobody may begin it again; ``None`` of a session that was not erased."""
    backstop: Backstop | None = None
    first_seq: int = 1
    """The position of its first entry; those before it are remains of another session."""
    has_remains: bool = False
    """Whether there was something to sweep when it was read."""
    stored_next_seq: object = None
    """What the summary has for ``next_seq``, where that is no position; then that is 0."""
    lowest: int = 1
    """No entry of the session stands before this, so no new one may."""
    nulls: tuple[str, ...] = ()
    """Fields that are there without a value, as something else than the store leaves them."""
    sealed_with: ObjectId | None = None
    """The key that its contents are sealed with."""
    has_plain: bool = False
    """Whether something is plain in it that is to be sealed."""
    subject: str = ""
    """Of whom the session is, where nothing of it is sealed yet."""

    @property
    def dated(self) -> Dated:
        """Its dates, and how they bind those of its entries."""
        expires_at = self.expires_at if isinstance(self.expires_at, datetime) else None
        return Dated(expires_at, self.held_at, backstop_in(self.backstop), self.next_seq)

    @property
    def size(self) -> int:
        """About how much memory it takes, in characters of the fold's texts."""
        texts = sum(map(len, map(str, (self.data or {}).values())))
        return texts + (self.totals.size if self.totals else 0)


class Folded(NamedTuple):
    """The state of a summary with a batch folded in."""

    data: Mapping[str, Any] | None
    """The SDK's fold, or ``None`` where the batch is a subagent's."""
    totals: Tally
    marks: Mapping[int, Mark]
    """What those entries of the batch carry besides that were counted, by position."""
    wanted: Wanted
    """What must be looked up if not all that was counted is new."""


def fold(
    state: SessionState | None,
    key: TranscriptKey,
    entries: Sequence[Mapping[str, Any]],
    copied: int,
) -> Folded:
    """``entries`` of one transcript folded onto ``state``, whose totals must be known.

    The first ``copied`` of them are the history of another session.

    They are counted on in place, so ``state`` is good for nothing else but to be replaced.
    """
    known = state if state is not None and not state.is_expired else None
    totals = known.totals if known is not None and known.totals is not None else Tally()
    first_seq = known.next_seq if known is not None else 1
    marks = totals.add(entries, key.subpath, first_seq, copied)
    if not key.is_main:
        return Folded(None, totals, marks, totals.wanted)
    data = fold_on(known.data if known is not None else None, key, entries)
    return Folded(data, totals, marks, totals.wanted)


def fold_on(
    data: Mapping[str, Any] | None, key: TranscriptKey, entries: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """The SDK's fold of ``entries`` onto ``data``, or onto nothing.

    An entry that the SDK's fold cannot take (a timestamp outside the calendar, say) is stored
    all the same and left out of the fold: losing the entry would be worse.
    """
    from claude_agent_sdk import fold_session_summary

    session_key: SessionKey = {"project_key": key.project_key, "session_id": key.session_id}
    summary: SessionSummaryEntry | None = None
    if data is not None:
        summary = {"session_id": key.session_id, "mtime": 0, "data": dict(data)}
    batch = cast("list[SessionStoreEntry]", list(entries))
    try:
        return fold_session_summary(summary, session_key, batch)["data"]
    except Exception:
        pass
    for entry in batch:
        try:
            summary = fold_session_summary(summary, session_key, [entry])
        except Exception:
            logger.warning("The SDK cannot fold an entry of %s; it is stored unfolded.", key)
    return summary["data"] if summary is not None else {}


class StateCache:
    """The last-known states of the sessions written to most recently."""

    def __init__(self) -> None:
        self._states: OrderedDict[TranscriptKey, tuple[SessionState, int]] = OrderedDict()
        self._size = 0

    def take(self, session: TranscriptKey) -> SessionState | None:
        """The state that was put last, if it is still remembered; forgotten from now on."""
        state, size = self._states.pop(session, (None, 0))
        self._size -= size
        return state

    def end_of(self, session: TranscriptKey) -> int | None:
        """The position that was free when this store wrote last, if that is remembered."""
        state, _ = self._states.get(session, (None, 0))
        return None if state is None else state.next_seq

    def put(self, session: TranscriptKey, state: SessionState) -> None:
        """Remember a state, and forget the oldest ones where there are too many."""
        self.take(session)
        size = state.size
        # One large fold is not worth forgetting many others for.
        if size > _MAX_STATES_SIZE // 8:
            return
        self._states[session] = (state, size)
        self._size += size
        while len(self._states) > _MAX_STATES or self._size > _MAX_STATES_SIZE:
            _, (_, oldest_size) = self._states.popitem(last=False)
            self._size -= oldest_size

    def clear(self) -> None:
        """Forget every state."""
        self._states.clear()
        self._size = 0

    def __len__(self) -> int:
        return len(self._states)
