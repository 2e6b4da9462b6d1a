"""What the store needs of the MongoDB driver, in one place.

Collections of the Document classes with the store's own read and write rules, client sessions,
transactions and what the server can do. Beanie 2 runs on PyMongo's async API and Beanie 1 on
Motor; only this module knows which. Types are PyMongo's, whose methods Motor's classes share.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import os
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import import_module
from importlib.metadata import version
from typing import Any, Protocol, TypeVar, cast
from weakref import WeakKeyDictionary

import bson
import pymongo
from beanie import Document, init_beanie  # pyright: ignore[reportUnknownVariableType]
from bson.codec_options import CodecOptions
from bson.int64 import Int64
from bson.raw_bson import RawBSONDocument
from bson.timestamp import Timestamp
from pymongo import ReadPreference, WriteConcern
from pymongo.asynchronous.change_stream import AsyncChangeStream
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.command_cursor import AsyncCommandCursor
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.asynchronous.mongo_client import AsyncMongoClient
from pymongo.driver_info import DriverInfo
from pymongo.errors import (
    BulkWriteError,
    ConfigurationError,
    InvalidOperation,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
)
from pymongo.read_concern import ReadConcern

from ..models.plain import JSON_CODEC
from . import forks
from .abandoned import MARKED, end_abandoned
from .attempts import Attempts
from .completion import completed
from .errors import DriverMismatchError, NotInitializedError

logger = logging.getLogger(__name__)

Record = dict[str, Any]
Client = AsyncMongoClient[Record]
Database = AsyncDatabase[Record]
Collection = AsyncCollection[Record]
ClientSession = AsyncClientSession

T = TypeVar("T")


class AnyDatabase(Protocol):
    """A database of either driver, as ``init_beanie`` takes it."""

    @property
    def name(self) -> str: ...
    @property
    def client(self) -> Any: ...
    def __getitem__(self, name: str) -> Any: ...


def as_pymongo(database: AnyDatabase) -> Database:
    """The same database, of which Motor's have all methods of PyMongo's that are used here."""
    return cast("Database", database)


IS_MOTOR = not hasattr(Document, "get_pymongo_collection")
"""Whether the installed Beanie runs on Motor."""

_OURSELVES = DriverInfo("beanie-session-store", version("beanie-session-store"))

# Whatever the connection string says: a batch that a lost primary takes with it is lost data.
_MAJORITY = WriteConcern("majority")

_ABORT_SECONDS = 5.0
_WRITE_CONFLICT = 112
_NO_SUCH_TRANSACTION = 251
_INTERRUPTED = 11601


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


def open_client(uri: str, **options: Any) -> Client:
    """A client of the driver that the installed Beanie runs on, for the running event loop.

    Raises:
        PyMongoError, ValueError, TypeError: what the driver raises for a malformed URI.
    """
    if IS_MOTOR:
        client: Client = import_module("motor.motor_asyncio").AsyncIOMotorClient(uri, **options)
    else:
        client = AsyncMongoClient(uri, **options)
    _announce(client)
    return client


async def close_client(client: Client) -> None:
    """Close the connections of a client."""
    await _settled(client.close())


def _announce(client: Any) -> None:
    """Name this package in the handshake of the client's connections, for the server's logs."""
    (client.delegate if IS_MOTOR else client).append_metadata(_OURSELVES)


def require_installed_driver(client: object) -> None:
    """Refuse a client of the driver that the installed Beanie does not run on.

    Raises:
        DriverMismatchError: it is one.
    """
    is_motor = type(client).__module__.partition(".")[0] == "motor"
    if is_motor == IS_MOTOR and isinstance(client, AsyncMongoClient) != IS_MOTOR:
        return
    wanted = "motor.motor_asyncio.AsyncIOMotorClient" if IS_MOTOR else "pymongo.AsyncMongoClient"
    raise DriverMismatchError(
        f"The database is of a {type(client).__name__}, but the installed Beanie "
        f"{version('beanie')} needs one of {wanted}; nothing was read or written. Make the "
        "database from such a client, and give the same one to init_beanie."
    )


def is_of_running_loop(client: Any) -> bool:
    """Whether a client may be used here; PyMongo says itself which other loop is not its own.

    Motor sends a command from any event loop, and fails only when the answer comes.
    """
    if forks.count and is_of_parent(client):
        return False
    return not IS_MOTOR or client.get_io_loop() is asyncio.get_running_loop()


def is_of_parent(client: Any) -> bool:
    """Whether a client was opened in a process that this one is a fork of.

    What served it there, monitors, threads and connections, is not here: in the event loop of the
    parent, Motor would wait for ever, and PyMongo shares sockets with it.
    """
    if not forks.count:
        return False
    # The driver notes who opened it, until it is opened anew here, which is refused.
    topology = getattr(client.delegate if IS_MOTOR else client, "_topology", None)
    return getattr(topology, "_pid", None) not in (None, os.getpid())


def is_of_the_past(client: Any) -> bool:
    """Whether a client can be used by nobody any more: it was closed, or its event loop was."""
    inner = client.delegate if IS_MOTOR else client
    loop = client.io_loop if IS_MOTOR else inner._loop
    is_closed = getattr(inner, "_closed", False) or (loop is not None and loop.is_closed())
    return is_closed or is_of_parent(client)


async def _settled(answer: Any) -> Any:
    """What one driver returns at once and the other as a coroutine."""
    return await answer if inspect.isawaitable(answer) else answer


def is_bound(model: type[Document]) -> bool:
    """Whether ``init_beanie`` gave a collection to a Document class."""
    return model.__dict__.get("_document_settings") is not None


def collection_of(model: type[Document]) -> Collection:
    """The collection that ``init_beanie`` gave to a Document class.

    Raises:
        NotInitializedError: it was not given to ``init_beanie``. (A subclass that was not
            would answer with its parent's collection.)
    """
    if not is_bound(model):
        raise NotInitializedError(
            f"{model.__name__} was not initialised, so the store does not know its database. "
            f"Call init_beanie(database=..., document_models=[..., {model.__name__}]) with all "
            "of the store's Document classes first (DOCUMENT_MODELS lists the default ones), "
            "or open the store with BeanieSessionStore.connect(url)."
        )
    settings: Any = model.get_settings()
    return settings.motor_collection if IS_MOTOR else settings.pymongo_collection


def database_of(model: type[Document]) -> Database:
    """The database that ``init_beanie`` gave to a Document class, whichever driver it is of.

    Raises:
        NotInitializedError: it was not given to ``init_beanie``.
    """
    return collection_of(model).database


async def bind_models(
    database: Database, models: Sequence[type[Document]], *, create_indexes: bool = True
) -> None:
    """Give Document classes their collections, and create the indexes that they declare."""
    await init_beanie(database=database, document_models=models, skip_indexes=not create_indexes)


async def aggregate(
    collection: Collection, pipeline: Sequence[Mapping[str, Any]], **options: Any
) -> AsyncCommandCursor[Record]:
    """Start an aggregation, and return its cursor."""
    return await _settled(collection.aggregate(pipeline, **options))


class Changes:
    """What a change stream tells, from the entry to the exit of ``async with``.

    However it is left, nothing of it stays open at the server.
    """

    def __init__(self, opening: Awaitable[AsyncChangeStream[Record]]) -> None:
        self._opening = asyncio.ensure_future(opening)
        self._asked: asyncio.Future[Record | None] | None = None

    @property
    def alive(self) -> bool:
        """Whether there may be more; not so once the collection was dropped."""
        return self._opening.result().alive

    async def next(self) -> Record | None:
        """The next change, or ``None`` if there was none for a second."""
        self._asked = asyncio.ensure_future(self._opening.result().try_next())
        return await asyncio.shield(self._asked)

    async def __aenter__(self) -> Changes:
        try:
            await asyncio.shield(self._opening)
        except asyncio.CancelledError:
            # The server may have opened it already, and nobody else will ever close it.
            await completed(self._close(), "close a change stream")
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await completed(self._close(), "close a change stream")

    async def _close(self) -> None:
        if self._asked is not None:
            # Motor's thread goes on, and would open anew what is closed under it.
            if not IS_MOTOR:
                self._asked.cancel()
            await asyncio.gather(self._asked, return_exceptions=True)
        (stream,) = await asyncio.gather(self._opening, return_exceptions=True)
        if not isinstance(stream, BaseException):
            await stream.close()


def open_change_stream(
    collection: Collection, pipeline: Sequence[Mapping[str, Any]], **options: Any
) -> Changes:
    """Start to watch a collection; on Motor, at the first look at what has come."""
    return Changes(_settled(collection.watch(pipeline, **options)))


async def start_session(client: Client, **options: Any) -> ClientSession:
    """Start a client session; it ends at the exit of ``async with``."""
    return await _settled(client.start_session(**options))


_Rulable = TypeVar("_Rulable", Database, Collection)


def with_store_rules(target: _Rulable) -> _Rulable:
    """The same database or collection with the reads and writes the guarantees rest on.

    Reads go to the primary, for a session resumed on another host must hold all that was
    acknowledged; writes wait for a majority.
    """
    return target.with_options(
        codec_options=JSON_CODEC,
        read_preference=ReadPreference.PRIMARY,
        read_concern=ReadConcern(),
        write_concern=_MAJORITY,
    )


def with_confirmed_reads(collection: Collection) -> Collection:
    """The same collection, without what an election can still take back."""
    return collection.with_options(read_concern=ReadConcern("majority"))


@dataclass(frozen=True, slots=True)
class Server:
    """What a deployment can do, and how far its clock is from ours."""

    has_transactions: bool
    clock_origin: float
    """Epoch seconds of the server's clock at zero of the local steady clock."""

    def now_ms(self) -> int:
        """The server's time, epoch milliseconds."""
        return int((self.clock_origin + _steady_seconds()) * 1000)

    def now(self) -> datetime:
        """The server's time, UTC, with the milliseconds that BSON keeps."""
        return date_of(self.now_ms())


def date_of(ms: int) -> datetime:
    """Epoch milliseconds as a date, UTC."""
    return datetime.fromtimestamp(ms / 1000, timezone.utc)


_servers: WeakKeyDictionary[Client, Server] = WeakKeyDictionary()


async def server_of(client: Client) -> Server:
    """Ask the deployment once per client what it is."""
    known = _servers.get(client)
    if known is not None:
        return known
    _announce(client)
    asked = _steady_seconds()
    # Not as the team's client would ask: it may read dates in a time zone of its own.
    hello = await with_store_rules(client.admin).command("hello")
    halfway = (asked + _steady_seconds()) / 2
    has_transactions = "setName" in hello or hello.get("msg") == "isdbgrid"
    if not has_transactions:
        logger.warning(
            "The MongoDB server has no transactions, for it is no replica set: an append that is "
            "cut off by a crash may be stored in part. Make it a replica set (of one member, if "
            "need be) before you rely on it."
        )
    server = Server(
        has_transactions=has_transactions,
        clock_origin=hello["localTime"].timestamp() - halfway,
    )
    _servers[client] = server
    return server


def _steady_seconds() -> float:
    # Unlike the wall clock it is never set back, and unlike the monotonic clock of Linux it goes
    # on while the machine sleeps.
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


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
        await _settled(
            session.start_transaction(
                read_concern=MARKED,
                write_concern=_MAJORITY,
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
                if _has_code(error, _WRITE_CONFLICT):
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
                or is_not_ready(error)
                or _has_code(error, _INTERRUPTED)
            ):
                # Sending the commit of one transaction again is safe: it holds once or not at all.
                if not await attempts.pause():
                    raise OutcomeUnknownError from error
            elif _is_labelled_transient(error):
                raise TransientFailureError from error
            elif _has_code(error, _NO_SUCH_TRANSACTION):
                # Without a label: an earlier commit may hold on a member that answers no more.
                raise OutcomeUnknownError from error
            else:
                raise


def _is_transient(error: BaseException) -> bool:
    # It is interrupted where another writer took it for abandoned.
    return (
        is_not_ready(error)
        or _has_code(error, _NO_SUCH_TRANSACTION, _INTERRUPTED)
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


# The server answers with what fits 16 MiB, whatever is asked for.
_ALL_AT_ONCE = 2**31 - 1
_RAW = CodecOptions(document_class=RawBSONDocument)


async def find_all(
    collection: Collection,
    server: Server,
    query: Record,
    projection: Mapping[str, int],
    order: str,
) -> tuple[list[Record], Timestamp | None]:
    """The documents that match ``query``, by the rising values of ``order``, and their moment.

    The moment is ``None`` on a standalone server, which has none. ``order`` must be in the
    projection. A cursor with the same codec would make an object of Python's for each document
    first, which takes half as long as decoding it.
    """
    found: list[Record] = []
    moment: Timestamp | None = None
    command: Record = {
        "find": collection.name,
        "filter": query,
        "projection": projection,
        "sort": {order: 1},
        "batchSize": _ALL_AT_ONCE,
    }
    if server.has_transactions:
        command["readConcern"] = {"level": "snapshot"}
    while True:
        cursor = await _first_batch(collection, command)
        batch: list[Record] = cursor["firstBatch"]
        found += batch
        moment = cursor.get("atClusterTime")
        if not cursor["id"]:
            return found, moment
        # The rest by a query of its own: through several routers, a command of ours need not
        # come to the one that has the cursor.
        await collection.database.command(
            {"killCursors": collection.name, "cursors": [Int64(cursor["id"])]}
        )
        if server.has_transactions:
            command["readConcern"] = {"level": "snapshot", "atClusterTime": moment}
        command["filter"] = {**query, order: {**query.get(order, {}), "$gt": batch[-1][order]}}


async def find_at(
    collection: Collection, query: Record, projection: Mapping[str, int], moment: Timestamp | None
) -> Record | None:
    """A document as it was at a moment that was read at before."""
    command: Record = {
        "find": collection.name,
        "filter": query,
        "projection": projection,
        "limit": 1,
        "singleBatch": True,
    }
    if moment is not None:
        command["readConcern"] = {"level": "snapshot", "atClusterTime": moment}
    batch: list[Record] = (await _first_batch(collection, command))["firstBatch"]
    return batch[0] if batch else None


async def _first_batch(collection: Collection, command: Record) -> Record:
    """The cursor that a command opens, with what comes at once."""
    answer: Any = await collection.database.command(
        dict(command), read_preference=ReadPreference.PRIMARY, codec_options=_RAW
    )
    reply: Record = bson.decode(answer.raw, JSON_CODEC)  # pyright: ignore[reportUnknownMemberType]
    return reply["cursor"]


# What one command takes for sure; the driver cuts what is larger.
_ONE_COMMAND_BYTES = 8 * 1024 * 1024


async def insert_encoded(
    collection: Collection, documents: Sequence[bytes], session: ClientSession | None
) -> None:
    """Insert BSON documents; where that is safe, with less work than ``insert_many`` does.

    Raises:
        BulkWriteError: as ``insert_many`` raises it.
    """
    raw = [RawBSONDocument(document) for document in documents]
    if session is None or sum(map(len, documents)) > _ONE_COMMAND_BYTES:
        await collection.insert_many(raw, session=session)
    else:
        await _write(collection, {"insert": collection.name, "documents": raw}, session)


async def update_one(
    collection: Collection, query: Record, update: Record, session: ClientSession | None
) -> bool:
    """Update a document, with less work than the driver's own, and return whether one matched.

    Raises:
        BulkWriteError, WriteError: the server refused it.
    """
    if session is None:
        return bool((await collection.update_one(query, update)).matched_count)
    updates = [{"q": query, "u": update}]
    answer = await _write(collection, {"update": collection.name, "updates": updates}, session)
    return bool(answer["n"])


async def _write(collection: Collection, command: Record, session: ClientSession) -> Record:
    """Run a write in a transaction, where the driver neither retries it nor adds to it."""
    answer = await collection.database.command(
        command,
        # Else it would be that of the client.
        read_preference=ReadPreference.PRIMARY,
        session=session,
    )
    if "writeErrors" in answer:
        raise BulkWriteError(answer)
    return answer


__all__ = [
    "IS_MOTOR",
    "Changes",
    "Client",
    "ClientSession",
    "Collection",
    "Database",
    "DoneInPartError",
    "OutcomeUnknownError",
    "Record",
    "Server",
    "TransientFailureError",
    "aggregate",
    "bind_models",
    "close_client",
    "collection_of",
    "database_of",
    "date_of",
    "find_all",
    "find_at",
    "holds_already",
    "insert_encoded",
    "is_not_ready",
    "is_of_parent",
    "is_of_running_loop",
    "is_of_the_past",
    "open_change_stream",
    "open_client",
    "require_installed_driver",
    "server_of",
    "snapshot",
    "start_session",
    "transact",
    "update_one",
    "with_confirmed_reads",
    "with_store_rules",
]
