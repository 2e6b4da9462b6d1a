"""What tokens cost by the list, where an agent has not said what it paid."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import lru_cache
from typing import TypeAlias

from genai_prices import Usage, calc_price
from genai_prices.data_snapshot import get_snapshot

from ...models.totals import UsageRow
from ..queries.statistics import UsageStatistics
from ..transcripts.tokens import Tokens

# So few that no higher price for many at once applies.
_FEW = 1000
_PROVIDER = "anthropic"


Counts: TypeAlias = UsageRow | UsageStatistics | Tokens
"""Tokens by kind, as summaries, sums of them and transcripts count them.

``input`` is without what was read from the cache or written to it.
"""


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars for one token of each kind."""

    input: float
    output: float
    cache_creation: float
    cache_read: float

    def of(self, counts: Counts) -> float:
        """What so many tokens cost, in US dollars."""
        return (
            self.input * counts.input
            + self.output * counts.output
            + self.cache_creation * counts.cache_creation
            + self.cache_read * counts.cache_read
        )


@lru_cache(1024)
def price_of(model: str, day: str = "") -> Price | None:
    """The price of a model on a day such as ``2026-11-25``; ``None`` where nobody knows it.

    It is that of a cache that lasts five minutes and of a context without a surcharge for its
    length, for totals do not tell them apart.
    """
    try:
        at = datetime.fromisoformat(day).replace(tzinfo=timezone.utc)
    except ValueError:
        at = datetime.now(timezone.utc)
    kinds = {
        "input": Usage(input_tokens=_FEW),
        "output": Usage(output_tokens=_FEW),
        "cache_creation": Usage(input_tokens=_FEW, cache_write_tokens=_FEW),
        "cache_read": Usage(input_tokens=_FEW, cache_read_tokens=_FEW),
    }
    try:
        found = {
            kind: calc_price(
                usage, model, provider_id=_PROVIDER, genai_request_timestamp=at
            ).total_price
            for kind, usage in kinds.items()
        }
    except LookupError:
        return None
    return Price(**{kind: float(price) / _FEW for kind, price in found.items()})


@lru_cache(1024)
def context_of(model: str) -> int | None:
    """How many tokens a model's context holds at most; ``None`` where nobody knows it."""
    try:
        _, found = get_snapshot().find_provider_model(model, None, _PROVIDER, None)
    except LookupError:
        return None
    return found.context_window


@dataclass(frozen=True, slots=True)
class Cost:
    """What something cost, and how that is known."""

    own: float = 0.0
    """US dollars by the agents' own accounts."""
    estimated: float = 0.0
    """US dollars by the list, for tokens that no agent has accounted for."""
    is_estimated: bool = False
    """Whether some of it is an estimate, be it of nothing."""
    unknown: int = 0
    """Sessions of which neither is known; they are in neither sum."""

    @property
    def usd(self) -> float:
        """Both together."""
        return self.own + self.estimated

    @property
    def is_unknown(self) -> bool:
        """Whether nothing is known, so that there is no sum to show."""
        return bool(self.unknown) and not self.usd

    @property
    def is_partly_estimated(self) -> bool:
        """Whether one part is the agents' own and another an estimate."""
        return self.is_estimated and self.own != 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.own + other.own,
            self.estimated + other.estimated,
            self.is_estimated or other.is_estimated,
            self.unknown + other.unknown,
        )


def cost_of(own: float | None, usage: Iterable[UsageRow]) -> Cost:
    """The cost of one session: the agent's own account, or else an estimate from its tokens."""
    if own is not None:
        return Cost(own)
    used = [row for row in usage if has_tokens(row)]
    prices = [price_of(row.model, row.day) for row in used]
    if any(price is None for price in prices):
        return Cost(unknown=1)
    estimated = sum(price.of(row) for row, price in zip(used, prices, strict=True) if price)
    return Cost(estimated=estimated, is_estimated=bool(used))


def has_tokens(counts: Counts) -> bool:
    """Whether any were used."""
    return any((counts.input, counts.output, counts.cache_creation, counts.cache_read))
