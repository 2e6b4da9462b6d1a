"""``session-store verify``: whether the summaries say what is stored."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...errors import AmbiguousSessionError, UnknownSessionError
from ...text import line
from ..completion import projects, session_ids
from ..exits import FAILED, MISUSED, fail
from ..root import app, options_of, run, show
from ..session_arguments import session_to_change
from ..stores import store_on
from ..terminal.throttle import lines_on_progress

if TYPE_CHECKING:
    from ...database.driver import Database
    from ...jobs.verification import UnsoundSession, VerificationReport
    from ...reading.listings import SessionListing
    from ...store import BeanieSessionStore
    from ...writing.repair import Difference

_VALUE = 24


@app.command("verify")
def verify_command(
    context: typer.Context,
    sessions: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SESSION",
            help="Ids, or as much of each as tells it apart (with --repair on a terminal alone); "
            "without one, all of the tenant.",
            autocompletion=session_ids,
        ),
    ] = None,
    project: Annotated[
        str | None, typer.Option(help="Only of this project key.", autocompletion=projects)
    ] = None,
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Make each summary say what is stored; entries stay."),
    ] = False,
    bring_back: Annotated[
        bool,
        typer.Option(
            "--bring-back",
            help="With --repair and whole ids: also make anew what may have expired or been "
            "deleted.",
        ),
    ] = False,
    workers: Annotated[int, typer.Option(min=1, help="Sessions to verify at once.")] = 4,
) -> None:
    """Compare summaries with all entries, and mend them.

    They are those of --tenant: the fold, the totals, the positions, and entries without a summary.
    Safe while agents write. Exits with 0 if all is sound or was repaired, and with 1 if not.

    Example: session-store --tenant acme verify --repair
    """
    from ...jobs.verification import verify_sessions, with_lost

    if bring_back and not (repair and sessions):
        fail("--bring-back is for sessions that are named, together with --repair.", MISUSED)
    as_json = options_of(context).as_json

    async def command(database: Database) -> VerificationReport:
        store = await store_on(context, database, upgrade=False)
        wanted = _named(store, sessions, project, repair) if sessions else with_lost(store, project)
        return await verify_sessions(
            store,
            wanted,
            repair=repair,
            bring_back=bring_back,
            workers=workers,
            on_progress=lines_on_progress(),
            on_problem=None if as_json else _print,
        )

    report = run(context, command)
    show(context, report.as_json(), str(report))
    if not report.is_sound:
        raise typer.Exit(FAILED)


async def _named(
    store: BeanieSessionStore, names: Sequence[str], project: str | None, repair: bool
) -> AsyncIterator[SessionListing]:
    async def find(name: str) -> SessionListing:
        try:
            if repair:
                return await session_to_change(store, name, project)
            return await store.session_named(name, project)
        except UnknownSessionError:
            # One without a summary has no name but its whole id.
            lost = store.lost_sessions(project, with_expired=True)
            found = [listing async for listing in lost if listing.session_id == name]
            if not found:
                raise
            if len(found) > 1:
                projects = ", ".join(listing.project_key for listing in found[:5])
                raise AmbiguousSessionError(
                    f"Several projects have entries of a session {name} without a summary: "
                    f"{projects}. Name one with --project."
                ) from None
            return found[0]

    # All of them first: of a wrong name nothing should have been repaired.
    for listing in [await find(name) for name in names]:
        yield listing


def _print(problem: UnsoundSession) -> None:
    what = problem.error or "; ".join(map(_spelled, problem.differences))
    end = " (repaired)" if problem.is_repaired else ""
    where = f"{problem.listing.session_id} of {problem.listing.project_key}"
    typer.echo(f"{line(where)}: {line(what, 1000)}{end}")


def _spelled(difference: Difference) -> str:
    if difference.field == "summary":
        return "its summary is gone"
    stored, expected = (_value(each) for each in (difference.stored, difference.expected))
    if stored is None or expected is None:
        return f"{difference.field} differs"
    return f"{difference.field} says {stored}, stored is {expected}"


def _value(value: Any) -> str | None:
    """A short value as it is; ``None`` for one that is too long for a line."""
    text = repr(value)
    return text if len(text) <= _VALUE else None
