"""Times as they are stored, which may be anybody's: none of them may be more than a wrong time."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)

_MAX_MS = 2**53


def moment_of_ms(value: object) -> datetime | None:
    """The moment of epoch milliseconds, UTC; ``None`` of what is no number or beyond the calendar.

    Microseconds that were taken for milliseconds are of the year 58875.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return EPOCH + timedelta(milliseconds=value)
    except (OverflowError, ValueError):
        return None


def whole_ms(value: object) -> int | None:
    """Epoch milliseconds that a file or document can have; ``None`` of what is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    # Not so of what is no number at all, either.
    return int(value) if -_MAX_MS < value < _MAX_MS else None
