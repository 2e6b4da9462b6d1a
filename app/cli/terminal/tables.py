"""Tables: in colour and cut to the width of a terminal, or plain and whole for a pipe."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from ...text import line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

Row = TypeVar("Row")

_GAP = "  "
_NOTHING = "-"
_WHOLE = 100_000


@dataclass(frozen=True, slots=True)
class Column(Generic[Row]):
    """What one column says of a row."""

    title: str
    whole: Callable[[Row], str]
    """For a pipe: the value as it is, of one word but for the last column."""
    short: Callable[[Row], str] | None = None
    """For a terminal, where it is another."""
    is_number: bool = False
    fills: bool = False
    """Whether it takes the space that the others leave, and is cut to that."""
    largest: float | None = None
    """The largest part of a terminal's width that it may take; longer values keep their end."""
    style: str = ""
    is_rare: bool = False
    """Whether it is left out where no row has it."""


def console(*, stderr: bool = False) -> Console:
    """Where to print what is not JSON.

    It has colours on a terminal alone, and none with ``NO_COLOR``; nothing printed to it is taken
    for markup.
    """
    from rich.console import Console

    return Console(
        stderr=stderr,
        color_system=None if os.environ.get("NO_COLOR") else "auto",
        markup=False,
        emoji=False,
        highlight=False,
        soft_wrap=False,
    )


def print_table(columns: Sequence[Column[Row]], rows: Sequence[Row]) -> None:
    """Print a row each; the texts in them may be anybody's."""
    columns = [each for each in columns if not each.is_rare or any(map(each.whole, rows))]
    out = console()
    if out.is_terminal:
        out.print(_table(columns, rows, out.width))
        return
    cells = [[column.title for column in columns]]
    cells += [[line(column.whole(row), _WHOLE) or _NOTHING for column in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for each in cells:
        padded = [
            cell.rjust(width) if column.is_number else cell.ljust(width)
            for column, cell, width in zip(columns, each, widths, strict=True)
        ]
        print(_GAP.join(padded).rstrip())


def _table(columns: Sequence[Column[Row]], rows: Sequence[Row], width: int) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, len(_GAP), 0, 0), pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(
            Text(column.title),
            justify="right" if column.is_number else "left",
            style=column.style,
            ratio=1 if column.fills else None,
            no_wrap=True,
            overflow="ellipsis",
        )
    table.expand = any(column.fills for column in columns)
    for row in rows:
        table.add_row(*(_cell(column, row, width) for column in columns))
    return table


def _cell(column: Column[Row], row: Row, width: int) -> Text:
    from rich.text import Text

    text = line((column.short or column.whole)(row))
    most = len(text) if column.largest is None else int(column.largest * width)
    return Text(text if len(text) <= most else "…" + text[1 - most :])
