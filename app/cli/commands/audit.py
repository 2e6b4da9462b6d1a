"""``session-store audit``: who erased, deleted, exported, held and read."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Annotated, cast

import typer

from ...every import EVERY, Every
from ...text import line
from ..exits import FAILED, MISUSED, fail
from ..filters import moment_given
from ..root import app, options_of, run, show
from ..terminal.figures import counted

if TYPE_CHECKING:
    from ...audit.chain import AuditCheck
    from ...audit.records import AuditRecord
    from ...database.driver import Database


@app.command("audit")
def audit_command(
    context: typer.Context,
    since: Annotated[str | None, typer.Option(help="Only from then on, such as 7d.")] = None,
    all_tenants: Annotated[
        bool,
        typer.Option(
            "--all-tenants", help="Instead of --tenant: what was done to all tenants at once."
        ),
    ] = False,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Instead: look whether any record was changed or removed."),
    ] = False,
    head: Annotated[
        str | None,
        typer.Option(
            metavar="SEQ:SHA256",
            help="With --verify: what it printed before, by which a loss at the end shows.",
        ),
    ] = None,
) -> None:
    """Show who did what to sessions, as it was recorded.

    With --json one object a line. --verify exits with 1 if records were changed, removed, moved
    or put in between; keep the head that it prints somewhere else.

    Example: session-store --tenant acme audit --since 7d
    Example: session-store --tenant acme audit --verify
    """
    tenant = EVERY if all_tenants else options_of(context).tenant
    if head is not None and not verify:
        fail("--head goes with --verify.", MISUSED)
    if verify:
        if since is not None:
            fail("--verify looks at all records; leave --since out.", MISUSED)
        return _verify(context, tenant, head)
    moment = moment_given("--since", since, datetime.now(timezone.utc))
    as_json = options_of(context).as_json

    async def print_all(database: Database) -> int:
        from ...audit.chain import audit_records

        records = 0
        async for each in audit_records(database, tenant=tenant, since=moment):
            records += 1
            typer.echo(json.dumps(each.as_json()) if as_json else _shown(each))
        return records

    if not run(context, print_all) and not as_json:
        typer.echo("Nothing is recorded. Stores record with audit=True, this command with --actor.")


def _verify(context: typer.Context, tenant: str | Every, head: str | None) -> None:
    async def check(database: Database) -> AuditCheck:
        from ...audit.chain import verify_audit

        return await verify_audit(database, tenant=tenant, head=head)

    found = run(context, check)
    for fault in found.faults:
        typer.echo(line(str(fault)), err=True)
    value = {
        "holds": found.holds,
        "records": found.records,
        "head": found.head,
        "faults": [{"seq": each.seq, "reason": each.reason} for each in found.faults],
    }
    records = counted(found.records, "record")
    text = f"{records} as written; head {found.head}" if found.head else "nothing is recorded"
    if not found.holds:
        text = f"{records}, and not as written"
    show(context, value, text)
    if not found.holds:
        raise typer.Exit(FAILED)


def _shown(record: AuditRecord) -> str:
    words = [str(record.seq), f"{record.at:%Y-%m-%d %H:%M:%S}", record.actor, record.action]
    if record.session_id is not None:
        words.append(f"{record.project_key}/{record.session_id}")
    if record.subpath:
        words.append(record.subpath)
    words += [f"{name}={_said(value)}" for name, value in record.details.items()]
    return line(" ".join(words))


def _said(value: object) -> str:
    if isinstance(value, list):
        return ",".join(str(each) for each in cast("list[object]", value))
    return str(value)
