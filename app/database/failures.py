"""The driver's failures as errors of our own tree, which say what to do."""

from __future__ import annotations

import asyncio
import os
import re
from types import TracebackType
from typing import Any

from bson.errors import BSONError
from pymongo.errors import (
    BulkWriteError,
    ConfigurationError,
    ConnectionFailure,
    InvalidOperation,
    OperationFailure,
    PyMongoError,
    WriteConcernError,
)

from ..concurrency import forks
from ..errors import (
    AccessDeniedError,
    ClientClosedError,
    ContentionError,
    EventLoopError,
    InvalidURLError,
    ServerError,
    SessionStoreError,
    SlowQueryError,
    UnreachableError,
)
from .driver import Client, is_of_parent, is_of_running_loop, require_installed_driver
from .overload import is_refused
from .server_codes import (
    AUTHENTICATION_FAILED,
    NO_SUCH_TRANSACTION,
    TIME_LIMIT,
    TRANSACTION_TOO_LARGE,
    UNAUTHORIZED,
    WRITE_CONFLICT,
)
from .transactions import DoneInPartError, OutcomeUnknownError, TransientFailureError, is_not_ready

URL_ADVICE = (
    "It must read mongodb://user:password@host:port/database or mongodb+srv://..., with special "
    "characters of user and password percent-encoded; or name the database with database=... "
    "where the string has none."
)

FORK_ADVICE = (
    "Make the client, call init_beanie and asyncio.run() in the child, after the fork: in the "
    "lifespan of the app under gunicorn (with preload_app too), in worker_process_init under "
    "Celery; or start children with multiprocessing's 'spawn'."
)


NOTHING = "nothing was changed"
NOT_KNOWN = "whether it was done is not known; calling it again is safe"
"""The outcome of one write, or of several of which each says what is left to do."""
IN_STEPS = "what was done before that stays, and calling it again goes on from there"


