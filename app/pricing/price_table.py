"""Which price holds: a team's own, or else that of the public list."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, timezone
from typing import TypeAlias, cast

from ..errors import InvalidPriceError
from ..text import shown
from .price_list import listed_price
from .token_price import TokenPrice

DatedPrices: TypeAlias = Mapping[date, TokenPrice]
"""Prices by the day (UTC) from which each holds."""


class PriceTable:
    """A team's own prices, by the name of the model as responses say it.

    ``PriceTable({"acme-opus": TokenPrice(4.5, 22.5)})``, or with the days from which prices hold,
    ``{"acme-opus": {date(2026, 1, 1): TokenPrice(5, 25), date(2026, 7, 1): TokenPrice(4, 20)}}``.
    Models that are not in it, and days before the first one, have the price of the public list,
    where the extra ``prices`` is installed.

    Raises:
        InvalidPriceError: it is no such mapping, or a model has no name or no price.
    """

    __slots__ = ("_prices",)

    def __init__(self, prices: Mapping[str, TokenPrice | DatedPrices] | None = None) -> None:
        if prices is not None and not isinstance(cast("object", prices), Mapping):
            raise InvalidPriceError(
                f"prices must be a mapping of models to prices, not {shown(prices)}."
            )
        self._prices = {model: _checked(model, price) for model, price in (prices or {}).items()}

    def price_of(self, model: str, day: str = "") -> TokenPrice | None:
        """The price of a model on a day such as ``2026-11-25``; ``None`` where nobody knows it.

        Without a day it is that of today.
        """
        on = _day_of(day) or datetime.now(timezone.utc).date()
        for begin, price in self._prices.get(model, ()):
            if begin is None or begin <= on:
                return price
        return listed_price(model, on)


PUBLIC_PRICES = PriceTable()
"""The public list alone."""


def checked_prices(prices: object) -> PriceTable:
    """A table of prices, that of the public list for ``None``.

    Raises:
        InvalidPriceError: it is none.
    """
    if prices is None:
        return PUBLIC_PRICES
    if not isinstance(prices, PriceTable):
        raise InvalidPriceError(
            f"prices must be a PriceTable or None, not {shown(prices)}. Write "
            'PriceTable({"model": TokenPrice(input=5, output=25)}), in US dollars for a million '
            "tokens."
        )
    return prices


def _checked(
    model: object, price: TokenPrice | DatedPrices
) -> list[tuple[date | None, TokenPrice]]:
    """The prices of a model, the latest first, as :class:`PriceTable` keeps them."""
    if not isinstance(model, str) or not model:
        raise InvalidPriceError(f"a model must have a name, not {shown(model)}.")
    if isinstance(price, TokenPrice):
        return [(None, price)]
    if not isinstance(cast("object", price), Mapping) or not price:
        raise InvalidPriceError(
            f"the price of {shown(model)} must be a TokenPrice, or a mapping of days to them, not "
            f"{shown(price)}."
        )
    for day, each in cast("Mapping[object, object]", price).items():
        if not isinstance(day, date) or isinstance(day, datetime):
            raise InvalidPriceError(
                f"prices of {shown(model)} must be by datetime.date, not {shown(day)}."
            )
        if not isinstance(each, TokenPrice):
            raise InvalidPriceError(
                f"a price of {shown(model)} must be a TokenPrice, not {shown(each)}."
            )
    return [(day, price[day]) for day in sorted(price, reverse=True)]


def _day_of(day: str) -> date | None:
    try:
        return date.fromisoformat(day)
    except ValueError:
        return None
