"""``session-store schema``: migrate a database, take it back, and see where it stands."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..confirm import require_consent
from ..exits import MISUSED, fail
from ..root import app, models_of, run, show

if TYPE_CHECKING:
    from ...database.driver import Database
    from ...schema.log import SchemaRun
    from ...schema.migrator import SchemaStatus

OUTDATED = 3
"""Exit code of ``status`` where there is something to upgrade."""

schema = typer.Typer(
    help="Migrate the database, take it back, and see where it stands.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(schema, name="schema")


@schema.command()
def upgrade(
    context: typer.Context,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only list the migrations that would run.")
    ] = False,
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="NAME", help="The last migration to run (or its beginning)."),
    ] = None,
) -> None:
    """Run the migrations that the database has not had yet.

    Safe while the application runs, and in several deploy jobs at once.

    Example: session-store --url mongodb://localhost/claude schema upgrade
    """
    from ...schema.versions import upgrade_schema

    models = models_of(context)

    async def command(database: Database) -> list[str]:
        return await upgrade_schema(
            database,
            entries=models.entries,
            summaries=models.summaries,
            to=to,
            dry_run=dry_run,
            on_progress=_progress,
        )

    names = run(context, command)
    verb = "would run" if dry_run else "ran"
    lines = [f"{verb} {name}" for name in names] or ["nothing to run: the schema is up to date"]
    show(context, {"dry_run": dry_run, "scripts": names}, "\n".join(lines))


@schema.command()
def downgrade(
    context: typer.Context,
    steps: Annotated[
        int | None,
        typer.Option("--steps", min=1, metavar="N", help="How many to undo; 1 by default."),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="NAME", help="The migration to go back to."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only list the migrations that would be undone.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Undo the last migration, the last N, or all after NAME.

    It shows what it would remove and asks. Entries and summaries are never removed.

    Example: session-store --url mongodb://localhost/claude schema downgrade --steps 1
    """
    from ...schema.versions import downgrade_schema

    if steps is not None and to is not None:
        raise typer.BadParameter("give either --steps or --to, not both.", param_hint="--steps")
    models = models_of(context)

    def command(dry: bool, steps: int | None, to: str | None) -> list[str]:
        async def call(database: Database) -> list[str]:
            return await downgrade_schema(
                database,
                entries=models.entries,
                summaries=models.summaries,
                steps=steps,
                to=to,
                dry_run=dry,
                on_progress=None if dry else _progress,
            )

        return run(context, call)

    names = command(True, steps, to)
    if names and not dry_run:
        _ask(names, yes)
        done = command(False, steps, to)
    else:
        done = names
    verb = "would undo" if dry_run else "undid"
    lines = [f"{verb} {name}" for name in done] or ["nothing to undo"]
    show(context, {"dry_run": dry_run, "scripts": done}, "\n".join(lines))


@schema.command()
def status(context: typer.Context) -> None:
    """Show which migrations the database has had.

    Exits with 0 if it is up to date, 3 if there is something to upgrade, and 1 if a newer
    release migrated it or it cannot be read.

    Example: session-store --url mongodb://localhost/claude schema status
    """
    from ...schema.versions import schema_status

    models = models_of(context)

    async def command(database: Database) -> SchemaStatus:
        return await schema_status(database, entries=models.entries, summaries=models.summaries)

    found = run(context, command)
    value = {**asdict(found), "pending": found.pending, "is_current": found.is_current}
    show(context, value, _status_text(found))
    if found.unknown:
        fail(
            "a newer release of beanie-session-store migrated this database; install it: "
            "pip install -U beanie-session-store"
        )
    if not found.is_current:
        raise typer.Exit(OUTDATED)


@schema.command()
def history(context: typer.Context) -> None:
    """Show every run of a migration: when, and by which process.

    Example: session-store --url mongodb://localhost/claude schema history
    """
    from ...schema.versions import schema_history

    models = models_of(context)

    async def command(database: Database) -> list[SchemaRun]:
        return await schema_history(database, entries=models.entries, summaries=models.summaries)

    runs = run(context, command)
    lines = [
        f"{each.at:%Y-%m-%d %H:%M:%S} UTC  {each.direction:8}  {each.script}  "
        f"{each.seconds:.1f} s  {each.by} on {each.host}, process {each.pid}"
        for each in runs
    ]
    show(context, [asdict(each) for each in runs], "\n".join(lines or ["no migration ran yet"]))


@schema.command()
def copy(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Your Beanie migrations folder.")],
) -> None:
    """Copy the migrations into your own Beanie migrations folder.

    The copies come after all that is in the folder, and what is there already is left alone.
    `beanie migrate` and `session-store schema` then agree on what has run.

    Example: session-store schema copy ./migrations
    """
    from ...schema.migrator import renamed_collections
    from ...schema.script_copies import copy_scripts

    models = models_of(context)
    if not folder.is_dir():
        fail(f"{folder} is no directory. Name the one that `beanie migrate -p` is given.", MISUSED)
    try:
        copied = copy_scripts(folder, renamed_collections(models.entries, models.summaries))
    except OSError as error:
        fail(f"Could not copy the migrations: {error}.")
    lines = [f"copied to {path}" for path in copied] or ["nothing to copy: all are there already"]
    show(context, [str(path) for path in copied], "\n".join(lines))


def _ask(names: list[str], yes: bool) -> None:
    from ...schema.scripts import named, packaged_folder, scripts_in

    scripts = scripts_in(packaged_folder())
    for name in names:
        script = named(scripts, name)
        typer.echo(f"{name}: {', '.join(script.undoing())}", err=True)
    require_consent("Undo these?", yes)


def _progress(message: str) -> None:
    typer.echo(message, err=True)


def _status_text(status: SchemaStatus) -> str:
    lines = [f"database {status.database}, collection {status.entries}"]
    for script in status.scripts:
        if script.applied_at is None:
            lines.append(f"  pending  {script.name}")
            continue
        edited = "" if script.is_unchanged else "  (edited since)"
        lines.append(f"  applied  {script.name}  {script.applied_at:%Y-%m-%d %H:%M:%S} UTC{edited}")
    lines += [f"  unknown  {name}" for name in status.unknown]
    lines += [f"  lost     unique index {name}" for name in status.lost_indexes]
    if status.unknown:
        lines.append("newer than this release")
    elif status.is_current:
        lines.append("up to date")
    else:
        lines.append("outdated: run session-store schema upgrade")
    return "\n".join(lines)
