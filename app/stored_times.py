"""Times as they are stored, which may be anybody's: none of them may be more than a wrong time."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

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


def last_active(row: Mapping[str, Any]) -> datetime:
    """When a session was active last, by its summary as stored."""
    released_at = row.get("released_at")
    begun = _last_written(row)
    # The period begins anew when a hold ends.
    return max(begun, released_at) if isinstance(released_at, datetime) else begun


def _last_written(row: Mapping[str, Any]) -> datetime:
    active_at = row.get("active_at")
    if isinstance(active_at, datetime):
        return active_at
    # Written before there were dates of activity: the last append to the main transcript is
    # known, and no session was idle before it was made.
    created_at = row.get("created_at")
    made = created_at if isinstance(created_at, datetime) else _EPOCH
    return max(made, moment_of_ms(row.get("mtime")) or _EPOCH)
