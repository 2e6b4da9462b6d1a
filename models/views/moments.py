"""When something was, as an entry writes it, read the same by every Python.

The rule is the ``date-time`` of RFC 3339, such as ``2026-11-25T09:30:00.123Z``: the whole date and
time with seconds, a fraction of any length, ``Z`` or an offset; a time without either is UTC. What
else ISO 8601 has (dates alone, weeks, forms without dashes or colons, a comma, the hour 24) is
none, for ``datetime.fromisoformat`` takes some of it in one Python and not in the next.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone

_DATE_TIME = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d+))?(?:[Zz]|([+-])(\d\d):(\d\d))?",
    re.ASCII,
)
_USUAL_LENGTH = len("2026-11-25T09:30:00.123Z")


def moment(written: object) -> datetime | None:
    """The moment that a text means, in UTC; ``None`` where it means none.

    Digits beyond microseconds are dropped. A leap second is none that Python has.
    """
    if not isinstance(written, str):
        return None
    try:
        # As agents write it, and in a fifth of the time. All that it could mean else is ruled out.
        if (
            len(written) == _USUAL_LENGTH
            and written[4:20:3] == "--T::."
            and written[23] == "Z"
            and written[11:13] != "24"
        ):
            return datetime.fromisoformat(f"{written[:23]}+00:00")
        return _moment(written)
    except (ValueError, OverflowError):
        return None


def _moment(written: str) -> datetime | None:
    found = _DATE_TIME.fullmatch(written)
    if found is None:
        return None
    *parts, fraction, sign, hours, minutes = found.groups()
    year, month, day, hour, minute, second = map(int, parts)
    microsecond = int((fraction or "0")[:6].ljust(6, "0"))
    local = datetime(year, month, day, hour, minute, second, microsecond, timezone.utc)
    if sign is None:
        return local
    if int(hours) > 23 or int(minutes) > 59:
        return None
    offset = timedelta(hours=int(hours), minutes=int(minutes))
    return local - offset if sign == "+" else local + offset


def stored_moment(written: object) -> datetime | None:
    """The same as BSON keeps it, in whole milliseconds."""
    at = moment(written)
    if at is None:
        return None
    excess = at.microsecond % 1000
    return at - timedelta(microseconds=excess) if excess else at


def day_of(at: datetime | None) -> str:
    """The day of a moment, such as ``2026-11-25``; "" without one."""
    return "" if at is None else at.date().isoformat()


def are_ordered_as_texts(times: Sequence[str]) -> bool:
    """Whether the first and the last of times are the first and the last of the texts.

    What of this length has a ``T`` there and is a time has no offset.
    """
    is_usual = {_USUAL_LENGTH}.issuperset(map(len, times))
    return is_usual and "".join(times)[10::_USUAL_LENGTH] == "T" * len(times)
