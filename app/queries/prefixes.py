"""Strings that begin with another one."""

from __future__ import annotations

_LAST_CHARACTER = "\U0010ffff"


def beginning_with(text: str) -> dict[str, str]:
    """A criterion for strings that begin so, as an index finds them."""
    return {"$gte": text, "$lt": text + _LAST_CHARACTER}
