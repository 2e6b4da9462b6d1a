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
    """Groups with tokens, and cost in US dollars of six digits."""
    head = [
        *(name, "sessions", "responses", "input", "output", "cache_creation", "cache_read"),
        *("own_usd", "estimated_usd", "unknown_sessions"),
    ]
    rows = [
        [
            _text(group.name),
            *(group.usage.sessions, group.usage.responses, group.usage.input),
            *(group.usage.output, group.usage.cache_creation, group.usage.cache_read),
            f"{group.cost.own:.6f}",
            f"{group.cost.estimated:.6f}",
            group.cost.unknown,
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
