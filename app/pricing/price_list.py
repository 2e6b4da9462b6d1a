"""The public list of prices, as the package ``genai-prices`` has it: dated, and read offline."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Mapping
from datetime import date, datetime, timezone
from functools import lru_cache
from typing import Any

from .token_price import MILLION, TokenPrice

_NAME = "genai_prices"
_PROVIDER = "anthropic"
# So few that no higher price for many at once applies.
_FEW = 1000

_KINDS: Mapping[str, dict[str, int]] = {
    "input": {"input_tokens": _FEW},
    "output": {"output_tokens": _FEW},
    "cache_creation": {"input_tokens": _FEW, "cache_write_tokens": _FEW},
    "cache_creation_1h": {
        "input_tokens": _FEW,
        "cache_write_tokens": _FEW,
        "cache_write_1h_tokens": _FEW,
    },
    "cache_read": {"input_tokens": _FEW, "cache_read_tokens": _FEW},
}


@lru_cache(1)
def _package() -> Any:
    """The package, or ``None`` where the extra ``prices`` is not installed."""
    try:
        return importlib.import_module(_NAME)
    except ImportError:
        return None


async def price_list_read() -> None:
    """Read it beside the event loop, for it takes a third of a second; as often as you like."""
    if not _package.cache_info().currsize:
        await asyncio.to_thread(_package)


def listed_price(model: str, day: date) -> TokenPrice | None:
    """The price of a model on a day, UTC; ``None`` where it has none.

    It is that of a context without a surcharge for its length, for totals do not tell that.
    """
    if _package() is None:
        return None
    return _price(model, day)


@lru_cache(4096)
def _price(model: str, day: date) -> TokenPrice | None:
    package = _package()
    at = datetime(day.year, day.month, day.day, 12, tzinfo=timezone.utc)
    try:
        found = {
            kind: package.calc_price(
                package.Usage(**tokens), model, provider_id=_PROVIDER, genai_request_timestamp=at
            ).total_price
            for kind, tokens in _KINDS.items()
        }
    except LookupError:
        return None
    return TokenPrice(**{kind: float(price * MILLION / _FEW) for kind, price in found.items()})


@lru_cache(1024)
def context_of(model: str) -> int | None:
    """How many tokens a model's context holds at most; ``None`` where nobody knows it."""
    if _package() is None:
        return None
    snapshot = importlib.import_module(f"{_NAME}.data_snapshot").get_snapshot()
    try:
        _, found = snapshot.find_provider_model(model, None, _PROVIDER, None)
    except LookupError:
        return None
    return found.context_window
