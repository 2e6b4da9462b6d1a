"""The results as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .results import Section

_LONG_ROWS = 24


def markdown(machine: Mapping[str, str], sections: Sequence[Section], chart: str) -> str:
    """All of a run: what it ran on, the targets, the chart, and a table per section."""
    blocks = [
        "# Benchmark results",
        "Written by `make bench`. What the contenders do and how to read the figures: "
        "[README.md](README.md).",
        table(["", ""], [[name, value] for name, value in machine.items()]),
        "## Targets",
        table(["target", "measured", ""], _verdicts(sections)),
        f"![Medians of the main measurements]({chart})",
    ]
    for section in sections:
        blocks += [f"## {section.title}", section.note]
        rows = table(section.columns, section.rows)
        if len(section.rows) > _LONG_ROWS:
            summary = f"<summary>{len(section.rows)} rows</summary>"
            rows = f"<details open>{summary}\n\n{rows}\n\n</details>"
        blocks.append(rows)
    return "\n\n".join(blocks) + "\n"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _verdicts(sections: Sequence[Section]) -> list[list[str]]:
    return [
        [verdict.target, verdict.measured, "reached" if verdict.is_reached else "**not reached**"]
        for section in sections
        for verdict in section.verdicts
    ]
