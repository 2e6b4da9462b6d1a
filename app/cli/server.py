"""The server that a call works on: that of a connection string, or one of the call's own."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ..errors import MongodStartError
from .exits import MISUSED, fail
from .settings import Options

if TYPE_CHECKING:
    from ..embedded.mongo import EmbeddedMongo

_EMBEDDED_DATABASE = "claude"


@contextmanager
def opened_server(options: Options) -> Generator[tuple[str, str | None]]:
    """A connection string and the name of the database, if the string does not have it.

    Raises:
        MongodNotFoundError, MongodStartError, OSError: the call's own server does not start.
    """
    settings = options.settings
    if options.embedded is None:
        if settings.mongodb_url is None:
            fail(
                "which server? Give --url, or set SESSION_STORE_MONGODB_URL, or give --embedded "
                "DIR for a server of your own.",
                MISUSED,
            )
        yield settings.mongodb_url.get_secret_value(), settings.database
        return
    if options.has_url:
        fail("--url and --embedded name two servers; give one of them.", MISUSED)
    if not options.embedded.exists():
        typer.echo(f"making a new server in {options.embedded}", err=True)
    mongo = _started(options.embedded, settings.mongod)
    try:
        yield mongo.url, settings.database or _EMBEDDED_DATABASE
    finally:
        mongo.stop()


def _started(directory: Path, mongod: str | None) -> EmbeddedMongo:
    from ..embedded.mongo import EmbeddedMongo

    mongo = EmbeddedMongo(directory=directory, mongod=mongod)
    try:
        return mongo.start()
    except MongodStartError as error:
        reason, log, _ = str(error).partition(" From the end of its log:")
        raise MongodStartError(
            # It is pages.
            f"{reason} See the end of {directory / 'member-1' / 'mongod.log'}." if log else reason
        ) from error
