"""``session-store retention``: how long sessions are kept."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..retention_script import parsed, spelled, write_retention_script
from .ending import MISUSED, fail
from .root import app, models_of, options_of, run, show
from .transfer_store import store_on

if TYPE_CHECKING:
    from ..driver import Database
    from ..retention import Redating

_EVERY = "*"

retention = typer.Typer(no_args_is_help=True, help="How long idle sessions are kept.")
app.add_typer(retention, name="retention")

ForTenant = Annotated[
    str | None,
    typer.Option(
        "--tenant",
        help='The tenant, or "*" for every one without its own policy, as it is where none is '
        "named. [SESSION_STORE_TENANT]",
    ),
]
ForProject = Annotated[
    str, typer.Option("--project", help='The project key, or "*" for every other one.')
]
Named = Annotated[
    str, typer.Argument(metavar="SESSION", help="The id, or as much of it as tells it apart.")
]
OfProject = Annotated[
    str | None, typer.Option("--project", help="The project key, where several have the session.")
]


@retention.command("show")
def show_policies(context: typer.Context) -> None:
    """Show the policies.

    Example: session-store retention show
    """
    from ..retention import retention_policies

    rows = run(context, retention_policies)
    lines = [
        f"{row['tenant']:<24} {row['project_key']:<32} {spelled(_period(row))}" for row in rows
    ]
    heading = f"{'TENANT':<24} {'PROJECT':<32} KEPT"
    text = "\n".join([heading, *lines]) if rows else "No policies: every session is kept for ever."
    show(context, rows, text)


@retention.command("set")
def set_policy(
    context: typer.Context,
    keep: Annotated[str, typer.Argument(help="30d, 2w, 12h, 90m, 45s or forever")],
    tenant: ForTenant = None,
    project: ForProject = _EVERY,
) -> None:
    """Set how long idle sessions are kept.

    Those that are stored get their dates. It can be cut off and run again at any time.

    Example: session-store retention set 30d
    """
    from ..retention import set_retention

    period = _checked(keep)
    owner = _owner(context, tenant)
    classes = models_of(context)

    async def command(database: Database) -> Redating:
        return await set_retention(
            database,
            period,
            tenant=owner,
            project_key=project,
            entries=classes.entries,
            summaries=classes.summaries,
            on_progress=_report,
        )

    done = run(context, command)
    value = {"keep": keep, "tenant": owner, "project_key": project, "sessions": done.sessions}
    whose = "every tenant" if owner == _EVERY else f"tenant {owner}"
    show(context, value, f"Idle sessions of {whose} are kept {keep}; {done.sessions} looked at.")


@retention.command("hold")
def hold_session(context: typer.Context, session: Named, project: OfProject = None) -> None:
    """Keep one session from expiring until it is released.

    Example: session-store --tenant acme retention hold 6645a6b0
    """
    session_id = _with_store(context, "hold", session, project)
    show(context, {"held": session_id}, f"{session_id} is held: it does not expire.")


@retention.command("release")
def release_session(context: typer.Context, session: Named, project: OfProject = None) -> None:
    """Let a held session expire again; its period begins now.

    Example: session-store --tenant acme retention release 6645a6b0
    """
    session_id = _with_store(context, "release", session, project)
    show(context, {"released": session_id}, f"{session_id} is released: its period begins now.")


@retention.command("migration")
def write_migration(
    context: typer.Context,
    folder: Annotated[
        Path, typer.Argument(exists=True, file_okay=False, help="Your folder of migrations.")
    ],
    keep: Annotated[str, typer.Option(help="30d, 2w, 12h, 90m, 45s or forever")],
    tenant: ForTenant = None,
    project: ForProject = _EVERY,
) -> None:
    """Write a Beanie migration that sets a policy.

    Backward it restores that of today. Run it with: beanie migrate --no-use-transaction
    Example: session-store retention migration --keep 90d migrations
    """
    from ..retention import retention_policies

    period = _checked(keep)
    owner = _owner(context, tenant)
    rows = run(context, retention_policies)
    previous = [
        _period(row) for row in rows if (row["tenant"], row["project_key"]) == (owner, project)
    ]
    try:
        path = write_retention_script(folder, period, previous, owner, project)
    except OSError as error:
        fail(f"could not write the script: {error}")
    show(context, {"script": str(path)}, f"Wrote {path}")


def _with_store(context: typer.Context, change: str, name: str, project: str | None) -> str:
    """Do it to the session of that name, and return its whole id."""

    async def command(database: Database) -> str:
        store = await store_on(context, database, upgrade=False)
        session = await store.session_named(name, project)
        await getattr(store, change)(session.key())
        return session.session_id

    return run(context, command)


def _owner(context: typer.Context, tenant: str | None) -> str:
    # Who names a tenant for all commands does not mean all others with this one.
    return tenant or options_of(context).named_tenant or _EVERY


def _checked(keep: str) -> timedelta | None:
    try:
        return parsed(keep)
    except ValueError as error:
        fail(str(error), MISUSED)


def _period(row: dict[str, Any]) -> timedelta | None:
    seconds: int | None = row["keep_seconds"]
    return None if seconds is None else timedelta(seconds=seconds)


def _report(done: Redating) -> None:
    typer.echo(f"{done.sessions} sessions looked at, {done.moved} dated anew", err=True)
