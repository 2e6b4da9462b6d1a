"""``session-store delete``: sessions, with their subagents."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...text import line
from ..completion import projects, session_ids
from ..confirm import require_consent
from ..exits import MISUSED, fail
from ..filters import OnBranch, WithMetadata, WithTag, metadata_of, moment_given
from ..root import app, run, show
from ..session_arguments import session_to_change
from ..stores import store_on
from ..terminal.figures import counted, stamp
from ..terminal.session_figures import SessionFigures

if TYPE_CHECKING:
    from ...database.driver import Database
    from ...reading.listings import SessionListing
    from ...retention.removal import Removal


@app.command("delete")
def delete_command(
    context: typer.Context,
    sessions: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SESSION",
            help="Ids; on a terminal and without --yes as much of each as tells it apart.",
            autocompletion=session_ids,
        ),
    ] = None,
    project: Annotated[
        str | None,
        typer.Option(
            help="The project key, where several have the session; or all of it.",
            autocompletion=projects,
        ),
    ] = None,
    metadata: WithMetadata = None,
    tag: WithTag = None,
    branch: OnBranch = None,
    since: Annotated[str | None, typer.Option(help="Active since then, such as 7d.")] = None,
    until: Annotated[str | None, typer.Option(help="Not active since then.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would be deleted.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete sessions of --tenant, with their subagents.

    Those that are named, or all that options find. It shows what it would delete and asks. There
    is no way back. A session that an agent still writes to begins anew with what it writes next.
    Options find all sessions, also those that have expired; of these, held ones stay.

    Example: session-store --tenant acme delete 6645a6b0-a285-4e63-944c-14e3cfe953e5
    Example: session-store --tenant acme delete --metadata user_id=u1
    """
    now = datetime.now(timezone.utc)
    wanted: dict[str, Any] = {
        "metadata": metadata_of(metadata),
        "tag": tag,
        "branch": branch,
        "since": moment_given("--since", since, now),
        "until": moment_given("--until", until, now),
    }
    if not sessions:
        wanted["project_key"] = project
        return _delete_all(context, wanted, dry_run, yes)
    if any(value is not None for value in wanted.values()):
        fail("Name sessions, or say with options which ones; not both.", MISUSED)

    async def find(database: Database) -> list[tuple[SessionListing, str]]:
        store = await store_on(context, database, upgrade=False)
        named = [await session_to_change(store, name, project, yes=yes) for name in sessions]
        found: list[tuple[SessionListing, str]] = []
        for listing in {(each.project_key, each.session_id): each for each in named}.values():
            summary = await store.summary(listing.key())
            if summary is not None:
                subagents = await store.list_subkeys(listing.subkeys_key)
                found.append((listing, _described(SessionFigures(summary), len(subagents))))
        return found

    async def delete(database: Database) -> None:
        store = await store_on(context, database, upgrade=False)
        for listing, _ in found:
            await store.delete(listing.key(), wait=True)

    found = run(context, find)
    for listing, described in found:
        typer.echo(f"{line(str(listing))}: {described}", err=True)
    if dry_run:
        show(context, {"would_delete": [listing.key() for listing, _ in found]}, "deleted nothing")
        return
    if found:
        require_consent(f"Delete {counted(len(found), 'session')}?", yes)
        run(context, delete)
    keys = [listing.key() for listing, _ in found]
    show(context, {"deleted": keys}, f"deleted {counted(len(keys), 'session')}")


def _delete_all(context: typer.Context, wanted: dict[str, Any], dry_run: bool, yes: bool) -> None:
    if all(value is None for value in wanted.values()):
        fail("Name sessions, or say with options such as --metadata which ones.", MISUSED)

    async def look(database: Database) -> Removal:
        store = await store_on(context, database, upgrade=False)
        return await store.delete_sessions(**wanted, dry_run=True)

    async def delete(database: Database) -> Removal:
        store = await store_on(context, database, upgrade=False)
        return await store.delete_sessions(**wanted, on_progress=_report)

    seen = run(context, look)
    for listing in seen.held:
        typer.echo(f"{line(str(listing))} is held and stays", err=True)
    count = seen.found - len(seen.held)
    if dry_run or not count:
        value = {"found": seen.found, "held": [each.key() for each in seen.held], "deleted": 0}
        show(context, value, f"{counted(count, 'session')} would be deleted")
        return
    require_consent(f"Delete {counted(count, 'session')}?", yes)
    done = run(context, delete)
    value = {
        "found": done.found,
        "held": [each.key() for each in done.held],
        "failed": [each.key() for each in done.failed],
        "deleted": done.deleted,
    }
    show(context, value, f"deleted {counted(done.deleted, 'session')}")
    if done.failed:
        names = ", ".join(line(str(each)) for each in done.failed[:5])
        fail(f"{counted(len(done.failed), 'session')} could not be deleted, try again: {names}")


def _report(done: Removal) -> None:
    typer.echo(f"{counted(done.deleted, 'session')} deleted so far", err=True)


def _described(figures: SessionFigures, subagents: int) -> str:
    totals = figures.summary.totals
    facts = [counted(subagents, "subagent"), f"changed {stamp(figures.at)}"]
    if totals.is_counted:
        facts.insert(0, f"{totals.entries:,} stored entries")
    return ", ".join([*facts, line(figures.title)])
