"""Taking samples side by side, and what they say."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

_RESAMPLES = 1000


@dataclass(frozen=True)
class Samples:
    """What one contender took, one value per round."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return median(self.values)

    def percentile(self, percent: float) -> float:
        """The value below which ``percent`` of the samples are."""
        ordered = sorted(self.values)
        return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


@dataclass(frozen=True)
class Ratio:
    """A ratio of medians, with the interval that 95 of 100 resamplings of the rounds fall in."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"


Turn = Callable[[], Awaitable[float]]
"""One contender's part of a round; it returns what is compared."""


async def interleaved(
    turns: Mapping[str, Turn], rounds: int, warm_up: int = 3
) -> dict[str, Samples]:
    """Let each contender take its turn in every round, in shuffled order.

    Whatever slows the machine for a while then slows all of them.
    """
    order = list(turns)
    shuffle = random.Random(rounds).shuffle
    values: dict[str, list[float]] = {name: [] for name in order}
    for number in range(-warm_up, rounds):
        shuffle(order)
        if not number:
            _settle()
        for name in order:
            value = await turns[name]()
            if number >= 0:
                values[name].append(value)
    gc.unfreeze()
    return {name: Samples(tuple(values[name])) for name in turns}


def _settle() -> None:
    # What the libraries made at import is not walked again in somebody's turn.
    gc.collect()
    gc.freeze()


async def elapsed(work: Callable[[], Awaitable[object]]) -> float:
    """Milliseconds by the clock that ``work`` takes."""
    begin = time.perf_counter()
    await work()
    return (time.perf_counter() - begin) * 1000


async def processor_time(work: Callable[[], Awaitable[object]]) -> float:
    """Milliseconds of this process's processor time that ``work`` takes."""
    begin = time.process_time()
    await work()
    return (time.process_time() - begin) * 1000


def ratio(above: Samples, below: Samples) -> Ratio:
    """How many times ``below`` the median of ``above`` is; both are of the same rounds."""
    count = len(above.values)
    pick = random.Random(count)
    found: list[float] = []
    for _ in range(_RESAMPLES):
        rounds = pick.choices(range(count), k=count)
        found.append(_median_of(above.values, rounds) / _median_of(below.values, rounds))
    found.sort()
    at = int(_RESAMPLES * 0.025)
    return Ratio(above.median / below.median, found[at], found[-1 - at])


def _median_of(values: Sequence[float], rounds: Sequence[int]) -> float:
    return median([values[index] for index in rounds])
