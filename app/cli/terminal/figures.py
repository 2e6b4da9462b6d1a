"""Numbers and times as people read them at a glance."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone

from ...retention.script import parsed

_DAY_OR_MINUTE = re.compile(r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d)([Zz]|[+-]\d\d:\d\d)?)?", re.ASCII)
_STEPS = ((60, "s"), (60, "m"), (24, "h"), (14, "d"))


def shortened(count: int | None) -> str:
    """A count of at most six characters, such as ``950``, ``45.2k`` or ``3.4M``."""
    if count is None:
        return "-"
    size = float(count)
    for unit in ("", "k", "M", "G"):
        if size < 999.95:
            return f"{count}" if not unit else f"{size:.1f}{unit}"
        size /= 1000
    return f"{size:.1f}T"


def counted(count: int, what: str) -> str:
    """So many of something whose plural ends in an s."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def dollars(cost: float | None) -> str:
    """A cost in US dollars and cents."""
    if cost is None:
        return "-"
    return "<$0.01" if 0 < cost < 0.005 else f"${cost:.2f}"


def ago(moment: datetime | None, now: datetime) -> str:
    """How long ago something was, or on which day (UTC) if that is longer than two weeks."""
    if moment is None:
        return "-"
    size = max((now - moment).total_seconds(), 0)
    for step, unit in _STEPS:
        if size < step:
            return f"{int(size)}{unit} ago"
        size /= step
    return f"{moment.astimezone(timezone.utc):%Y-%m-%d}"


def stamp(moment: datetime | None) -> str:
    """A moment in UTC, as one word."""
    return "-" if moment is None else f"{moment.astimezone(timezone.utc):%Y-%m-%dT%H:%M:%SZ}"


def moment_of(text: str, now: datetime) -> datetime:
    """The moment that ``7d`` (ago), ``2026-11-25`` or ``2026-11-25T14:30`` says, UTC if not said.

    Raises:
        ValueError: it is none of these.
    """
    if re.fullmatch(r"[0-9]{1,9}[wdhms]", text):
        try:
            return now - (parsed(text) or timedelta())
        except OverflowError:
            return datetime.min.replace(tzinfo=timezone.utc)
    said = _DAY_OR_MINUTE.fullmatch(text)
    written = text
    if said is not None:
        day, minute, zone = said.groups()
        written = f"{day}T{minute or '00:00'}:00{zone or ''}"
    # The models take Beanie, which nobody waits for who asks for help.
    from ....models.views.moments import moment as moment_written

    found = moment_written(written)
    if found is None:
        raise ValueError(
            f"{text!r} is no time: write 7d or 12h (ago), 2026-11-25, or 2026-11-25T14:30"
        )
    return found
