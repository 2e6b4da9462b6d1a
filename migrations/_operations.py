"""What migration scripts are written in: steps on collections and indexes, each idempotent.

A script names its collections; a team whose Document classes have other names runs the same
script on theirs. Beanie takes no file that starts with an underscore for a migration.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from beanie import Document
from pymongo.errors import CollectionInvalid, OperationFailure

logger = logging.getLogger(__name__)

_NAMESPACE_NOT_FOUND = 26
_INDEX_NOT_FOUND = 27

_renamed: ContextVar[Mapping[str, str]] = ContextVar("renamed", default={})  # noqa: B039


@contextmanager
def renamed_collections(names: Mapping[str, str]) -> Generator[None]:
    """Run scripts on collections of other names; ``names`` maps a script's name to the actual."""
    token = _renamed.set(names)
    try:
        yield
    finally:
        _renamed.reset(token)


async def create_collection(anchor: type[Document], name: str) -> None:
    """Create a collection, compressed with zstd where the server takes that.

    Does nothing if it exists. ``anchor`` is a Document class that the script gave to its
    migration; it tells the database.
    """
    database = _database(anchor)
    name = _renamed.get().get(name, name)
    if name in await database.list_collection_names():
        logger.info("%s exists and keeps its block compression.", name)
        return
    zstd = {"wiredTiger": {"configString": "block_compressor=zstd"}}
    try:
        await database.create_collection(name, storageEngine=zstd)
    except CollectionInvalid:
        # Made by another process since we looked.
        return
    except OperationFailure as error:
        logger.info("The server takes no zstd for %s (%s).", name, error.details)
        try:
            await database.create_collection(name)
        except CollectionInvalid:
            return


async def create_index(
    anchor: type[Document],
    collection: str,
    keys: Sequence[tuple[str, int]],
    name: str,
    **options: Any,
) -> None:
    """Create an index; does nothing if it exists as described."""
    database = _database(anchor)
    collection = _renamed.get().get(collection, collection)
    await database[collection].create_index(list(keys), name=name, **options)


async def drop_index(anchor: type[Document], collection: str, name: str) -> None:
    """Drop an index; does nothing if it does not exist."""
    database = _database(anchor)
    collection = _renamed.get().get(collection, collection)
    try:
        await database[collection].drop_index(name)
    except OperationFailure as error:
        if error.code not in (_NAMESPACE_NOT_FOUND, _INDEX_NOT_FOUND):
            raise


async def drop_collection_if_empty(anchor: type[Document], name: str) -> None:
    """Drop a collection that holds nothing; one that holds documents stays."""
    database = _database(anchor)
    name = _renamed.get().get(name, name)
    if await database[name].find_one({}, {"_id": 1}) is None:
        await database.drop_collection(name)
    else:
        logger.warning("%s holds documents and is kept.", name)


def _database(anchor: type[Document]) -> Any:
    settings: Any = anchor.get_settings()
    return settings.pymongo_collection.database
