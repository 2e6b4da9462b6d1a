"""Opening a database from a connection string."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

from pymongo.errors import PyMongoError

from ..concurrency.cancellation import Work, completed, ended, under_way
from ..database.driver import Client, Database, close_client, open_client
from ..database.failures import URL_ADVICE
from ..errors import InvalidURLError
from .background import stop


@asynccontextmanager
async def open_database(uri: str, name: str | None) -> AsyncGenerator[Database]:
    """The database of a connection string, with a client that is closed at exit.

    What is under way in the event loop then has ten seconds to end, or else to roll back, even if
    the caller is cancelled once more.

    Raises:
        InvalidURLError: the connection string is malformed, or neither it nor ``name`` names a
            database. The error never repeats the connection string, which may hold a password.
    """
    if not isinstance(uri, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidURLError(f"The connection string must be a string, not {type(uri).__name__}.")
    async with AsyncExitStack() as stack:
        try:
            client = open_client(uri)
            stack.push_async_callback(_close, client)
            stack.push_async_callback(stop, client)
            database = client[name] if name is not None else client.get_default_database()
        # The file of a certificate, of which its name is no secret.
        except OSError as error:
            raise InvalidURLError(
                f"The connection string cannot be used: {error.filename or 'a file'} that it names "
                f"cannot be read ({error.strerror or type(error).__name__}). {URL_ADVICE}"
            ) from None
        # The driver's own words and the chain of causes may quote parts of a password.
        except (PyMongoError, ValueError, TypeError) as error:
            kind = type(error).__name__
            raise InvalidURLError(
                f"The connection string cannot be used ({kind}). {URL_ADVICE}"
            ) from None
        yield database


async def _close(client: Client) -> None:
    # Taken now, or two that are closed at once would wait for each other.
    await completed(_close_behind(under_way(), client), "close the client")


async def _close_behind(work: Work, client: Client) -> None:
    try:
        await ended(work)
    finally:
        await close_client(client)
