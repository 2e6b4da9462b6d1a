"""The collections of entries in a database that are not those of the classes at hand."""

from __future__ import annotations

from pymongo.errors import OperationFailure

from ...models.entry import ORDER_INDEX
from ..database.driver import Collection
from ..database.server_codes import UNAUTHORIZED
from .unfit_collections import index_information


async def other_entry_collections(entries: Collection) -> list[str]:
    """The names of other collections with entries in the same database.

    They are known by the index that no entries are without, whoever made it. Those that the user
    may not look at are left out.
    """
    database = entries.database
    names = await database.list_collection_names(authorizedCollections=True)
    others: list[str] = []
    for name in sorted(names):
        if name == entries.name or name.startswith("system."):
            continue
        if await _has_entries(database[name]):
            others.append(name)
    return others


async def _has_entries(collection: Collection) -> bool:
    try:
        stored = (await index_information(collection)).values()
    except OperationFailure as error:
        # It may be another application's, or be gone by now.
        if error.code != UNAUTHORIZED:
            raise
        return False
    keys = list(ORDER_INDEX.document["key"].items())
    is_ours = any(index.get("key") == keys and index.get("unique") for index in stored)
    return is_ours and await collection.find_one({}, {"_id": 1}) is not None
