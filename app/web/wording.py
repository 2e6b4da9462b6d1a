"""Figures, sizes and times in the words of the pages."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

_THOUSANDS = ("", "k", "M", "G", "T")
_BYTES = ("B", "kB", "MB", "GB", "TB")
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


def plural(count: int, what: str) -> str:
    """So many of something whose plural ends in an s, such as ``1 turn``."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def shortened(count: int) -> str:
    """A count of three telling digits, such as ``950``, ``96.4k`` or ``2.41M``."""
    value, unit = float(count), 0
    while abs(value) >= 999.5 and unit < len(_THOUSANDS) - 1:
        value, unit = value / 1000, unit + 1
    digits = 0 if unit == 0 or abs(value) >= 99.95 else 1 if abs(value) >= 9.995 else 2
    return f"{value:.{digits}f}{_THOUSANDS[unit]}"


def size(count: int) -> str:
    """A number of bytes, such as ``1.1 MB``."""
    value, unit = float(count), 0
    while abs(value) >= 999.5 and unit < len(_BYTES) - 1:
        value, unit = value / 1000, unit + 1
    digits = 1 if unit > 1 and abs(value) < 99.95 else 0
    return f"{value:.{digits}f} {_BYTES[unit]}"


def dollars(usd: float) -> str:
    """US dollars and cents; nothing but 0 is ``$0.00``."""
    if 0 < abs(usd) < 0.01:
        return "< $0.01" if usd > 0 else "> \N{MINUS SIGN}$0.01"
    return f"{'' if usd >= 0 else chr(0x2212)}${abs(usd):,.2f}"


def percent(part: float) -> str:
    """A part of a whole, 0 to 1, such as ``4.4 %``."""
    return f"{100 * part:.1f} %"


def lasting(seconds: float) -> str:
    """How long something took, in its two largest units, such as ``6 min 40 s``."""
    whole = max(int(seconds), 0)
    if whole < 60:
        return f"{whole} s"
    units = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))
    at = next(n for n, (length, _) in enumerate(units) if whole >= length)
    (first, name), (second, smaller) = units[at], units[at + 1]
    rest = whole % first // second
    return f"{whole // first} {name}" + (f" {rest} {smaller}" if rest else "")


def ago(moment: datetime, now: datetime) -> str:
    """How long ago something was, by one unit, such as ``4 s ago``."""
    count, unit, *_ = lasting((now - moment).total_seconds()).split(" ")
    return f"{count} {unit} ago"


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
    each.__name__: each
    for each in (counted, plural, shortened, size, dollars, percent, lasting, ago, clock, day, iso)
}
"""What templates know by name."""
