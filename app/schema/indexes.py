"""The unique indexes that the store's guarantees rest on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pymongo import IndexModel

from ...models.entry import CHUNK_INDEX, COUNTED_INDEX, ORDER_INDEX, UUID_INDEX
from ...models.summary import SESSION_INDEX
from ..database.driver import Collection
from .unfit_collections import index_information


@dataclass(frozen=True, slots=True)
class MissingIndex:
    """A required index that a collection lacks, or has in another form."""

    collection: Collection
    name: str


async def missing_indexes(
    entries: Collection, summaries: Collection, chunks: Collection
) -> list[MissingIndex]:
    """The required indexes that are not there."""
    required = (
        (entries, [ORDER_INDEX, UUID_INDEX]),
        (summaries, [SESSION_INDEX]),
        (chunks, [CHUNK_INDEX]),
    )
    missing: list[MissingIndex] = []
    for collection, indexes in required:
        stored = await index_information(collection)
        missing += [
            MissingIndex(collection, index.document["name"])
            for index in indexes
            if not _has(stored, index)
        ]
    return missing


async def has_counted_index(entries: Collection) -> bool:
    """Whether what was counted of a session can be told by an index.

    It is not required, for a release without it wrote the schema before.
    """
    return _has(await index_information(entries), COUNTED_INDEX)


def _has(stored: Mapping[str, Any], index: IndexModel) -> bool:
    keys = list(index.document["key"].items())
    condition = index.document.get("partialFilterExpression")
    return any(
        found["key"] == keys
        and found.get("unique")
        # Over all entries, it would refuse a second one without a uuid; over fewer, let doubles in.
        and found.get("partialFilterExpression") == condition
        # With one, tenant "ACME" could be tenant "acme" to it.
        and not found.get("collation")
        for found in stored.values()
    )
