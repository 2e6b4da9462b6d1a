"""What a section of the benchmark found."""

from __future__ import annotations

from dataclasses import dataclass, field

from .measures import Samples


@dataclass(frozen=True)
class Verdict:
    """A target, what was measured, and whether that reaches it."""

    target: str
    measured: str
    is_reached: bool


@dataclass(frozen=True)
class Chart:
    """Bars of one kind side by side: a group per situation, a bar per contender."""

    title: str
    unit: str
    groups: dict[str, dict[str, Samples]]


@dataclass
class Section:
    """One dimension of the benchmark: a table, and what follows from it."""

    title: str
    note: str
    columns: list[str]
    rows: list[list[str]] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    charts: list[Chart] = field(default_factory=list)


def spread(samples: Samples) -> str:
    """Median and the range of the middle 80 of 100 samples."""
    low, high = samples.percentile(10), samples.percentile(90)
    return f"{_short(samples.median)} ({_short(low)} to {_short(high)})"


def _short(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
