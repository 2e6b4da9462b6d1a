"""From when to when a session goes, by the times of its entries."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from ..views.moments import are_ordered_as_texts, stored_moment


class Span:
    """The earliest and the latest time of entries, in whatever order they come."""

    __slots__ = ("first_at", "last_at")

    def __init__(self, first_at: datetime | None = None, last_at: datetime | None = None) -> None:
        self.first_at = first_at
        self.last_at = last_at

    def add(self, times: Sequence[str]) -> None:
        """Take in what entries have for their times."""
        if len(times) > 2 and are_ordered_as_texts(times):
            earliest, latest = stored_moment(min(times)), stored_moment(max(times))
            if earliest is not None and latest is not None:
                return self._extend(earliest, latest)
        for at in map(stored_moment, times):
            if at is not None:
                self._extend(at, at)

    def _extend(self, earliest: datetime, latest: datetime) -> None:
        if self.last_at is None or latest > self.last_at:
            self.last_at = latest
        if self.first_at is None or earliest < self.first_at:
            self.first_at = earliest
