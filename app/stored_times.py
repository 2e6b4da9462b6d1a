"""Times as they are stored, which may be anybody's: none of them may be more than a wrong time."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

from .documents import Row

_MAX_MS = 2**53
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def moment_of_ms(value: object) -> datetime | None:
    """The moment of epoch milliseconds, UTC; ``None`` of what is no number or beyond the calendar.

    Microseconds that were taken for milliseconds are of the year 58875.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return _EPOCH + timedelta(milliseconds=value)
    except (OverflowError, ValueError):
        return None


def whole_ms(value: object) -> int | None:
    """Epoch milliseconds that a file or document can have; ``None`` of what is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    # Not so of what is no number at all, either.
    return int(value) if -_MAX_MS < value < _MAX_MS else None


class ActiveRow(Row):
    """What a summary says of when its session was active last."""

    active_at: Any = None
    mtime: Any = None
    created_at: Any = None
    released_at: Any = None

    @property
    def last_active(self) -> datetime:
        """When the session was active last, or was released from a hold."""
        begun, released_at = self._last_written, self.released_at
        # The period begins anew when a hold ends.
        return max(begun, released_at) if isinstance(released_at, datetime) else begun

    @property
    def _last_written(self) -> datetime:
        if isinstance(self.active_at, datetime):
            return self.active_at
        # Written before there were dates of activity: the last append to the main transcript is
        # known, and no session was idle before it was made.
        made = self.created_at if isinstance(self.created_at, datetime) else _EPOCH
        return max(made, moment_of_ms(self.mtime) or _EPOCH)
