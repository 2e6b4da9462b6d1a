"""``session-store erase``: all that is stored of a person, or of a tenant, and proof of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...text import line
from ..confirm import require_consent
from ..exits import FAILED, MISUSED, fail
from ..filters import WithMetadata, metadata_of
from ..root import app, options_of, run, show
from ..stores import store_on
from ..terminal.figures import counted

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

    from ...database.driver import Database
    from ...retention.erasure_check import ErasureCheck
    from ...retention.receipts import ErasureReceipt
    from ...retention.removal import Removal
    from ...sdk import SessionKey


@app.command("erase")
def erase_command(
    context: typer.Context,
    metadata: WithMetadata = None,
    whole_tenant: Annotated[
        bool, typer.Option("--whole-tenant", help="Instead: all sessions of --tenant.")
    ] = False,
    forks: Annotated[
        bool, typer.Option("--forks", help="Also what was forked from them, whosever it is.")
    ] = False,
    by: Annotated[
        str | None, typer.Option(help="Who erases, for the receipt; --actor or you, if not said.")
    ] = None,
    keep: Annotated[
        str, typer.Option(help="How long nothing is stored under the keys, such as 30d.")
    ] = "30d",
    receipt: Annotated[
        Path | None,
        typer.Option(help="Write the receipt to this new file as well.", dir_okay=False),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would be erased.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    verify: Annotated[
        Path | None,
        typer.Option(
            metavar="RECEIPT",
            exists=True,
            dir_okay=False,
            help="Instead: look whether what this receipt says is gone.",
        ),
    ] = None,
) -> None:
    """Erase all sessions of a person, so that none comes back.

    It shows what it would erase and asks. There is no way back. Held sessions stay, and are
    listed; so are forks of erased ones. An agent that still writes to an erased session is
    refused. The receipt is printed as JSON: keys and numbers, nothing of what was said. After an
    interruption run the same again. Exits with 1 if something could not be erased, or is there
    again.

    Example: session-store --tenant acme erase --metadata user_id=u1 --receipt u1-erased.json
    Example: session-store --tenant acme erase --verify u1-erased.json
    """
    if verify is not None:
        if metadata or whole_tenant or dry_run or receipt is not None:
            fail("--verify goes alone: it erases nothing.", MISUSED)
        return _verify(context, verify)
    subject = metadata_of(metadata)
    if (subject is None) != whole_tenant:
        fail("Say whose sessions: --metadata user_id=u1, or --whole-tenant.", MISUSED)
    if whole_tenant and options_of(context).named_tenant is None:
        fail("which tenant? --whole-tenant needs --tenant.", MISUSED)
    wanted: dict[str, Any] = {
        "metadata": subject,
        "forks": forks,
        "by": by or options_of(context).actor or _whoever_this_is(),
        "tombstones": _period(keep),
    }
    if receipt is not None and receipt.exists():
        fail(f"{receipt} is there already; nothing was erased. Name a new file.", MISUSED)

    async def erase(database: Database, *, dry_run: bool) -> ErasureReceipt:
        from ...every import EVERY

        store = await store_on(context, database, upgrade=False)
        whole = EVERY if whole_tenant else None
        report = None if dry_run else _report
        return await store.erase(whole, **wanted, dry_run=dry_run, on_progress=report)

    async def look(database: Database) -> ErasureReceipt:
        return await erase(database, dry_run=True)

    async def go(database: Database) -> ErasureReceipt:
        return await erase(database, dry_run=False)

    seen = run(context, look)
    _say(seen.held, "is held and stays")
    _say(seen.forked, "was forked from one of them and stays; --forks takes it too")
    counts = seen.counts or {}
    what = f"{counted(len(seen.sessions), 'session')} of {counts.get('entries', 0):,} entries"
    if dry_run:
        show(context, seen.as_json(), f"{what} would be erased")
        return
    require_consent(f"Erase {what}, with no way back?", yes)
    done = run(context, go)
    filed = json.dumps(done.as_json(), indent=1)
    # First, for the disk may be full.
    typer.echo(filed)
    if receipt is not None:
        _file(receipt, filed)
    if done.failed:
        names = ", ".join(_named(key) for key in done.failed[:5])
        fail(f"{counted(len(done.failed), 'session')} could not be erased, try again: {names}")


def _period(keep: str) -> timedelta:
    from ...retention.script import parsed

    try:
        period = parsed(keep)
    except ValueError as error:
        fail(f"--keep: {error}", MISUSED)
    if period is None:
        fail("--keep: a tombstone does not stand for ever; say 30d, 2w or 12h.", MISUSED)
    return period


def _file(path: Path, filed: str) -> None:
    from ...files.private_files import create_private_file

    try:
        with create_private_file(path) as file:
            file.write(filed.encode())
    except OSError as error:
        fail(f"what was to be erased is erased, but {path} cannot be written: {error}")


def _verify(context: typer.Context, path: Path) -> None:
    try:
        filed = json.loads(path.read_bytes())
    except ValueError:
        fail(f"{path} is no receipt: it is no JSON.", MISUSED)

    async def check(database: Database) -> ErasureCheck:
        store = await store_on(context, database, upgrade=False)
        return await store.verify_erasure(filed)

    found = run(context, check)
    for remnant in found.remnants:
        typer.echo(f"{line(str(remnant))}", err=True)
    _say(found.since, "is there of the same subject, and not of this erasure")
    value = {
        "holds": found.holds,
        "sessions": found.sessions,
        "remnants": [
            {
                "project_key": each.project_key,
                "session_id": each.session_id,
                "documents": dict(each.documents),
            }
            for each in found.remnants
        ],
        "since": [dict(key) for key in found.since],
    }
    text = f"nothing is there of {counted(found.sessions, 'erased session')}"
    if not found.holds:
        text = f"{counted(len(found.remnants), 'erased session')} left something, or came back"
    show(context, value, text)
    if not found.holds:
        raise typer.Exit(FAILED)


def _whoever_this_is() -> str | None:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        # A process in a container may have no name.
        return None


def _say(keys: Sequence[SessionKey], what: str) -> None:
    for key in keys:
        typer.echo(f"{_named(key)} {what}", err=True)


def _named(key: SessionKey) -> str:
    return line(f"session {key['session_id']!r} of project {key['project_key']!r}")


def _report(done: Removal) -> None:
    typer.echo(f"{counted(done.deleted, 'session')} erased so far", err=True)
