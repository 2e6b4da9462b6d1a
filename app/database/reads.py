"""Reads that are tried again after an election, or where a cursor or a snapshot was lost."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from pymongo.errors import (
    AutoReconnect,
    CursorNotFound,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
)

from .attempts import Attempts
from .driver import Client, ClientSession
from .elections import confirmed_primary
from .overload import is_refused
from .server import Server
from .transactions import is_not_ready, snapshot

_SNAPSHOT_UNAVAILABLE = 246
_SNAPSHOT_TOO_OLD = 239

T = TypeVar("T")


async def retried(client: Client, attempt: Callable[[], Awaitable[T]]) -> T:
    """Run a read, from its start again where it :func:`is_resumable`."""
    attempts = Attempts()
    while True:
        try:
            async with confirmed_primary(client):
                return await attempt()
        except PyMongoError as error:
            if not is_resumable(error) or not await attempts.pause(error):
                raise


def is_resumable(error: PyMongoError) -> bool:
    """Whether a read may be tried again: after an election, a loss, or where it was refused."""
    if is_not_ready(error) or is_refused(error):
        return True
    if isinstance(error, OperationFailure):
        return isinstance(error, CursorNotFound) or error.code in (
            _SNAPSHOT_TOO_OLD,
            _SNAPSHOT_UNAVAILABLE,
        )
    # The driver has waited its full time already when it selects no server.
    return isinstance(error, AutoReconnect) and not isinstance(error, ServerSelectionTimeoutError)


async def confirmed(
    client: Client, server: Server, read: Callable[[ClientSession | None], Awaitable[T]]
) -> T:
    """What is read of a transcript, of one moment that a majority has.

    An entry that only a primary without followers has may be lost yet, so a batch that is found
    there must not be acknowledged. It is no transaction, for a comparison with a large session
    may take longer than those may last.
    """

    async def attempt() -> T:
        async with snapshot(client, server) as session:
            return await read(session)

    return await retried(client, attempt)
