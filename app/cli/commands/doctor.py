"""``session-store doctor``: whether the servers and the database keep what the store promises."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Generator
from typing import TYPE_CHECKING

import typer

from ...text import line
from ..exits import FAILED
from ..root import app, models_of, options_of, run, show
from ..terminal.figures import counted
from ..terminal.tables import console

if TYPE_CHECKING:
    from ...database.driver import Database
    from ...health.findings import Diagnosis, Finding

WARNED = 4
"""Exit code: the store works there, but somebody should act."""

_STYLES = {"good": "green", "warning": "yellow", "bad": "bold red", "unknown": "magenta"}
_WHOLE = 10_000


@app.command("doctor")
def doctor_command(context: typer.Context) -> None:
    """Examine the database and its servers, and say what to do.

    Nothing is written. Exits with 0 if all is in order, with 4 if the store works but somebody
    should act, and with 1 if it does not work there or cannot keep a promise.

    Example: session-store --url mongodb://localhost/claude doctor
    """
    from ...health.doctor import diagnose

    models = models_of(context)

    async def command(database: Database) -> Diagnosis:
        return await diagnose(database, entries=models.entries, summaries=models.summaries)

    with _no_warnings_of_the_database():
        found = run(context, command)
    if console().is_terminal and not options_of(context).as_json:
        _print(found)
    else:
        show(context, found.as_json(), "\n".join([*_lines(found), _conclusion(found)]))
    if not found.is_healthy:
        raise typer.Exit(FAILED)
    if not found.is_clean:
        raise typer.Exit(WARNED)


@contextlib.contextmanager
def _no_warnings_of_the_database() -> Generator[None]:
    """``doctor`` says by itself that a server has no transactions."""
    logger = logging.getLogger("beanie_session_store.database")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _lines(diagnosis: Diagnosis) -> list[str]:
    """Each finding on one line, for a pipe."""
    return [
        f"{each.verdict:<8} {each.check:<12} {line(_said(each), _WHOLE)}"
        for each in diagnosis.findings
    ]


def _said(finding: Finding) -> str:
    return finding.found if finding.advice is None else f"{finding.found}. {finding.advice}"


def _print(diagnosis: Diagnosis) -> None:
    """Each finding in as many lines as the terminal needs, what to do below what was found."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 1))
    for each in diagnosis.findings:
        text = Text(line(each.found, _WHOLE), overflow="fold")
        if each.advice is not None:
            text.append("\n" + line(each.advice, _WHOLE), style="bold")
        table.add_row(Text(each.verdict, style=_STYLES[each.verdict]), each.check, text)
    out = console()
    out.print(table)
    out.print(_conclusion(diagnosis))


def _conclusion(diagnosis: Diagnosis) -> str:
    if diagnosis.is_clean:
        return "everything is in order"
    verdicts = [each.verdict for each in diagnosis.findings]
    warnings = verdicts.count("warning")
    counts = [f"{verdicts.count(name)} {name}" for name in ("bad", "unknown") if name in verdicts]
    named = [*counts, *([counted(warnings, "warning")] if warnings else [])]
    works = "it works" if diagnosis.is_healthy else "it does not work, or not as promised"
    return f"{works}: {', '.join(named)}"
