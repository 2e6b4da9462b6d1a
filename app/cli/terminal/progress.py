"""How far an import, an export or a copy is, and how it ended."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING, NoReturn

import typer

from ...text import plain
from ..exits import FAILED
from ..root import show
from .tables import console
from .throttle import at_most_every, lines_on_progress

if TYPE_CHECKING:
    from ...jobs.report import OnProgress, TransferProblem, TransferReport

PARTIAL = 4
"""Exit code: all was done, but lines that are no entries were skipped."""

_BAR_SECONDS = 0.1


@contextmanager
def progress_shown(doing: str) -> Generator[OnProgress]:
    """A bar with rate and time left where a person looks on, else a line now and then."""
    begin = monotonic()
    if not sys.stderr.isatty():
        yield lines_on_progress()
        return
    from rich.filesize import decimal
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    text = TextColumn("{task.description}")
    columns = (text, BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console(stderr=True), transient=True) as bar:
        task = bar.add_task(doing, total=None)

        def move(report: TransferReport) -> None:
            rate = decimal(int(report.bytes / max(monotonic() - begin, 0.001)))
            bar.update(
                task,
                description=f"{doing} {report.done} of {report.listed} sessions, "
                f"{decimal(report.bytes)}, {rate}/s",
                total=report.total_bytes or report.listed or None,
                completed=report.bytes if report.total_bytes else report.done,
            )

        yield at_most_every(_BAR_SECONDS, move)


def problem_shown(problem: TransferProblem) -> None:
    """One line on stderr for each thing that was left out."""
    # The names in it are anybody's.
    typer.echo("problem: " + " ".join(plain(str(problem)).split()), err=True)


def finish(context: typer.Context, report: TransferReport) -> NoReturn:
    """Print the summary, and end with the exit code that says how it went."""
    show(context, report.as_json(), str(report))
    if report.failed:
        raise typer.Exit(FAILED)
    raise typer.Exit(PARTIAL if report.skipped_lines else 0)
