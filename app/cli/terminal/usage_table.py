"""Usage by group, as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .figures import dollars, shortened
from .tables import Column, console, print_table

if TYPE_CHECKING:
    from ...queries.statistics import UsageStatistics

_ALL = "all"
_TOKENS = {
    "INPUT": "input",
    "OUTPUT": "output",
    "TO-CACHE": "cache_creation",
    "CACHED": "cache_read",
}
_GAP = 2


def print_usage(groups: Sequence[str], rows: Sequence[UsageStatistics]) -> None:
    """Print a row each, the groups in front; a row without a group is the sum of all.

    A terminal has a column for sessions without a cost only if there are any. Where it has no room
    for it all, replies are left out, then tokens of all kinds are one number, and the groups are
    cut, but no number is.
    """
    out = console()
    numbers = [_SESSIONS, _REPLIES, *map(_tokens, _TOKENS), _COST, _ESTIMATED]
    if not out.is_terminal or any(row.without_cost for row in rows):
        numbers.append(_WITHOUT_COST)
    named = [_group(group, number, 1.0) for number, group in enumerate(groups)]
    if out.is_terminal and _width([*named, *numbers], rows) > out.width:
        numbers.remove(_REPLIES)
    if out.is_terminal and _width([*named, *numbers], rows) > out.width:
        numbers = [_SESSIONS, _ALL_TOKENS, _COST, _ESTIMATED]
        room = (out.width - _width(numbers, rows)) / len(groups) - _GAP
        largest = max(room / out.width, 0.1)
        named = [_group(group, number, largest) for number, group in enumerate(groups)]
    print_table([*named, *numbers], rows)


def all_tokens(row: UsageStatistics) -> int:
    """Tokens of all kinds."""
    return sum(getattr(row, name) for name in _TOKENS.values())


def spelled(value: object) -> str:
    """What makes a group, as text."""
    return "" if value is None else str(value)


def _of_group(row: UsageStatistics, group: str) -> str:
    return spelled(row.group[group]) if row.group else _ALL


def _group(group: str, number: int, largest: float) -> Column[UsageStatistics]:
    return Column(
        group.removesuffix("_key").removeprefix("metadata.").upper(),
        lambda row: _of_group(row, group) if row.group or number == 0 else "",
        largest=max(largest, 0.1),
        style="cyan" if number == 0 else "",
    )


def _tokens(title: str) -> Column[UsageStatistics]:
    name = _TOKENS[title]
    return Column(
        title,
        lambda row: str(getattr(row, name)),
        lambda row: shortened(getattr(row, name)),
        is_number=True,
    )


def _width(columns: Sequence[Column[UsageStatistics]], rows: Sequence[UsageStatistics]) -> int:
    """What a terminal needs for a table."""
    texts = [[column.title, *map(column.short or column.whole, rows)] for column in columns]
    return sum(max(map(len, each)) + _GAP for each in texts) - _GAP


_SESSIONS: Column[UsageStatistics] = Column(
    "SESSIONS", lambda row: str(row.sessions), is_number=True
)
_REPLIES: Column[UsageStatistics] = Column(
    "REPLIES", lambda row: str(row.responses), is_number=True
)
_ALL_TOKENS: Column[UsageStatistics] = Column(
    "TOKENS",
    lambda row: str(all_tokens(row)),
    lambda row: shortened(all_tokens(row)),
    is_number=True,
)
_COST: Column[UsageStatistics] = Column(
    "COST",
    lambda row: "" if row.cost_usd is None else f"{row.cost_usd:.6f}",
    lambda row: dollars(row.cost_usd),
    is_number=True,
)
_ESTIMATED: Column[UsageStatistics] = Column(
    "EST",
    lambda row: "" if row.estimated_usd is None else f"{row.estimated_usd:.6f}",
    lambda row: dollars(row.estimated_usd),
    is_number=True,
)
_WITHOUT_COST: Column[UsageStatistics] = Column(
    "NO-COST", lambda row: str(row.without_cost), is_number=True
)
