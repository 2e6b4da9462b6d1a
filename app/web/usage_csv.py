"""Figures as CSV, as spreadsheets open it."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence

from ..queries.statistics import ToolStatistics
from ..text import plain
from .usage_figures import UsageGroup

# What a spreadsheet would take for a formula; names such as "-srv-shop" it only fails to read.
_FORMULA = re.compile(r"[=+@\t\r]|-(?![\w.-]*\Z)")


def csv_of_usage(name: str, groups: Sequence[UsageGroup]) -> bytes:
    """Groups with tokens, and cost in US dollars of six digits; what is not known is empty.

    ``unaccounted_usd`` is of sessions without an account alone, for the sum with ``own_usd``;
    ``estimated_usd`` is of all tokens.
    """
    head = [
        *(name, "sessions", "responses", "input", "output", "cache_creation", "cache_read"),
        *("cache_creation_1h", "incomplete", "own_usd", "unaccounted_usd", "estimated_usd"),
        *("unknown_sessions", "unpriced_models"),
    ]
    rows = [
        [
            _text(group.name),
            *(group.usage.sessions, group.usage.responses, group.usage.input),
            *(group.usage.output, group.usage.cache_creation, group.usage.cache_read),
            *(group.usage.cache_creation_1h, group.usage.incomplete),
            # What nobody has accounted for is no cost of nothing.
            "" if group.usage.cost_usd is None else f"{group.cost.own:.6f}",
            f"{group.cost.estimated:.6f}" if group.cost.is_estimated else "",
            "" if group.usage.estimated_usd is None else f"{group.usage.estimated_usd:.6f}",
            group.cost.unknown,
            _text(" ".join(group.usage.unpriced)),
        ]
        for group in groups
    ]
    return _csv(head, rows)


def csv_of_tools(tools: Sequence[ToolStatistics]) -> bytes:
    """Tools with their calls and failures."""
    head = ["tool", "sessions", "calls", "errors", "error_rate"]
    rows = [
        [_text(tool.name), tool.sessions, tool.calls, tool.errors, f"{tool.error_rate:.6f}"]
        for tool in tools
    ]
    return _csv(head, rows)


def _text(value: str) -> str:
    """A text that stays one: a spreadsheet runs what looks like a formula."""
    return f"'{value}" if _FORMULA.match(value) else value


def _csv(head: Sequence[str], rows: Sequence[Sequence[object]]) -> bytes:
    written = io.StringIO()
    writer = csv.writer(written)
    writer.writerow(map(_text, head))
    writer.writerows(rows)
    return plain(written.getvalue()).encode()
