"""How often a person is told how far something is."""

from __future__ import annotations

import sys
from collections.abc import Callable
from time import monotonic
from typing import TypeVar

T = TypeVar("T")


def at_most_every(seconds: float, tell: Callable[[T], None]) -> Callable[[T], None]:
    """``tell``, but silent until so many seconds have passed since it last spoke."""
    next_time = monotonic() + seconds

    def told(report: T) -> None:
        nonlocal next_time
        if monotonic() >= next_time:
            next_time = monotonic() + seconds
            tell(report)

    return told


def lines_on_progress() -> Callable[[object], None]:
    """A line on stderr every other second, which nobody takes for how it ended."""
    return at_most_every(2.0, lambda report: print(f"so far: {report}", file=sys.stderr))
