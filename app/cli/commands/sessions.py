"""``session-store sessions``: which sessions there are, the latest first."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Annotated

import typer

from ...text import line
from ..filters import OfProject, OnBranch, WithMetadata, WithTag, metadata_of, moment_given
from ..root import app, options_of, run, show
from ..stores import store_on
from ..terminal.figures import ago, dollars, shortened, stamp
from ..terminal.session_figures import SessionFigures
from ..terminal.tables import Column, print_table

if TYPE_CHECKING:
    from ...database.driver import Database
    from ...queries.summary_pages import SessionPage

_SHORT_ID = 8


@app.command("sessions")
def sessions_command(
    context: typer.Context,
    project: OfProject = None,
    title: Annotated[
        str | None, typer.Option(help="With this text in the title or the first prompt.")
    ] = None,
    tag: WithTag = None,
    branch: OnBranch = None,
    metadata: WithMetadata = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Active since 7d or 12h ago, or since 2026-11-25 (UTC)."),
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="TIME", help="Not active since then.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Sessions on a page.")] = 20,
    after: Annotated[
        str | None, typer.Option(metavar="CURSOR", help="The next page, as the last one names it.")
    ] = None,
) -> None:
    """List the sessions of --tenant, the latest activity first.

    On a terminal ids are cut to what tells them apart, which is enough to name one by, and the
    table to the width; in a pipe all values are whole. Activity is what the store heard last of a
    session, an import included; the time shown is that of the transcript. LEASE is who holds a
    session. COST is by the agent's own account, EST by the prices of the tokens; a dash is
    what is not known.

    Example: session-store --tenant acme sessions --since 7d --title login
    """
    now = datetime.now(timezone.utc)
    wanted = metadata_of(metadata)
    begin = moment_given("--since", since, now)
    end = moment_given("--until", until, now)

    from ...database.server import server_of

    async def command(database: Database) -> tuple[SessionPage, datetime]:
        store = await store_on(context, database, upgrade=False)
        page = await store.sessions(
            project_key=project,
            title=title,
            tag=tag,
            branch=branch,
            metadata=wanted,
            since=begin,
            until=end,
            limit=limit,
            after=after,
        )
        return page, (await server_of(database.client)).now()

    page, read_at = run(context, command)
    rows = [SessionFigures(summary, read_at) for summary in page.sessions]
    options = options_of(context)
    if options.as_json:
        show(context, {"sessions": [row.as_json() for row in rows], "after": page.cursor}, "")
    elif rows:
        # What was imported at once is all equally recent to the store, but not to people.
        rows.sort(key=lambda row: row.at or now, reverse=True)
        print_table(_columns(rows, now), rows)
    else:
        typer.echo(f"No such sessions of tenant {line(options.tenant)}.", err=True)
    if page.cursor is not None and not options.as_json:
        typer.echo(f"There are more: --after {page.cursor}", err=True)


def _columns(rows: Sequence[SessionFigures], now: datetime) -> list[Column[SessionFigures]]:
    length = _telling_length([row.summary.session_id for row in rows])
    return [
        Column(
            "SESSION",
            lambda row: row.summary.session_id,
            lambda row: row.summary.session_id[:length],
            style="cyan",
        ),
        Column("CHANGED", lambda row: stamp(row.at), lambda row: ago(row.at, now), style="dim"),
        Column("TURNS", lambda row: _figure(row.turns), is_number=True),
        Column("TOOLS", lambda row: _figure(row.calls), is_number=True),
        Column(
            "TOKENS",
            lambda row: _figure(row.all_tokens),
            lambda row: shortened(row.all_tokens),
            is_number=True,
        ),
        Column(
            "COST",
            lambda row: "" if row.cost is None else f"{row.cost:.6f}",
            lambda row: dollars(row.cost),
            is_number=True,
        ),
        Column(
            "EST",
            lambda row: "" if row.estimated is None else f"{row.estimated:.6f}",
            lambda row: dollars(row.estimated),
            is_number=True,
        ),
        Column("PROJECT", lambda row: row.summary.project_key, largest=0.16, style="dim"),
        Column(
            "LEASE",
            # It may be of several words, and only the last column may.
            lambda row: "_".join(row.lease.owner.split()) if row.lease else "",
            lambda row: row.lease.owner if row.lease else "",
            largest=0.16,
            style="yellow",
            is_rare=True,
        ),
        Column("TITLE", lambda row: row.title, fills=True),
    ]


def _telling_length(ids: Sequence[str]) -> int:
    """How much of the ids is enough to tell each from the others."""
    different, longest = len(set(ids)), max(map(len, ids))
    lengths = range(_SHORT_ID, longest)
    return next((n for n in lengths if len({each[:n] for each in ids}) == different), longest)


def _figure(count: int | None) -> str:
    return "" if count is None else str(count)
