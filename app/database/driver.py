"""What the store needs of the MongoDB driver: clients, and the collections of Document classes.

Beanie 2 runs on PyMongo's async API and Beanie 1 on Motor. Only the modules of this room know
which: ``change_streams`` and this one. Types are PyMongo's, whose methods Motor's classes share.
"""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.metadata import version
from typing import Any, Protocol, TypeVar, cast

from beanie import Document, init_beanie  # pyright: ignore[reportUnknownVariableType]
from pymongo import ReadPreference, WriteConcern
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.command_cursor import AsyncCommandCursor
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.asynchronous.mongo_client import AsyncMongoClient
from pymongo.driver_info import DriverInfo
from pymongo.read_concern import ReadConcern

from ...models.plain import JSON_CODEC
from ..concurrency import forks
from ..errors import DriverMismatchError, NotInitializedError

Record = dict[str, Any]
Client = AsyncMongoClient[Record]
Database = AsyncDatabase[Record]
Collection = AsyncCollection[Record]
ClientSession = AsyncClientSession


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

PACKAGES = ("beanie", "pymongo", "pydantic", *(("motor",) if IS_MOTOR else ()))
"""The distributions that a client and its documents are made of."""

_OURSELVES = DriverInfo("beanie-session-store", version("beanie-session-store"))

# Whatever the connection string says: a batch that a lost primary takes with it is lost data.
MAJORITY = WriteConcern("majority")


def open_client(uri: str, **options: Any) -> Client:
    """A client of the driver that the installed Beanie runs on, for the running event loop.

    Raises:
        PyMongoError, ValueError, TypeError: what the driver raises for a malformed URI.
    """
    if IS_MOTOR:
        client: Client = import_module("motor.motor_asyncio").AsyncIOMotorClient(uri, **options)
    else:
        client = AsyncMongoClient(uri, **options)
    announce(client)
    return client


async def close_client(client: Client) -> None:
    """Close the connections of a client."""
    await awaited(client.close())


def announce(client: Any) -> None:
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


async def awaited(answer: Any) -> Any:
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
    return await awaited(collection.aggregate(pipeline, **options))


async def start_session(client: Client, **options: Any) -> ClientSession:
    """Start a client session; it ends at the exit of ``async with``."""
    return await awaited(client.start_session(**options))


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
        write_concern=MAJORITY,
    )


def with_confirmed_reads(collection: Collection) -> Collection:
    """The same collection, without what an election can still take back."""
    return collection.with_options(read_concern=ReadConcern("majority"))
