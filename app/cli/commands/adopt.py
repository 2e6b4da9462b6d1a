"""``session-store adopt``: copy the sessions that another MongoDB adapter stored."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from ...adoption.sources import FIELDS, PRESETS, AdoptionSource, preset
from ...errors import AdoptionError
from ..blanks import is_blank
from ..exits import FAILED, MISUSED, fail
from ..root import app, models_of, options_of, run, show
from ..stores import encryption_of
from ..terminal.throttle import lines_on_progress

if TYPE_CHECKING:
    from ...adoption.report import AdoptionProblem, AdoptionReport
    from ...database.driver import Database


@app.command()
def adopt(
    context: typer.Context,
    source_url: Annotated[
        str | None,
        typer.Option(
            help="Connection string of the source; without it, the server of --url. "
            "[SESSION_STORE_SOURCE_URL]",
        ),
    ] = None,
    source_database: Annotated[
        str | None,
        typer.Option(help="The source's database; without it, that of its connection string."),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="NAME", help=f"Who wrote it: {' or '.join(PRESETS)}; else found out."
        ),
    ] = None,
    collection: Annotated[
        str | None, typer.Option(help="The source's collection of entries, if named otherwise.")
    ] = None,
    field: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=PATH",
            help=f"A field of the source that is named otherwise ({', '.join(FIELDS)}).",
        ),
    ] = None,
    project: Annotated[
        list[str] | None, typer.Option(help="Only this project key; may be repeated.")
    ] = None,
    tenant_for: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PREFIX=TENANT",
            help="Project keys that begin so go to this tenant, all others to --tenant.",
        ),
    ] = None,
    metadata: Annotated[
        str | None, typer.Option(metavar="JSON", help="Put on each session that is made.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Sessions to adopt at once.")] = 4,
    out_of_order: Annotated[
        bool,
        typer.Option(
            "--out-of-order",
            help="Of sessions that the store has later entries of, add the earlier ones behind.",
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what was found; write nothing.")
    ] = False,
) -> None:
    """Copy what another MongoDB adapter stored, to --tenant.

    The source is only read. Run it again after a failure, or to add what came since: nothing is
    stored twice. Exits with 1 if something could not be adopted.

    Example: session-store --url mongodb://localhost/claude --tenant acme adopt
    """
    from ...adoption.adopt import adopt as adopt_sessions
    from ...adoption.search import find_source
    from ...database.failures import reported

    models = models_of(context)
    options = options_of(context)
    encryption = encryption_of(context)
    try:
        wanted = _wanted(kind, collection, field or [])
        owner = _tenants(options.tenant, tenant_for or [])
        given = _metadata(metadata)
    except AdoptionError as error:
        fail(str(error), MISUSED)

    async def command(target: Database) -> AdoptionReport:
        async with _source(target, source_url or options.source_url, source_database) as database:
            with reported(database.client, "read the source"):
                found = await find_source(database, wanted)
            typer.echo(f"found {found}", err=True)
            return await adopt_sessions(
                database,
                target,
                tenant=owner,
                source=found,
                projects=project,
                metadata=given,
                entries=models.entries,
                summaries=models.summaries,
                workers=workers,
                out_of_order=out_of_order,
                dry_run=dry_run,
                on_progress=lines_on_progress(),
                on_problem=_problem,
                encryption=encryption,
            )

    report = run(context, command)
    text = str(report)
    if dry_run:
        text = f"would adopt {report.listed} sessions ({report.documents} documents)"
    show(context, {"dry_run": dry_run, **report.as_json()}, text)
    if report.problem_count:
        raise typer.Exit(FAILED)


@asynccontextmanager
async def _source(target: Database, url: str | None, name: str | None) -> AsyncGenerator[Database]:
    from ...storage.client import open_database

    if url is not None:
        async with open_database(url, name) as database:
            yield database
    else:
        yield target if name is None else target.client[name]


def _wanted(kind: str | None, collection: str | None, fields: list[str]) -> list[AdoptionSource]:
    changes: dict[str, Any] = {}
    for each in fields:
        name, _, path = each.partition("=")
        if name not in FIELDS:
            raise AdoptionError(f"--field {each}: there is no {name!r}; known: {', '.join(FIELDS)}")
        if is_blank(path):
            raise AdoptionError(f"--field {each}: write {name}=PATH.")
        changes[name] = path
    if collection is not None:
        changes["collection"] = collection
    kinds = PRESETS if kind is None else [kind]
    return [replace(preset(each), **changes) for each in kinds]


def _tenants(default: str, given: list[str]) -> str | Callable[[str], str]:
    prefixes: list[tuple[str, str]] = []
    for each in given:
        # The project key of a directory never holds "=", a tenant may.
        prefix, equals, tenant = each.partition("=")
        # Every project key begins with nothing.
        if not equals or is_blank(prefix) or is_blank(tenant):
            raise AdoptionError(f"--tenant-for {each}: write PREFIX=TENANT.")
        prefixes.append((prefix, tenant))
    # The longest prefix is the most exact one.
    prefixes.sort(key=lambda pair: -len(pair[0]))

    def tenant_of(project_key: str) -> str:
        return next((t for prefix, t in prefixes if project_key.startswith(prefix)), default)

    return tenant_of if prefixes else default


def _metadata(text: str | None) -> dict[str, Any] | None:
    try:
        value: object = None if text is None else json.loads(text)
    except ValueError as error:
        raise AdoptionError(f"--metadata is no JSON: {error}") from None
    if value is not None and not isinstance(value, dict):
        raise AdoptionError("--metadata must be a JSON object.")
    return cast("dict[str, Any] | None", value)


def _problem(problem: AdoptionProblem) -> None:
    typer.echo(f"problem: {problem}", err=True)
