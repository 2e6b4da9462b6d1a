"""Transactions and snapshots: what becomes of each that fails."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from typing import TypeVar

import pymongo
from pymongo import ReadPreference
from pymongo.errors import (
    ConfigurationError,
    InvalidOperation,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WriteConcernError,
)

from .abandoned import MARKED, end_abandoned
from .attempts import Attempts
from .driver import MAJORITY, Client, ClientSession, awaited, start_session
from .overload import is_refused
from .server import Server
from .server_codes import INTERRUPTED, NO_SUCH_TRANSACTION, WRITE_CONFLICT

T = TypeVar("T")

_ABORT_SECONDS = 5.0


class TransientFailureError(Exception):
    """A transaction left nothing behind and may be tried again; the cause says why."""


class OutcomeUnknownError(Exception):
    """A commit was sent but no server said in time whether it holds; the cause says why."""


class DoneInPartError(Exception):
    """What was asked for holds, and what belongs to it failed; the cause says why.

    Its text says what holds and who does the rest.
    """


@contextlib.contextmanager
def holds_already(what: str) -> Generator[None]:
    """Say ``what`` holds whatever fails inside.

    Raises:
        DoneInPartError: something failed.
    """
    try:
        yield
    except (PyMongoError, TransientFailureError, OutcomeUnknownError) as error:
        raise DoneInPartError(what) from error


@contextlib.asynccontextmanager
async def snapshot(client: Client, server: Server) -> AsyncGenerator[ClientSession | None]:
    """A client session whose reads all see one majority-committed moment.

    Without it a delete between two batches of a cursor would show as a shorter transcript.
    ``None`` on a standalone server, which has no such reads.
    """
    if not server.has_transactions:
        yield None
        return
    session = await start_session(client, snapshot=True)
    async with session:
        yield session


async def transact(
    client: Client,
    server: Server,
    work: Callable[[ClientSession | None], Awaitable[T]],
    attempts: Attempts,
) -> T:
    """Run ``work`` in one transaction and commit it.

    On a standalone server ``work`` is called with ``None`` and runs without one.

    Raises:
        TransientFailureError: nothing was stored, trying again may help.
        OutcomeUnknownError: the commit was sent, but not answered before time ran out.
    """
    if not server.has_transactions:
        return await work(None)
    session = await start_session(client)
    async with session:
        # Else reads would follow the client's options, some of which no transaction takes.
        await awaited(
            session.start_transaction(
                read_concern=MARKED,
                write_concern=MAJORITY,
                read_preference=ReadPreference.PRIMARY,
            )
        )
        try:
            result = await work(session)
        except BaseException as error:
            # Without a limit it would wait for a server that is gone, while the caller waits.
            with contextlib.suppress(PyMongoError), pymongo.timeout(_ABORT_SECONDS):
                await session.abort_transaction()
            if _is_transient(error):
                attempts.heed(error)
                if _has_code(error, WRITE_CONFLICT):
                    await end_abandoned(client, attempts.elapsed)
                raise TransientFailureError from error
            raise
        await _commit(session, attempts)
        return result


async def _commit(session: ClientSession, attempts: Attempts) -> None:
    while True:
        try:
            await session.commit_transaction()
            return
        except PyMongoError as error:
            if (
                error.has_error_label("UnknownTransactionCommitResult")
                or is_refused(error)
                or is_not_ready(error)
                or _has_code(error, INTERRUPTED)
            ):
                # Sending the commit of one transaction again is safe: it holds once or not at all.
                if not await attempts.pause(error):
                    raise OutcomeUnknownError from error
            elif _is_labelled_transient(error):
                raise TransientFailureError from error
            elif _has_code(error, NO_SUCH_TRANSACTION):
                # Without a label: an earlier commit may hold on a member that answers no more.
                raise OutcomeUnknownError from error
            elif isinstance(error, WriteConcernError):
                # It is done, and no majority has confirmed it yet.
                raise OutcomeUnknownError from error
            else:
                raise


def is_conflict(error: TransientFailureError) -> bool:
    """Whether it failed because another transaction writes to the same document."""
    return error.__cause__ is not None and _has_code(error.__cause__, WRITE_CONFLICT)


def _is_transient(error: BaseException) -> bool:
    # It is interrupted where another writer took it for abandoned.
    return (
        is_refused(error)
        or is_not_ready(error)
        or _has_code(error, NO_SUCH_TRANSACTION, INTERRUPTED)
        or _is_labelled_transient(error)
    )


def _is_labelled_transient(error: BaseException) -> bool:
    return (
        isinstance(error, PyMongoError)
        and error.has_error_label("TransientTransactionError")
        # The driver labels these too, but has waited its full time already, or was closed.
        and not isinstance(error, (InvalidOperation, ServerSelectionTimeoutError))
    )


def _has_code(error: BaseException, *codes: int) -> bool:
    return isinstance(error, OperationFailure) and error.code in codes


def is_not_ready(error: BaseException) -> bool:
    """Whether a member was asked that starts up or rolls back.

    The driver takes it for a deployment without sessions.
    """
    return isinstance(error, ConfigurationError) and "Sessions are not supported" in str(error)
