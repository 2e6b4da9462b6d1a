"""Days put together to so few periods that a person sees them all."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import date, timedelta

_MOST = 31


def periods(days: Collection[date], until: date | None) -> tuple[list[str], Callable[[date], str]]:
    """The names of all periods from the first day to the last one, and that of a day's.

    They are days, weeks (named by their Monday), months or years: the shortest of which there
    are 31 at most. Those in which nothing was are among them, up to and including ``until``.
    """
    first, last = min(days), max(days)
    if until is not None:
        last = max(last, until)
    for name in (_day, _week, _month):
        found = _names(first, last, name)
        if len(found) <= _MOST:
            return found, name
    return _names(first, last, _year)[-_MOST:], _year


def _names(first: date, last: date, name: Callable[[date], str]) -> list[str]:
    found: dict[str, None] = {}
    day = first
    # No further than it takes to see that there are too many.
    while day < last and (len(found) <= _MOST or name is _year):
        found[name(day)] = None
        day += min(_STEPS[name], last - day)
    found[name(last)] = None
    return list(found)


def _day(day: date) -> str:
    return day.isoformat()


def _week(day: date) -> str:
    return (day - timedelta(days=day.weekday())).isoformat()


def _month(day: date) -> str:
    return f"{day:%Y-%m}"


def _year(day: date) -> str:
    return f"{day.year:04}"


# Such that none is passed over.
_STEPS: dict[Callable[[date], str], timedelta] = {
    _day: timedelta(days=1),
    _week: timedelta(days=7),
    _month: timedelta(days=28),
    _year: timedelta(days=365),
}
