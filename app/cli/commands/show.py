"""``session-store show``: what was said and done in a session."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...errors import UnknownSessionError
from ...text import line
from ..completion import projects, session_ids
from ..exits import MISUSED, fail
from ..root import app, options_of, run
from ..stores import store_on
from ..terminal.figures import counted, dollars, shortened, stamp
from ..terminal.session_figures import SessionFigures, held

if TYPE_CHECKING:
    from ...database.driver import Database
    from ...leases.lease import Lease
    from ...reading.listings import SessionListing
    from ...reading.stream import StreamedEntry
    from ...store import BeanieSessionStore


@app.command("show")
def show_command(
    context: typer.Context,
    session: Annotated[
        str,
        typer.Argument(
            metavar="SESSION",
            help="The id, or as much of it as tells it apart.",
            autocompletion=session_ids,
        ),
    ],
    project: Annotated[
        str | None,
        typer.Option(
            help="The project key, where several have the session.", autocompletion=projects
        ),
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="All that tools were given and returned, not one line.")
    ] = False,
    raw: Annotated[
        bool, typer.Option("--raw", help="The stored entries as they are, a line of JSON each.")
    ] = False,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on with what is written, until interrupted.")
    ] = False,
) -> None:
    """Print the transcript of a session.

    Subagents stand below the calls that started them. With --raw and --json come first the entries
    of the main transcript, then those of each subagent; --json puts each in an object that tells
    its transcript and position.

    Example: session-store --tenant acme show 6645a6b0 | less
    """
    from ..terminal.transcript_lines import TranscriptLines
    from ..terminal.transcript_order import NestedTranscripts

    as_json = options_of(context).as_json
    if raw and as_json:
        fail("--raw and --json are two forms; give one of them.", MISUSED)
    if full and (raw or as_json):
        fail("--full is for reading; --raw and --json are full as they are.", MISUSED)

    async def command(database: Database) -> None:
        store = await store_on(context, database, upgrade=False)
        named = await store.session_named(session, project)
        summary = await store.summary(named.key())
        if summary is None:
            raise UnknownSessionError(f"The session {line(session)} was deleted just now.")
        until = summary.next_seq - 1
        if raw or as_json:
            async for entry in _entries(store, named, until, follow):
                _print_json(entry, with_place=as_json)
            return
        transcripts = NestedTranscripts(store, named)
        lines = TranscriptLines(is_full=full)
        lease = await store.lease_of(named.key())
        lines.head(*_head(store, SessionFigures(summary), lease))
        async for depth, piece in transcripts.stored(until):
            lines.write(depth, piece)
        if follow:
            sys.stdout.flush()
            async for entry in _new_entries(store, named, until):
                async for depth, piece in transcripts.added(entry):
                    lines.write(depth, piece)
                sys.stdout.flush()

    run(context, command, until_interrupted=follow)


async def _entries(
    store: BeanieSessionStore, session: SessionListing, until: int, follow: bool
) -> AsyncIterator[StreamedEntry]:
    for subpath in ("", *sorted(await store.list_subkeys(session.subkeys_key))):
        async for entry in store.stream(session.key(subpath)):
            if entry.seq > until:
                break
            yield entry
    if follow:
        sys.stdout.flush()
        async for entry in _new_entries(store, session, until):
            yield entry
            sys.stdout.flush()


async def _new_entries(
    store: BeanieSessionStore, session: SessionListing, after: int
) -> AsyncIterator[StreamedEntry]:
    async with aclosing(store.watch(session.key(), after, with_subagents=True)) as entries:
        async for entry in entries:
            yield entry


def _print_json(entry: StreamedEntry, *, with_place: bool) -> None:
    value: Any = entry
    if with_place:
        value = {"subpath": entry.subpath, "seq": entry.seq, "entry": entry}
    # The one control character that JSON lets through.
    print(json.dumps(value).replace("\x7f", "\\u007f"))


def _head(
    store: BeanieSessionStore, figures: SessionFigures, lease: Lease | None
) -> tuple[str, str]:
    summary = figures.summary
    facts = [
        f"session {line(summary.session_id)}",
        f"project {line(summary.project_key)}, tenant {line(store.tenant)}",
    ]
    if figures.turns is not None:
        failed = f" ({figures.failures} failed)" if figures.failures else ""
        calls = counted(figures.calls or 0, "tool call")
        facts.append(
            f"{counted(figures.turns, 'turn')}, {calls}{failed}, "
            f"{shortened(figures.all_tokens)} tokens, {dollars(figures.cost)} by the "
            f"agent's account, {dollars(figures.estimated)} estimated"
        )
    facts.append(f"last change {stamp(figures.at)}")
    if lease is not None:
        facts.append(held(lease))
    return line(figures.title) or "Untitled session", "\n".join(facts)
