"""``session-store delete``: sessions, with their subagents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ..plain_text import line
from .asking import require_consent
from .completing import projects, session_ids
from .figures import counted, stamp
from .root import app, run, show
from .session_figures import SessionFigures
from .sessions_to_change import session_to_change
from .transfer_store import store_on

if TYPE_CHECKING:
    from ..driver import Database
    from ..reader import SessionListing


@app.command("delete")
def delete_command(
    context: typer.Context,
    sessions: Annotated[
        list[str],
        typer.Argument(
            metavar="SESSION",
            help="Ids; on a terminal and without --yes as much of each as tells it apart.",
            autocompletion=session_ids,
        ),
    ],
    project: Annotated[
        str | None,
        typer.Option(
            help="The project key, where several have the session.", autocompletion=projects
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete sessions of --tenant, with their subagents.

    It shows what it would delete and asks. There is no way back. A session that an agent still
    writes to begins anew with what it writes next.

    Example: session-store --tenant acme delete 6645a6b0-a285-4e63-944c-14e3cfe953e5
    """

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
            await store.delete(listing.key())

    found = run(context, find)
    for listing, described in found:
        typer.echo(f"{line(str(listing))}: {described}", err=True)
    if found:
        require_consent(f"Delete {counted(len(found), 'session')}?", yes)
        run(context, delete)
    keys = [listing.key() for listing, _ in found]
    show(context, {"deleted": keys}, f"deleted {counted(len(keys), 'session')}")


def _described(figures: SessionFigures, subagents: int) -> str:
    totals = figures.summary.totals
    facts = [counted(subagents, "subagent"), f"changed {stamp(figures.at)}"]
    if totals is not None:
        facts.insert(0, f"{totals.entries:,} stored entries")
    return ", ".join([*facts, line(figures.title)])
