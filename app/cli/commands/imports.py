"""``session-store import``: what the agent wrote to disk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..root import app, run
from ..stores import store_on
from ..terminal.progress import finish, problem_shown, progress_shown

if TYPE_CHECKING:
    from ...database.driver import Database
    from ...jobs.report import TransferReport


@app.command("import")
def import_command(
    context: typer.Context,
    path: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Folders of projects, project folders, JSONL files or exported archives; "
            "by default ~/.claude/projects."
        ),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Sessions to import at once.")] = 4,
) -> None:
    """Store what the agent wrote to local disk, for --tenant.

    Run it again after a failure, or to add what came since: nothing is stored twice. Exits with 4
    if lines were skipped because they are no entries, with 1 if a session could not be imported.

    Example: session-store --tenant acme import ~/.claude/projects
    """
    from ...jobs.imports import import_transcripts

    async def command(database: Database) -> TransferReport:
        store = await store_on(context, database)
        with progress_shown("importing") as on_progress:
            return await import_transcripts(
                store,
                *(path or ()),
                workers=workers,
                on_progress=on_progress,
                on_problem=problem_shown,
            )

    finish(context, run(context, command))
