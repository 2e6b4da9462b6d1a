"""``session-store retention``: how long sessions are kept."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...errors import InvalidKeyError
from ...every import EVERY, Every
from ...retention.script import ScriptClasses, parsed, spelled, write_retention_script
from ...text import line
from ..completion import projects, session_ids
from ..confirm import require_consent
from ..exits import MISUSED, fail
from ..root import app, models_of, options_of, run, show
from ..session_arguments import session_to_change
from ..stores import store_on
from ..terminal.figures import counted

if TYPE_CHECKING:
    from ...database.driver import Database
    from ...retention.policies import Redating
    from ...writing.housekeeping import Sweeping

retention = typer.Typer(no_args_is_help=True, help="How long idle sessions are kept.")
app.add_typer(retention, name="retention")

ForAll = Annotated[
    bool,
    typer.Option(
        "--all-tenants", help="Instead of --tenant: every tenant without a policy of its own."
    ),
]
ForProject = Annotated[
    str | None,
    typer.Option(
        "--project",
        help="The project key; without it, every other one.",
        autocompletion=projects,
    ),
]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
Named = Annotated[
    str,
    typer.Argument(
        metavar="SESSION",
        help="The id; on a terminal as much of it as tells it apart.",
        autocompletion=session_ids,
    ),
]
OfProject = Annotated[
    str | None,
    typer.Option(
        "--project",
        help="The project key, where several have the session.",
        autocompletion=projects,
    ),
]


@retention.command("show")
def show_policies(context: typer.Context) -> None:
    """Show the policies.

    Example: session-store retention show
    """
    from ...retention.policies import retention_policies

    rows = run(context, retention_policies)
    lines = [
        f"{row['tenant']!s:<24} {row['project_key']!s:<32} {spelled(_period(row))}" for row in rows
    ]
    heading = f"{'TENANT':<24} {'PROJECT':<32} KEPT"
    text = "\n".join([heading, *lines]) if rows else "No policies: every session is kept for ever."
    show(context, rows, text)


@retention.command("set")
def set_policy(
    context: typer.Context,
    keep: Annotated[str, typer.Argument(help="30d, 2w, 12h, 90m, 45s or forever")],
    project: ForProject = None,
    all_tenants: ForAll = False,
    yes: Yes = False,
) -> None:
    """Set how long idle sessions are kept.

    They are those of --tenant, or of all. It shows how many sessions would end at once and asks.
    Those that are stored get their dates; it can be cut off and run again at any time.

    Example: session-store --tenant acme retention set 30d
    """
    from ...retention.policies import set_retention

    period = _checked(keep)
    owner = _Owner.of(context, all_tenants, project)
    ending = _ask(context, owner, period, f"Keep idle sessions of {owner} {keep}?", yes)
    classes = models_of(context)

    async def command(database: Database) -> Redating:
        return await set_retention(
            database,
            period,
            tenant=owner.tenant,
            project_key=owner.project_key,
            entries=classes.entries,
            summaries=classes.summaries,
            on_progress=_report,
            actor=options_of(context).actor,
        )

    done = run(context, command)
    value = {
        "keep": keep,
        **owner.as_json(),
        "sessions": done.sessions,
        "ending": ending,
        "others": list(done.others),
    }
    show(context, value, f"Idle sessions of {owner} are kept {keep}; {done.sessions} looked at.")
    _require_all_dated(done)


@retention.command("clear")
def clear_policy(
    context: typer.Context,
    project: ForProject = None,
    all_tenants: ForAll = False,
    yes: Yes = False,
) -> None:
    """Remove a policy.

    The next more general one holds then, or none. It shows how many sessions would end at once and
    asks.

    Example: session-store --tenant acme retention clear
    """
    from ...retention.policies import clear_retention, retention_policies

    owner = _Owner.of(context, all_tenants, project)
    rows = run(context, retention_policies)
    if not any((row["tenant"], row["project_key"]) == owner.key for row in rows):
        fail(f"There is no policy of {owner}; see session-store retention show.")
    question = f"Remove the policy of {owner}?"
    ending = _ask(context, owner, None, question, yes, is_cleared=True)
    classes = models_of(context)

    async def command(database: Database) -> Redating:
        return await clear_retention(
            database,
            tenant=owner.tenant,
            project_key=owner.project_key,
            entries=classes.entries,
            summaries=classes.summaries,
            on_progress=_report,
            actor=options_of(context).actor,
        )

    done = run(context, command)
    value = {
        "cleared": owner.as_json(),
        "sessions": done.sessions,
        "ending": ending,
        "others": list(done.others),
    }
    show(context, value, f"Removed the policy of {owner}; {done.sessions} looked at.")
    _require_all_dated(done)


def _require_all_dated(done: Redating) -> None:
    if done.failed:
        names = ", ".join(line(str(key)) for key in done.failed[:5])
        fail(f"{len(done.failed)} sessions could not be dated, run it again: {names}")


@retention.command("sweep")
def sweep(context: typer.Context) -> None:
    """Delete now what is left of expired and deleted sessions, of every tenant or of --tenant.

    Readers do not see it, and MongoDB deletes it later by itself. It can be cut off and run again
    at any time.

    Example: session-store retention sweep
    """
    classes = models_of(context)
    tenant = options_of(context).named_tenant

    async def command(database: Database) -> Sweeping:
        from ...writing.housekeeping import sweep_sessions

        return await sweep_sessions(
            database, tenant=tenant, entries=classes.entries, summaries=classes.summaries
        )

    done = run(context, command)
    show(context, {"swept": done.swept}, f"finished {counted(done.swept, 'session')}")
    if done.failed:
        names = ", ".join(line(str(key)) for key in done.failed[:5])
        fail(f"{len(done.failed)} sessions were written to all the time, run it again: {names}")


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
    project: ForProject = None,
    all_tenants: ForAll = False,
) -> None:
    """Write a Beanie migration that sets a policy, and dates the sessions of your classes.

    Backward it restores that of today. Run it with: beanie migrate --no-use-transaction
    Example: session-store --tenant acme retention migration --keep 90d migrations
    """
    from ...retention.policies import retention_policies

    period = _checked(keep)
    owner = _Owner.of(context, all_tenants, project)
    # That they can be imported is known before a script rests on it.
    models_of(context)
    names = options_of(context).classes
    classes = ScriptClasses(names.entries, names.summaries)
    rows = run(context, retention_policies)
    previous = [_period(row) for row in rows if (row["tenant"], row["project_key"]) == owner.key]
    try:
        path = write_retention_script(folder, period, previous, *owner.key, classes)
    except OSError as error:
        fail(f"could not write the script: {error}")
    show(context, {"script": str(path)}, f"Wrote {path}")


def _with_store(context: typer.Context, change: str, name: str, project: str | None) -> str:
    """Do it to the session of that name, and return its whole id."""

    async def command(database: Database) -> str:
        store = await store_on(context, database, upgrade=False)
        session = await session_to_change(store, name, project)
        await getattr(store, change)(session.key(), wait=True)
        return session.session_id

    return run(context, command)


@dataclass(frozen=True, slots=True)
class _Owner:
    """Whose policy it is."""

    tenant: str | Every
    project_key: str | Every

    @classmethod
    def of(cls, context: typer.Context, all_tenants: bool, project: str | None) -> _Owner:
        """The one that the options name; ends the process if they name none, or two."""
        options = options_of(context)
        if all_tenants and options.has_tenant:
            fail("--tenant and --all-tenants are two things; give one of them.", MISUSED)
        tenant = EVERY if all_tenants else options.named_tenant
        if tenant is None:
            fail("whose sessions? Give --tenant, or --all-tenants for every one.", MISUSED)
        from ...retention.policies import checked_owner

        found = cls(tenant, EVERY if project is None else project)
        try:
            checked_owner(*found.key)
        except InvalidKeyError as error:
            fail(str(error), MISUSED)
        return found

    @property
    def key(self) -> tuple[str | Every, str | Every]:
        """Tenant and project key."""
        return self.tenant, self.project_key

    def as_json(self) -> dict[str, str]:
        """The same as JSON types."""
        return {"tenant": str(self.tenant), "project_key": str(self.project_key)}

    def __str__(self) -> str:
        whose = "every tenant" if self.tenant is EVERY else f"tenant {line(self.tenant)}"
        project = self.project_key
        return whose if project is EVERY else f"{whose}, project {line(project)}"


def _ask(
    context: typer.Context,
    owner: _Owner,
    keep: timedelta | None,
    question: str,
    yes: bool,
    *,
    is_cleared: bool = False,
) -> int:
    """Say how many sessions would end at once, and return that if the change is agreed to."""
    from ...retention.ending_sessions import ending_sessions

    classes = models_of(context)

    async def command(database: Database) -> int:
        return await ending_sessions(
            database,
            keep,
            tenant=owner.tenant,
            project_key=owner.project_key,
            is_cleared=is_cleared,
            entries=classes.entries,
            summaries=classes.summaries,
        )

    ending = run(context, command)
    typer.echo(f"{counted(ending, 'session')} would end at once", err=True)
    require_consent(question, yes)
    return ending


def _checked(keep: str) -> timedelta | None:
    try:
        return parsed(keep)
    except ValueError as error:
        fail(str(error), MISUSED)


def _period(row: dict[str, Any]) -> timedelta | None:
    from ...storage.expiry import kept

    return kept(row["keep_seconds"])


def _report(done: Redating) -> None:
    typer.echo(f"{done.sessions} sessions looked at, {done.moved} dated anew", err=True)
