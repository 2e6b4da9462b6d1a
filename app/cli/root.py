"""The command ``session-store``: its global options, and how its commands run.

A module of :mod:`.commands` adds itself to :data:`app` when it is imported, and
does its work inside :func:`run`, which turns every known failure into one line on stderr.

What takes long to import (Beanie, the driver, the SDK, Rich) these modules import inside the
functions that work with it, so that a help, a completion or a mistake is answered at once.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import signal
from collections.abc import Awaitable, Callable
from importlib.metadata import version as version_of
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from ..errors import (
    InvalidActorError,
    InvalidKeyError,
    InvalidMigrationError,
    InvalidModelError,
    InvalidPriceError,
    InvalidQueryError,
    InvalidReceiptError,
    InvalidRetentionError,
    InvalidURLError,
    SessionStoreError,
    TransferError,
)
from ..text import plain

try:
    import typer

    from .program import NAME, Given, Program

    for name in ("pydantic_settings", "rich"):
        if find_spec(name) is None:
            raise ModuleNotFoundError(name=name)
except ImportError as missing:
    # The command was installed with the package, but not what it runs on.
    raise SystemExit(
        f"session-store needs {missing.name}, which is not installed: "
        "pip install 'beanie-session-store[cli]'"
    ) from None

from .blanks import BlankSettingError
from .exits import INTERRUPTED, MISUSED, TERMINATED, fail, warn_in_a_line

if TYPE_CHECKING:
    from ..database.driver import Database
    from ..storage.connection import StoreModels
    from .settings import Options

T = TypeVar("T")

_MISUSES = (
    InvalidActorError,
    InvalidKeyError,
    InvalidMigrationError,
    InvalidModelError,
    InvalidPriceError,
    InvalidQueryError,
    InvalidReceiptError,
    InvalidRetentionError,
    InvalidURLError,
    TransferError,
)

COMMANDS = (
    *("sessions", "show", "stats", "serve", "verify", "delete", "erase", "audit"),
    *("doctor", "health", "schema", "retention", "lease", "keys"),
    *("adopt", "imports", "exports", "copies"),
)

app = typer.Typer(
    name=NAME,
    cls=Program,
    no_args_is_help=True,
    # Plain text reads well in the log of a deploy job.
    rich_markup_mode=None,
    # Typer's own traceback shows local variables: transcripts, connection strings.
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(version_of("beanie-session-store"))
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    url: Annotated[
        str | None,
        typer.Option(
            help="Connection string: mongodb://... or mongodb+srv://... "
            "[SESSION_STORE_MONGODB_URL]",
        ),
    ] = None,
    embedded: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            file_okay=False,
            help="Instead of --url: start a server for this call, with its data in DIR.",
        ),
    ] = None,
    database: Annotated[
        str | None,
        typer.Option(
            help="The database, where the connection string names none. [SESSION_STORE_DATABASE]",
        ),
    ] = None,
    tenant: Annotated[
        str | None,
        typer.Option(
            help='Whose sessions to work on; "default" if not said. [SESSION_STORE_TENANT]'
        ),
    ] = None,
    entries: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:CLASS",
            help="Your own Document class for entries, such as acme.models:AcmeEntry. "
            "[SESSION_STORE_ENTRIES]",
        ),
    ] = None,
    summaries: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:CLASS",
            help="Your own Document class for summaries. [SESSION_STORE_SUMMARIES]",
        ),
    ] = None,
    actor: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Who you are: what you erase, delete, export, copy, hold or serve is then "
            "recorded, see audit. [SESSION_STORE_ACTOR]",
        ),
    ] = None,
    prices: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:TABLE",
            help="Your own PriceTable, to estimate costs with. [SESSION_STORE_PRICES]",
        ),
    ] = None,
    keys: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            dir_okay=False,
            help="The keys that sessions are encrypted with; without it all is read and stored "
            "plain. [SESSION_STORE_KEYS]",
        ),
    ] = None,
    keys_subject: Annotated[
        str | None,
        typer.Option(
            metavar="FIELD",
            help="With --keys: the field of metadata whose values have keys of their own. "
            "[SESSION_STORE_KEYS_SUBJECT]",
        ),
    ] = None,
    env_file: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            metavar="FILE",
            help="Read what the environment does not set from this file; none is read unasked.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_print_version, help="Print it."),
    ] = False,
) -> None:
    """Look after the sessions of a Claude Agent SDK session store, and its database.

    These options may also stand behind a command. Those with a name in brackets can be set in the
    environment instead, by that name.

    Example:

        export SESSION_STORE_MONGODB_URL=mongodb://localhost:27017/claude

        session-store schema upgrade
    """


def options_of(context: typer.Context) -> Options:
    """The global options that the command was called with; ends the process as `run`."""
    from .settings import Options

    given = context.find_object(Given)
    assert given is not None
    try:
        return Options.of(given.values)
    except BlankSettingError as error:
        fail(str(error), MISUSED)
    except (ValueError, OSError):
        fail(f"the file {given.values.get('env_file')} cannot be read as settings.", MISUSED)


def models_of(context: typer.Context) -> StoreModels:
    """The Document classes that the global options name, else ours; ends the process as `run`."""
    try:
        return options_of(context).classes.load()
    except InvalidModelError as error:
        fail(str(error), MISUSED)


def run(
    context: typer.Context,
    command: Callable[[Database], Awaitable[T]],
    *,
    until_interrupted: bool = False,
) -> T:
    """Run a command on the database that the global options name, and return what it returns.

    A failure ends the process: one line on stderr and exit code 1 for what went wrong, 2 for a
    missing or malformed option.
    """
    import asyncio

    from .server import opened_server

    options = options_of(context)
    try:
        with opened_server(options) as (url, name):
            return asyncio.run(_with_database(url, name, command))
    except _MISUSES as error:
        fail(str(error).replace("database=...", "--database"), MISUSED)
    except BrokenPipeError:
        raise
    except (SessionStoreError, OSError) as error:
        fail(str(error))
    except KeyboardInterrupt:
        if until_interrupted:
            raise typer.Exit(INTERRUPTED) from None
        fail("interrupted", INTERRUPTED)
    except asyncio.CancelledError:
        fail("terminated", TERMINATED)


def show(context: typer.Context, value: Any, text: str) -> None:
    """Print the outcome: ``value`` as JSON with ``--json``, else ``text``.

    ``value`` is of JSON types and dates.
    """
    as_json = options_of(context).as_json
    typer.echo(json.dumps(value, default=str) if as_json else plain(text))


async def _with_database(
    url: str, name: str | None, command: Callable[[Database], Awaitable[T]]
) -> T:
    import asyncio

    from ..database.failures import reported
    from ..storage.client import open_database

    running = asyncio.current_task()
    assert running is not None
    # It ends as an interrupt does: what is being written is written, or rolled back. Only the main
    # thread hears of it, and not on every system.
    with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
    async with open_database(url, name) as database:
        with reported(database.client, "run the command"):
            return await command(database)


def main() -> None:
    """What the installed command ``session-store`` calls."""
    warn_in_a_line()
    load_commands()
    app()


def load_commands() -> None:
    """Import the modules of commands, each of which adds itself to :data:`app`."""
    for name in COMMANDS:
        if find_spec(f"{__package__}.commands.{name}") is not None:
            importlib.import_module(f".commands.{name}", __package__)
