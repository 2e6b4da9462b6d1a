"""What tokens of a model cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ..errors import InvalidPriceError
from ..text import shown

# As the API prices its models, by the price of input.
_WRITTEN = 1.25
_WRITTEN_FOR_AN_HOUR = 2.0
_READ = 0.1
BEYOND_USD = 1e15
"""More than anything costs: below it, what costs come to stays finite."""
MILLION = 1_000_000
"""So many tokens a price is for."""


class TokenCounts(Protocol):
    """Tokens by kind, as summaries, sums of them and transcripts count them.

    ``input`` is without what was read from the cache or written to it.
    """

    @property
    def input(self) -> int: ...
    @property
    def output(self) -> int: ...
    @property
    def cache_creation(self) -> int: ...
    @property
    def cache_creation_1h(self) -> int | None: ...
    @property
    def cache_read(self) -> int: ...


@dataclass(frozen=True, slots=True)
class TokenPrice:
    """US dollars for a million tokens of each kind.

    Raises:
        InvalidPriceError: a price is no number from 0 on.
    """

    input: float
    output: float
    cache_creation: float | None = None
    """Written to the prompt cache for five minutes; ``None`` is 1.25 times the input."""
    cache_creation_1h: float | None = None
    """Written to it for an hour; ``None`` is twice the input."""
    cache_read: float | None = None
    """Read from it; ``None`` is a tenth of the input."""

    def __post_init__(self) -> None:
        for name in ("input", "output", "cache_creation", "cache_creation_1h", "cache_read"):
            value: object = getattr(self, name)
            if value is None and name.startswith("cache"):
                continue
            # NaN is nowhere between.
            if type(value) not in (int, float) or not 0 <= value < BEYOND_USD:  # pyright: ignore[reportOperatorIssue]
                raise InvalidPriceError(
                    f"{name} must be a number of US dollars for a million tokens, not "
                    f"{shown(value, 40)}."
                )

    def of(self, counts: TokenCounts) -> float:
        """What so many tokens cost, in US dollars.

        Where it is not known how long the cache keeps what was written to it, that is five minutes.
        """
        for_an_hour = counts.cache_creation_1h or 0
        written = _or(self.cache_creation, _WRITTEN * self.input)
        written_for_an_hour = _or(self.cache_creation_1h, _WRITTEN_FOR_AN_HOUR * self.input)
        return (
            self.input * counts.input
            + self.output * counts.output
            + written * (counts.cache_creation - for_an_hour)
            + written_for_an_hour * for_an_hour
            + _or(self.cache_read, _READ * self.input) * counts.cache_read
        ) / MILLION


def has_tokens(counts: TokenCounts) -> bool:
    """Whether any were used."""
    return any((counts.input, counts.output, counts.cache_creation, counts.cache_read))


def _or(price: float | None, usual: float) -> float:
    return usual if price is None else price
