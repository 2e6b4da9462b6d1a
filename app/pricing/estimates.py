"""What usage would cost by a table of prices, and what of it has none."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from .price_table import PriceTable
from .token_price import TokenCounts, has_tokens


class DayUsage(TokenCounts, Protocol):
    """What one model took on one day."""

    @property
    def day(self) -> str: ...
    @property
    def model(self) -> str: ...


@dataclass(frozen=True, slots=True)
class DayTokens:
    """The same as plain values."""

    day: str
    model: str
    input: int
    output: int
    cache_creation: int
    cache_creation_1h: int | None
    cache_read: int


@dataclass(frozen=True, slots=True)
class Estimate:
    """What tokens cost by the prices of their days."""

    usd: float | None
    """US dollars, without the models that have no price; ``None`` where none of them has one."""
    unpriced: tuple[str, ...] = ()
    """The models that took tokens and have no price: what they cost is not in ``usd``."""


def estimate(rows: Iterable[DayUsage], prices: PriceTable) -> Estimate:
    """What usage costs; of nothing that is 0."""
    usd: float | None = None
    unpriced: set[str] = set()
    for row in rows:
        if not has_tokens(row):
            continue
        price = prices.price_of(row.model, row.day)
        if price is None:
            unpriced.add(row.model)
        else:
            usd = (usd or 0.0) + price.of(row)
    if usd is None and not unpriced:
        usd = 0.0
    return Estimate(usd, tuple(sorted(unpriced)))
