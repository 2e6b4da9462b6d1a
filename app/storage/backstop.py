"""When MongoDB's TTL monitor may take a session's entries: never before its summary's date.

A session's one date is its summary's, by which all readers and writers go. Entries and chunks
carry a later one, for MongoDB alone: should nobody ever come by again, they still go. An append
moves the summary's date on within what the entries' dates allow, so it never touches them; a
mover (:mod:`..writing.dating`) follows in bounded batches, and the summary says how far it is.

``backstop`` in a summary is ``{"until", "next_seq"}`` and, while the dates are moved, ``"to"``:
no entry is dated before ``until`` (without it some have no date); new ones get ``to``, where
``None`` is no date. ``next_seq`` is the summary's own if nobody wrote who does not know of this:
release 0.1.0 gives entries the summary's date itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from types import NoneType
from typing import Any, NamedTuple, cast

from bson.int64 import Int64

from .expiry import Retention

Backstop = Mapping[str, Any]

FAR = datetime(9000, 1, 1, tzinfo=timezone.utc)
"""Where entries go first that are to have no date in the end.

As long as the summary has a date every entry must have one: readers look at it by that.
"""


def backstop_in(stored: object) -> Backstop | None:
    """What a summary says of its entries' dates; ``None`` of what something else put there."""
    if not isinstance(stored, Mapping):
        return None
    backstop = cast("Backstop", stored)
    is_sound = (
        isinstance(backstop.get("next_seq"), int)
        and isinstance(backstop.get("until", FAR), datetime)
        and isinstance(backstop.get("to"), (datetime, NoneType))
    )
    return backstop if is_sound else None


class Dated(NamedTuple):
    """The dates of a summary, as they are or as they become."""

    expires_at: datetime | None
    held_at: datetime | None
    backstop: Backstop | None
    next_seq: int

    @property
    def floor(self) -> datetime | None:
        """No entry is dated before this; ``None`` where some may have no date."""
        backstop = self.backstop
        if backstop is not None and backstop["next_seq"] == self.next_seq:
            return backstop.get("until")
        return self.expires_at

    @property
    def entry_date(self) -> datetime | None:
        """The date that a new entry gets."""
        backstop = self.backstop
        if backstop is None:
            return self.expires_at
        return backstop["to"] if "to" in backstop else backstop.get("until")

    @property
    def is_moving(self) -> bool:
        """Whether the dates of stored entries are on their way."""
        return self.backstop is not None and "to" in self.backstop

    @property
    def is_foreign(self) -> bool:
        """Whether somebody who does not know of backstops dated or wrote the session last."""
        if self.backstop is None:
            return self.expires_at is not None
        return self.backstop["next_seq"] != self.next_seq

    def carried_to(self, next_seq: int) -> Dated:
        """The same dates behind further entries."""
        if self.backstop is None:
            return self._replace(next_seq=next_seq)
        target = {"to": self.backstop["to"]} if self.is_moving else {}
        return self._replace(backstop=_backstop(self.floor, next_seq, target), next_seq=next_seq)

    def aim(self, to: datetime | None) -> datetime | None:
        """Where entries are to go next that should have the date ``to`` in the end."""
        return FAR if to is None and self.expires_at is not None else to

    def announced(self, to: datetime | None) -> Dated:
        """The same dates with entries on their way to ``to``.

        The floor falls at once, for so may the date of any entry from now on, and the summary's
        date with it: a policy may have become shorter since that was written.
        """
        to = self.aim(to)
        floor, expires_at = self.floor, self.expires_at
        if floor is not None and to is not None:
            floor = min(floor, to)
        if floor is not None and expires_at is not None:
            expires_at = min(expires_at, floor)
        backstop = _backstop(floor, self.next_seq, {"to": to})
        return self._replace(expires_at=expires_at, backstop=backstop)

    def until(self, wanted: datetime | None) -> datetime | None:
        """How far towards ``wanted`` the summary may be dated, entries being where they are."""
        floor = self.floor
        if self.expires_at is None or floor is None:
            # Until every entry has a date the summary has none: readers look at it by that.
            return self.expires_at
        return floor if wanted is None else min(wanted, floor)


def new_session(retention: Retention, now: datetime, next_seq: int) -> Dated:
    """The dates of a session that is made now."""
    date = retention.backstop(now)
    backstop = None if date is None else _backstop(date, next_seq, {})
    return Dated(retention.expiry(now), None, backstop, next_seq)


def appended(dated: Dated, retention: Retention, now: datetime, next_seq: int) -> Dated | None:
    """The dates of a session that is appended to; ``None`` if entries have to be moved before.

    That is so only behind writers of release 0.1.0, or a mover that failed for half a period.
    """
    if dated.backstop is None and dated.expires_at is None and retention.keep is None:
        return dated._replace(next_seq=next_seq)
    if dated.held_at is not None:
        return dated.carried_to(next_seq)
    wanted, to = retention.expiry(now), retention.backstop(now)
    is_due = retention.is_due(dated.expires_at, now)
    if not is_due and dated.backstop is not None:
        return dated.carried_to(next_seq)
    floor = dated.floor
    if retention.keep is not None and floor is not None and floor < now + retention.keep:
        return None
    becomes = dated._replace(expires_at=dated.until(wanted)) if is_due else dated
    date = dated.entry_date
    if retention.is_short(date, dated.aim(to)) or (dated.expires_at is None and date is None):
        becomes = becomes.announced(to)
    return becomes.carried_to(next_seq)


def _backstop(floor: datetime | None, next_seq: int, target: dict[str, Any]) -> dict[str, Any]:
    until = {} if floor is None else {"until": floor}
    return {**until, "next_seq": Int64(next_seq), **target}
