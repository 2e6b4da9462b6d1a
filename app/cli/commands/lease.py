"""``session-store lease``: who holds a session, and taking it from them."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Annotated

import typer

from ...errors import UnknownSessionError
from ...text import line
from ..completion import projects, session_ids
from ..confirm import require_consent
from ..root import app, run, show
from ..session_arguments import session_to_change
from ..stores import store_on
from ..terminal.session_figures import held, lease_as_json

if TYPE_CHECKING:
    from ...database.driver import Database
    from ...leases.lease import Lease
    from ...reading.listings import SessionListing
    from ...sdk import SessionKey
    from ...store import BeanieSessionStore

lease = typer.Typer(no_args_is_help=True, help="Who alone may write to a session for a while.")
app.add_typer(lease, name="lease")

OfProject = Annotated[
    str | None,
    typer.Option(
        "--project",
        help="The project key, where several have the session, or it is not there yet.",
        autocompletion=projects,
    ),
]


@lease.command("show")
def show_lease(
    context: typer.Context,
    session: Annotated[
        str,
        typer.Argument(
            metavar="SESSION",
            help="The id, or as much of it as tells it apart.",
            autocompletion=session_ids,
        ),
    ],
    project: OfProject = None,
) -> None:
    """Show who holds a session, since when, and until when unless it is renewed.

    Example: session-store --tenant acme lease show 6645a6b0
    """

    async def command(database: Database) -> tuple[SessionKey, Lease | None]:
        store = await store_on(context, database, upgrade=False)
        return await _lease_of(store, store.session_named(session, project), session, project)

    key, found = run(context, command)
    name = line(key["session_id"])
    text = f"{name} is {held(found)}" if found else f"Nobody holds {name}."
    show(context, {**key, "lease": lease_as_json(found)}, text)


@lease.command("break")
def break_lease(
    context: typer.Context,
    session: Annotated[
        str,
        typer.Argument(
            metavar="SESSION",
            help="The id; on a terminal as much of it as tells it apart.",
            autocompletion=session_ids,
        ),
    ],
    project: OfProject = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """End the lease of a session whose holder is gone for good.

    It shows who that is and asks. A holder that is alive after all writes nothing more under it.

    Example: session-store --tenant acme lease break 6645a6b0-a285-4e63-944c-14e3cfe953e5
    """

    async def look(database: Database) -> tuple[SessionKey, Lease | None]:
        store = await store_on(context, database, upgrade=False)
        named = session_to_change(store, session, project, yes=yes)
        return await _lease_of(store, named, session, project)

    key, found = run(context, look)
    name = line(key["session_id"])
    broken = None
    if found is not None:
        typer.echo(f"{name} is {held(found)}", err=True)
        require_consent(f"Break the lease of {line(found.owner)}?", yes)

        async def end(database: Database) -> Lease | None:
            store = await store_on(context, database, upgrade=False)
            return await store.break_lease(key, lease=found)

        broken = run(context, end)
    text = f"broke the lease of {line(broken.owner)}" if broken else "that lease has ended already"
    if found is None:
        text = f"Nobody holds {name}."
    show(context, {**key, "broken": lease_as_json(broken)}, text)


async def _lease_of(
    store: BeanieSessionStore,
    named: Awaitable[SessionListing],
    name: str,
    project: str | None,
) -> tuple[SessionKey, Lease | None]:
    """The session that is ``named``, or that of a name that is held before its first entry."""
    from ...transcript_key import session_key

    try:
        key = (await named).key()
    except UnknownSessionError:
        if project is None:
            raise
        key = session_key(project, name)
        found = await store.lease_of(key)
        if found is None:
            raise
        return key, found
    return key, await store.lease_of(key)
