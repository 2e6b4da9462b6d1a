"""Charts as plain SVG: where bars, lines and words stand."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from .figure_filters import FigureFilters, day_in_words
from .usage_figures import UsageGroup, days_between
from .wording import MONTHS, dollars, shortened

TOP, BOTTOM = 12.0, 184.0
"""Where bars of the whole and of no length end, in pixels from above."""

_PERIODS: dict[str, Callable[[date], date]] = {
    "day": lambda day: day,
    "week": lambda day: day - timedelta(days=day.weekday()),
    "month": lambda day: day.replace(day=1),
}
"""The first day of the period that a day is in."""

_LARGEST = "month"
_MOST_BARS = 92
_LABELS = 5
_GAP = 0.14


@dataclass(frozen=True, slots=True)
class TimeBar:
    """A bar of two parts, in percent from the left and pixels from above."""

    label: str
    x: float
    width: float
    lower_top: float
    lower_height: float
    upper_top: float
    upper_height: float
    unknown: int
    tick: str
    """What stands below it, if anything."""

    @property
    def middle(self) -> float:
        """Its middle, in percent."""
        return self.x + self.width / 2

    @property
    def asks_at(self) -> float:
        """Where it is said that something is not known."""
        return max(min(self.lower_top, self.upper_top) - 5, TOP)


@dataclass(frozen=True, slots=True)
class Chart:
    """Bars over time."""

    says: str
    """The finding, for whoever does not see it."""
    lines: Sequence[tuple[float, str]]
    """Where lines of the scale are, and what they say."""
    bars: Sequence[TimeBar]
    of: str
    """What a bar stands for: a day, a week, a month."""


def chart_over_time(groups: Sequence[UsageGroup], wanted: FigureFilters) -> Chart:
    """A bar for each day, or for each week or month where there are too many."""
    of, period, days = _periods(wanted.since, wanted.until)
    parts = {first: [0.0, 0.0, 0] for first in days}
    for group in groups:
        day = _date(group.name)
        each = None if day is None else parts.get(period(day))
        if each is None:
            continue
        lower, upper = _parts(group, wanted.measure)
        each[0] += lower
        each[1] += upper
        each[2] += group.cost.unknown if wanted.measure == "cost" else 0
    sums = {first: max(each[0] + each[1], 0.0) for first, each in parts.items()}
    written = dollars if wanted.measure == "cost" else _tokens
    scale = _scale(max(sums.values(), default=0.0))
    ticks = _ticks(days, of)
    slot = 100 / len(days)
    bars: list[TimeBar] = []
    for number, first in enumerate(days):
        lower, upper, unknown = parts[first]
        low, high = (_height(size, scale[-1]) for size in (lower, lower + upper))
        bars.append(
            TimeBar(
                f"{_named(first, of)}: {written(sums[first])}"
                + (f", {int(unknown)} unknown" if unknown else ""),
                round(slot * (number + _GAP), 3),
                round(slot * (1 - 2 * _GAP), 3),
                BOTTOM - low,
                low,
                BOTTOM - high,
                max(high - low, 0.0),
                int(unknown),
                ticks.get(first, ""),
            )
        )
    lines = [(BOTTOM - _height(at, scale[-1]), _rounded(at, wanted.measure)) for at in scale]
    return Chart(_finding(sums, wanted, of, written), lines, bars, of)


def _parts(group: UsageGroup, measure: str) -> tuple[float, float]:
    """What is known for sure and what is estimated; or new tokens and those from the cache."""
    if measure == "cost":
        return max(group.cost.own, 0.0), max(group.cost.estimated, 0.0)
    return float(group.new_tokens), float(group.usage.cache_read)


def _periods(first: date, end: date) -> tuple[str, Callable[[date], date], list[date]]:
    """What a bar stands for, the first day of that of a day, and all of these."""
    days = days_between(first, end)
    for of, period in _PERIODS.items():
        firsts = sorted({period(day) for day in days})
        if len(firsts) <= _MOST_BARS:
            return of, period, firsts
    return _LARGEST, _PERIODS[_LARGEST], sorted({_PERIODS[_LARGEST](day) for day in days})


def _date(name: str) -> date | None:
    try:
        return date.fromisoformat(name)
    except ValueError:
        # No entry told the time.
        return None


def _scale(largest: float) -> list[float]:
    """Where lines are drawn: from nothing to what is as large as all, by round steps."""
    if largest <= 0:
        return [0.0, 1.0]
    power = 10 ** math.floor(math.log10(largest))
    step = next(
        each * power
        for each in (0.1, 0.2, 0.25, 0.5, 1, 2, 2.5)
        if largest / (each * power) <= _LABELS
    )
    return [step * number for number in range(math.ceil(largest / step - 1e-9) + 1)]


def _height(size: float, whole: float) -> float:
    return round((BOTTOM - TOP) * size / whole, 1)


def _tokens(size: float) -> str:
    return shortened(round(size))


def _rounded(size: float, measure: str) -> str:
    if measure == "tokens":
        return _tokens(size)
    return f"${size:,.0f}" if size == 0 or size >= 10 or size == int(size) else f"${size:.2f}"


def _ticks(days: Sequence[date], of: str) -> dict[date, str]:
    """Words below some of the bars, few enough for a phone."""
    chosen = [day for day in days if day.weekday() == 0] if of == "day" else list(days)
    chosen = chosen or list(days)
    chosen = chosen[:: math.ceil(len(chosen) / _LABELS)]
    return {
        day: f"{MONTHS[day.month - 1][:3]} {day.year}"
        if of == "month"
        else f"{day.day} {MONTHS[day.month - 1][:3]}"
        for day in chosen
    }


def _named(first: date, of: str) -> str:
    if of == "month":
        return f"{MONTHS[first.month - 1]} {first.year}"
    return f"{'week from ' if of == 'week' else ''}{day_in_words(first)}"


def _finding(
    sums: dict[date, float], wanted: FigureFilters, of: str, written: Callable[[float], str]
) -> str:
    what = "Cost" if wanted.measure == "cost" else "Tokens"
    days = f"{what} by {of} from {day_in_words(wanted.since)} to {day_in_words(wanted.last)}"
    whole = sum(sums.values())
    if not whole:
        return f"{days}: nothing."
    most = max(sums, key=lambda first: sums[first])
    return (
        f"{days}: {written(whole)} in all, most in {_named(most, of)} with {written(sums[most])}. "
        "The table below has every day."
    )


@dataclass(frozen=True, slots=True)
class Share:
    """A bar in a table, in percent of the longest."""

    lower: float
    upper: float


def shares(groups: Sequence[UsageGroup], measure: str) -> list[Share]:
    """How long the bars of groups are."""
    parts = [_parts(group, measure) for group in groups]
    largest = max((sum(each) for each in parts), default=0.0) or 1.0
    return [Share(*(round(100 * each / largest, 2) for each in both)) for both in parts]


def rate_scale(rates: Sequence[float]) -> float:
    """The error rate that is as long as a whole bar."""
    largest = max(rates, default=0.0)
    return next(each for each in (0.05, 0.1, 0.2, 0.5, 1.0) if largest <= each or each == 1.0)