def require_asyncio() -> None:
    """Refuse a caller that does not run in asyncio.

    Raises:
        EventLoopError: there is no running asyncio loop, as under trio.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        if forks.was_in_loop:
            raise EventLoopError(
                f"The session store was used in a fork (process {os.getpid()}) that was made "
                "inside a running event loop, which does not run on in the fork; nothing was read "
                f"or written. {FORK_ADVICE}"
            ) from None
        raise EventLoopError(
            "The session store needs asyncio, which MongoDB's drivers are built on; there is no "
            "running asyncio event loop here. Under trio, run the agent in a thread with "
            "asyncio.run()."
        ) from None


class reported:
    """Raise what the driver raises inside as an error of our own tree.

    ``doing`` says in words what was attempted, such as ``"append to", key``, and ``outcome`` what
    a failure left behind: nothing by default, for reads and transactions. ``unanswered`` is the
    same where no server answered. It is no generator, for every append takes this way, and its
    words are put together only when they are needed.
    """

    __slots__ = ("_client", "_doing", "_outcome", "_unanswered")

    def __init__(
        self, client: Client, *doing: object, outcome: str = NOTHING, unanswered: str | None = None
    ) -> None:
        self._client = client
        self._doing = doing
        self._outcome = outcome
        self._unanswered = unanswered or outcome

    def __enter__(self) -> None:
        require_installed_driver(self._client)
        if not is_of_running_loop(self._client):
            raise self._wrong_loop()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        outcome = self._outcome
        if isinstance(error, DoneInPartError):
            outcome, error = str(error), error.__cause__
        if isinstance(error, (TransientFailureError, OutcomeUnknownError)):
            if isinstance(error, OutcomeUnknownError) and outcome == NOTHING:
                outcome = (
                    "whether it was stored is not known; trying again with the same entries is safe"
                    if self._unanswered == NOTHING
                    else self._unanswered
                )
            error = error.__cause__
            assert isinstance(error, PyMongoError)
        elif isinstance(error, ConnectionFailure) and outcome == self._outcome:
            outcome = self._unanswered
        if isinstance(error, PyMongoError):
            raise translated(error, self._client, self._said(), outcome) from _cause(error)
        if isinstance(error, BSONError):
            raise ServerError(
                f"Could not {self._said()}: MongoDB's driver cannot put it into a document, or "
                f"read what is stored ({type(error).__name__}: {_first_line(error)}); {outcome}. "
                "Pass less at once; if it goes on, look at what else writes to the database."
            ) from error
        is_ours = isinstance(error, SessionStoreError)
        if isinstance(error, RuntimeError) and not is_ours and "event loop" in str(error):
            raise self._wrong_loop() from error

    def _said(self) -> str:
        return " ".join(map(str, self._doing))

    def _wrong_loop(self) -> EventLoopError:
        if is_of_parent(self._client):
            return EventLoopError(
                f"Could not {self._said()}: the MongoDB client was opened by another process, of "
                f"which this one ({os.getpid()}) is a fork, and serves that one alone; nothing was "
                f"read or written. {FORK_ADVICE}"
            )
        return EventLoopError(
            f"Could not {self._said()}: the MongoDB client belongs to another event loop. Make the "
            "client, call init_beanie and use the store all inside one asyncio.run()."
        )


def translated(error: PyMongoError, client: Client, doing: str, outcome: str) -> SessionStoreError:
    """The error of our own tree that stands for a failure of the driver."""
    if is_not_ready(error):
        return UnreachableError(
            f"Could not {doing}: a server at {hosts_of(client)} is still starting up or catching "
            f"up after an election; {outcome}. Try again soon."
        )
    if isinstance(error, ConfigurationError):
        return InvalidURLError(
            f"Could not {doing}: the connection string cannot be used "
            f"({type(error).__name__}); {outcome}. {URL_ADVICE}"
        )
    if isinstance(error, InvalidOperation) and "after close" in str(error):
        return ClientClosedError(
            f"Could not {doing}: the MongoDB client was closed. Use the store only while its "
            "client is open: inside the lifespan of the app, or inside the "
            "'async with BeanieSessionStore.connect(...)' block."
        )
    if isinstance(error, WriteConcernError):
        return ServerError(
            f"Could not {doing}: MongoDB at {hosts_of(client)} did not confirm it on a majority "
            f"of members ({error}). Whether it holds is not known; trying again is safe."
        )
    if isinstance(error, OperationFailure) and is_refused(error):
        return ServerError(
            f"Could not {doing}: MongoDB at {hosts_of(client)} has too much to do and refused it "
            f"for as long as it was tried ({_first_line(error)}); {outcome}. Try again later, let "
            "fewer processes ask at once, or give the server more room."
        )
    if isinstance(error, OperationFailure):
        code, text = _reason(error)
        if code in (UNAUTHORIZED, AUTHENTICATION_FAILED):
            return AccessDeniedError(
                f"Could not {doing}: MongoDB at {hosts_of(client)} denied it "
                f"({text}); {outcome}. Check the user and password, and that the "
                "user has the role readWrite on the database."
            )
        if code == TIME_LIMIT:
            return SlowQueryError(
                f"Could not {doing}: MongoDB at {hosts_of(client)} ended the query, which took "
                f"longer than it may; {outcome}. Narrow it down (project_key=, since=, until=), or "
                "use a simpler pattern."
            )
        if code == TRANSACTION_TOO_LARGE or (code == WRITE_CONFLICT and _is_of_cache(text)):
            return ServerError(
                f"Could not {doing}: it does not fit the cache of MongoDB at {hosts_of(client)} "
                f"({text}); {outcome}. Split the batch, for each is one transaction (35,000 small "
                "entries or 32 MB fit a cache of 1 GiB), or give the server a larger cache "
                "(--wiredTigerCacheSizeGB)."
            )
        if code == WRITE_CONFLICT:
            return ContentionError(
                f"Could not {doing}: it collided every time with other writes to the same session "
                f"({text}); {outcome}. Try again, or let fewer processes write to one session at "
                "once."
            )
        if code == NO_SUCH_TRANSACTION:
            return ServerError(
                f"Could not {doing}: MongoDB at {hosts_of(client)} ended the transaction before it "
                f"was done ({text}); {outcome}. Try again; if it comes again, pass fewer entries "
                "at once, or raise the server's parameter transactionLifetimeLimitSeconds."
            )
        return ServerError(
            f"Could not {doing}: MongoDB at {hosts_of(client)} refused it with code {code} "
            f"({text}); {outcome}."
        )
    if isinstance(error, ConnectionFailure):
        return UnreachableError(
            f"Could not {doing}: no usable MongoDB server at {hosts_of(client)} "
            f"({_first_line(error)}); {outcome}. Check that it runs, that the host and port are "
            "right, that a primary is elected, and that a majority of its members is up."
        )
    return ServerError(f"Could not {doing}: {_first_line(error)}; {outcome}.")


def _is_of_cache(text: str) -> bool:
    """Whether the server names no other write for a conflict, but its own lack of room."""
    said = text.lower()
    return any(word in said for word in ("cache", "eviction", "oldest pinned"))


def _cause(error: PyMongoError) -> PyMongoError | None:
    """The driver's error to show below ours, if its text may be shown.

    That of a bulk write quotes the documents, so whole transcripts would end up in logs; that
    of a malformed connection string may quote a part of the password.
    """
    return None if isinstance(error, (BulkWriteError, ConfigurationError)) else error


def hosts_of(client: Client) -> str:
    """The servers of a client as ``host:port, host:port``; never a user or a password."""
    try:
        servers = client.topology_description.server_descriptions()
    except PyMongoError:
        return "an unknown address"
    return ", ".join(sorted(f"{host}:{port}" for host, port in servers)) or "an unknown address"


def _reason(error: OperationFailure) -> tuple[int | None, str]:
    """The server's code and its text, without the documents that a bulk write's error quotes."""
    if isinstance(error, BulkWriteError):
        failures: list[dict[str, Any]] = [
            *error.details.get("writeErrors", ()),
            *error.details.get("writeConcernErrors", ()),
        ]
        if failures:
            return failures[0].get("code"), str(failures[0].get("errmsg"))[:300]
    return error.code, _first_line(error)


# What was refused is quoted whole: which sessions were meant, and what was looked for in them.
_COMMAND = re.compile(r'(to execute command) \{ (\w+): ("[^"]*")?.*')


def _first_line(error: Exception) -> str:
    # The driver goes on with its whole view of the topology.
    text = str(error).split(", Timeout:")[0].split(", full error:")[0].split("\n")[0]
    return _COMMAND.sub(r"\1 \2 \3", text)[:300]
