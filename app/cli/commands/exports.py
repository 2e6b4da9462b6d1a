"""``session-store export``: sessions as files, or as traces of a collector."""

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
    from collections.abc import Awaitable, Callable

    from ...database.driver import Database
    from ...jobs.report import TransferReport


class ExportFormat(Enum):
    """What is written of each session."""

    JSONL = "jsonl"
    MARKDOWN = "markdown"
    HTML = "html"
    OTLP = "otlp"


@app.command("export")
def export_command(
    context: typer.Context,
    target: Annotated[
        str,
        typer.Argument(
            help="Where to: a folder of projects, with --archive a file, or for traces the http "
            "address of a collector."
        ),
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
        typer.Option(
            "--format", help="The agent's own files, a page per session to read, or its trace."
        ),
    ] = ExportFormat.JSONL,
    content: Annotated[
        bool, typer.Option("--content", help="Have traces say what was said and done, too.")
    ] = False,
    archive: Annotated[
        bool, typer.Option("--archive", help="Write one .tar.gz file of that folder.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files that are there.")
    ] = False,
    workers: Annotated[int, typer.Option(min=1, help="Sessions to export at once.")] = 4,
) -> None:
    """Write sessions as files of the agent, pages or traces.

    They are those of --tenant. Exported to ~/.claude/projects, `claude --resume` finds them. On
    pages, all that a transcript says is escaped or sanitised. With --metadata it is one archive of
    all that is stored of a person, with an index.html. Traces are OpenTelemetry's, in files or sent
    to http://localhost:4318/v1/traces, say. Exits with 1 if a session was left out.

    Example: session-store --tenant acme export --session 6645a6b0 ~/.claude/projects
    Example: session-store --tenant acme export --metadata user_id=u1 --format html u1.tar.gz
    """
    subject = metadata_of(metadata)
    is_sent = target.startswith(("http://", "https://"))
    if is_sent and (form is not ExportFormat.OTLP or archive or subject is not None):
        raise typer.BadParameter(
            "Only --format otlp is sent to an address, without --archive and --metadata."
        )
    if content and form is not ExportFormat.OTLP:
        raise typer.BadParameter("--content is for --format otlp; other formats say all there is.")
    from ...jobs.exports import export_transcripts

    async def command(database: Database) -> TransferReport:
        store = await store_on(context, database, upgrade=False)
        key = None if session is None else (await store.session_named(session, project)).key()
        project_key = project if key is None else key["project_key"]
        session_id = None if key is None else key["session_id"]
        with progress_shown("exporting") as on_progress:
            if is_sent:
                return await _sender()(
                    store,
                    target,
                    project_key=project_key,
                    session_id=session_id,
                    with_content=content,
                    on_progress=on_progress,
                    on_problem=problem_shown,
                )
            return await export_transcripts(
                store,
                Path(target),
                project_key=project_key,
                session_id=session_id,
                metadata=subject,
                format=form.value,
                with_content=content,
                archive=archive or subject is not None,
                overwrite=overwrite,
                workers=workers,
                on_progress=on_progress,
                on_problem=problem_shown,
            )

    finish(context, run(context, command))


def _sender() -> Callable[..., Awaitable[TransferReport]]:
    from ...errors import TransferError

    try:
        from ...telemetry.endpoint import send_traces_to
    except ModuleNotFoundError as missing:
        raise TransferError(
            f"To send traces needs {missing.name}, which is not installed: "
            "pip install 'beanie-session-store[telemetry]'"
        ) from None
    return send_traces_to
