"""``session-store export``: sessions as files."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..completion import projects, session_ids
from ..filters import WithMetadata, metadata_of
from ..root import app, run
from ..stores import store_on
from ..terminal.progress import finish, problem_shown, progress_shown

if TYPE_CHECKING:
    from ...database.driver import Database
    from ...jobs.report import TransferReport


class ExportFormat(Enum):
    """What is written of each session."""

    JSONL = "jsonl"
    MARKDOWN = "markdown"
    HTML = "html"


@app.command("export")
def export_command(
    context: typer.Context,
    target: Annotated[
        Path, typer.Argument(help="Where to: a folder of projects, or with --archive a file.")
    ],
    session: Annotated[
        str | None,
        typer.Option(
            help="Only the session of this id, or of as much of it as tells it apart.",
            autocompletion=session_ids,
        ),
    ] = None,
    project: Annotated[
        str | None, typer.Option(help="Only this project key.", autocompletion=projects)
    ] = None,
    metadata: WithMetadata = None,
    form: Annotated[
        ExportFormat,
        typer.Option("--format", help="The agent's own files, or a page per session to read."),
    ] = ExportFormat.JSONL,
    archive: Annotated[
        bool, typer.Option("--archive", help="Write one .tar.gz file of that folder.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files that are there.")
    ] = False,
    workers: Annotated[int, typer.Option(min=1, help="Sessions to export at once.")] = 4,
) -> None:
    """Write sessions as the agent's own files, or as pages.

    They are those of --tenant. Exported to ~/.claude/projects, `claude --resume` finds them. On
    pages, all that a transcript says is escaped or sanitised. With --metadata it is one archive of
    all that is stored of a person, with an index.html. Exits with 1 if a session could not be
    exported.

    Example: session-store --tenant acme export --session 6645a6b0 ~/.claude/projects
    Example: session-store --tenant acme export --metadata user_id=u1 --format html u1.tar.gz
    """
    subject = metadata_of(metadata)
    from ...jobs.exports import export_transcripts

    async def command(database: Database) -> TransferReport:
        store = await store_on(context, database, upgrade=False)
        key = None if session is None else (await store.session_named(session, project)).key()
        with progress_shown("exporting") as on_progress:
            return await export_transcripts(
                store,
                target,
                project_key=project if key is None else key["project_key"],
                session_id=None if key is None else key["session_id"],
                metadata=subject,
                format=form.value,
                archive=archive or subject is not None,
                overwrite=overwrite,
                workers=workers,
                on_progress=on_progress,
                on_problem=problem_shown,
            )

    finish(context, run(context, command))
