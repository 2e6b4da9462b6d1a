"""The command ``session-store``: its global options, and how its commands run.

A module of commands, such as :mod:`.schema`, adds itself to :data:`app` when it is imported, and
does its work inside :func:`run`, which turns every known failure into one line on stderr.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Annotated, Any, NoReturn, TypeVar

from ..client import open_database
from ..connection import StoreModels
from ..driver import Database
from ..errors import (
    InvalidKeyError,
    InvalidMigrationError,
    InvalidModelError,
    InvalidURLError,
    SessionStoreError,
    TransferError,
)
from ..failures import reported

try:
    import typer
except ImportError:
    # The command was installed with the package, but not what it runs on.
    raise SystemExit(
        "session-store needs typer, which is not installed: pip install 'beanie-session-store[cli]'"
    ) from None

from .document_classes import DocumentClasses

T = TypeVar("T")

FAILED = 1
MISUSED = 2
"""Exit codes: what was asked for failed; it was asked for wrongly."""

_MISUSES = (
    InvalidKeyError,
    InvalidMigrationError,
    InvalidModelError,
    InvalidURLError,
    TransferError,
)

COMMANDS = ("schema", "retention", "adopt", "imports", "exports", "copies")

app = typer.Typer(
    name="session-store",
    no_args_is_help=True,
    # Plain text reads well in the log of a deploy job.
    rich_markup_mode=None,
    # Typer's own traceback shows local variables: transcripts, connection strings.
    pretty_exceptions_enable=False,
    add_completion=False,
)


@dataclass(frozen=True, slots=True)
class Options:
    """The global options of one call."""

    url: str | None
    database: str | None
    tenant: str
    as_json: bool
    classes: DocumentClasses


@app.callback()
def root(
    context: typer.Context,
    url: Annotated[
        str | None,
        typer.Option(
            envvar="SESSION_STORE_MONGODB_URL",
            show_envvar=True,
            help="Connection string: mongodb://... or mongodb+srv://...",
        ),
    ] = None,
    database: Annotated[
        str | None,
        typer.Option(
            envvar="SESSION_STORE_DATABASE",
            help="The database, where the connection string names none.",
        ),
    ] = None,
    tenant: Annotated[
        str,
        typer.Option(envvar="SESSION_STORE_TENANT", help="Whose sessions to work on."),
    ] = "default",
    entries: Annotated[
        str | None,
        typer.Option(
            envvar="SESSION_STORE_ENTRIES",
            metavar="MODULE:CLASS",
            help="Your own Document class for entries, such as acme.models:AcmeEntry.",
        ),
    ] = None,
    summaries: Annotated[
        str | None,
        typer.Option(
            envvar="SESSION_STORE_SUMMARIES",
            metavar="MODULE:CLASS",
            help="Your own Document class for summaries.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
) -> None:
    """Look after the database of a Claude Agent SDK session store.

    Example:

        export SESSION_STORE_MONGODB_URL=mongodb://localhost:27017/claude

        session-store schema upgrade
    """
    classes = DocumentClasses(entries, summaries)
    context.obj = Options(url or None, database or None, tenant, as_json, classes)


def options_of(context: typer.Context) -> Options:
    """The global options that the command was called with."""
    options = context.find_object(Options)
    assert options is not None
    return options


def models_of(context: typer.Context) -> StoreModels:
    """The Document classes that the global options name, else ours; ends the process as `run`."""
    try:
        return options_of(context).classes.load()
    except InvalidModelError as error:
        fail(str(error), MISUSED)


def run(context: typer.Context, command: Callable[[Database], Awaitable[T]]) -> T:
    """Run a command on the database that the global options name, and return what it returns.

    A failure ends the process: one line on stderr and exit code 1 for what went wrong, 2 for a
    missing or malformed option.
    """
    options = options_of(context)
    if options.url is None:
        raise typer.BadParameter(
            "which server? Give --url or set SESSION_STORE_MONGODB_URL.", param_hint="--url"
        )
    try:
        return asyncio.run(_with_database(options.url, options.database, command))
    except _MISUSES as error:
        fail(str(error).replace("database=...", "--database"), MISUSED)
    except (SessionStoreError, OSError) as error:
        fail(str(error))
    except KeyboardInterrupt:
        fail("interrupted", 130)


def fail(message: str, code: int = FAILED) -> NoReturn:
    """End the process with one line on stderr."""
    line = " ".join(message.split())
    typer.echo(f"error: {line}", err=True)
    raise typer.Exit(code)


def show(context: typer.Context, value: Any, text: str) -> None:
    """Print the outcome: ``value`` as JSON with ``--json``, else ``text``.

    ``value`` is of JSON types and dates.
    """
    typer.echo(json.dumps(value, default=str) if options_of(context).as_json else text)


async def _with_database(
    url: str, name: str | None, command: Callable[[Database], Awaitable[T]]
) -> T:
    async with open_database(url, name) as database:
        with reported(database.client, "run the command"):
            return await command(database)


def main() -> None:
    """What the installed command ``session-store`` calls."""
    # As with `python -m`, so that --entries finds the classes of the project it is run in.
    sys.path.insert(0, os.getcwd())  # noqa: PTH109
    load_commands()
    app()


def load_commands() -> None:
    """Import the modules of commands, each of which adds itself to :data:`app`."""
    for name in COMMANDS:
        if find_spec(f"{__package__}.{name}") is not None:
            importlib.import_module(f".{name}", __package__)
