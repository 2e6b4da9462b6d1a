"""Figures, sizes and times in the words of the pages."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

from ..rendering.amounts import counted as plural

_THOUSANDS = ("", "k", "M", "G", "T")
MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
_DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]


def counted(count: int) -> str:
    """A whole number, such as ``19,736``."""
    return f"{count:,}"


def shortened(count: int) -> str:
    """A count of three telling digits, such as ``950``, ``96.4k`` or ``2.41M``."""
    value, unit = float(count), 0
    while abs(value) >= 999.5 and unit < len(_THOUSANDS) - 1:
        value, unit = value / 1000, unit + 1
    digits = 0 if unit == 0 or abs(value) >= 99.95 else 1 if abs(value) >= 9.995 else 2
    return f"{value:.{digits}f}{_THOUSANDS[unit]}"


def dollars(usd: float) -> str:
    """US dollars and cents; nothing but 0 is ``$0.00``."""
    if 0 < abs(usd) < 0.01:
        return "< $0.01" if usd > 0 else "> \N{MINUS SIGN}$0.01"
    return f"{'' if usd >= 0 else chr(0x2212)}${abs(usd):,.2f}"


def percent(part: float) -> str:
    """A part of a whole, 0 to 1, such as ``4.4 %``."""
    return f"{100 * part:.1f} %"


def ago(moment: datetime, now: datetime) -> str:
    """How long ago something was, by one unit, such as ``4 s ago``."""
    past = max(int((now - moment).total_seconds()), 0)
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if past >= length:
            return f"{past // length} {unit} ago"
    return f"{past} s ago"


def clock(moment: datetime) -> str:
    """Hours and minutes, UTC."""
    return f"{moment.astimezone(timezone.utc):%H:%M}"


def day(moment: datetime, now: datetime) -> str:
    """The day of a moment (UTC) as a heading, such as ``Today, 27 November``."""
    date, today = (each.astimezone(timezone.utc).date() for each in (moment, now))
    written = f"{date.day} {MONTHS[date.month - 1]}"
    past = (today - date).days
    if past in (0, 1):
        return f"{('Today', 'Yesterday')[past]}, {written}"
    year = "" if date.year == today.year else f" {date.year}"
    return f"{_DAYS[date.weekday()]}, {written}{year}"


def iso(moment: datetime) -> str:
    """The moment as HTML has it, UTC."""
    return f"{moment.astimezone(timezone.utc):%Y-%m-%dT%H:%M:%SZ}"


FILTERS: dict[str, Callable[..., Any]] = {
    "plural": plural,
    **{each.__name__: each for each in (counted, shortened, dollars, percent, ago, clock, iso)},
}
"""What templates know by name."""
