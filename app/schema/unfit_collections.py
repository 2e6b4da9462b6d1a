"""Collections that cannot keep a store's promises, however they were made.

With a collation of its own, a collection may take tenant ``ACME`` for tenant ``acme``; a view, a
capped or a time-series collection takes no appends, or loses them again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pymongo.errors import OperationFailure

from ..database.driver import Collection, Database
from ..database.server_codes import UNAUTHORIZED
from ..errors import UnfitCollectionError

_IS_A_VIEW = 166
ADVICE = (
    "Rename it, run 'session-store schema upgrade', which makes a plain one, and copy its "
    "documents there; if it is empty, drop it instead"
)
"""What to do about such a collection."""


@dataclass(frozen=True, slots=True)
class UnfitCollection:
    """A collection that a store cannot use."""

    name: str
    reason: str
    """What it is, such as ``is a view``."""

    def __str__(self) -> str:
        return f"{self.name} {self.reason}"


async def unfit_collections(database: Database, names: Sequence[str]) -> list[UnfitCollection]:
    """Those of the collections that are there, but of a kind that a store cannot use.

    To list collections with their options takes a privilege that a store needs for nothing else.
    Without it, what the indexes and the names alone tell is looked at: all but capped ones, to
    which no transaction can write.
    """
    asked: dict[str, Any] = {"filter": {"name": {"$in": list(names)}}}
    try:
        answer = await database.command("listCollections", **asked)
    except OperationFailure as error:
        if error.code != UNAUTHORIZED:
            raise
        answer = await database.command(
            "listCollections", nameOnly=True, authorizedCollections=True, **asked
        )
    listed: list[Mapping[str, Any]] = answer["cursor"]["firstBatch"]
    found: list[UnfitCollection] = []
    for each in sorted(listed, key=lambda each: list(names).index(each["name"])):
        options: dict[str, Any] = each.get("options") or {}
        if each["type"] == "collection" and "options" not in each:
            indexes = await index_information(database[each["name"]])
            options = indexes.get("_id_", {})
        if reason := _reason(each["type"], options):
            found.append(UnfitCollection(each["name"], reason))
    return found


async def require_fit_collections(database: Database, names: Sequence[str]) -> None:
    """Refuse a database one of whose collections is of a kind that a store cannot use.

    Raises:
        UnfitCollectionError: one is.
    """
    for unfit in await unfit_collections(database, names):
        raise UnfitCollectionError(
            f"The collection {unfit} (database {database.name}), so sessions of one tenant could "
            "be taken for another's, or be lost; nothing was read or written. "
            f"{ADVICE}."
        )


async def index_information(collection: Collection) -> Mapping[str, Any]:
    """The indexes of a collection by name; a view has none."""
    try:
        return await collection.index_information()
    except OperationFailure as error:
        if error.code != _IS_A_VIEW:
            raise
        return {}


def _reason(kind: str, options: Mapping[str, Any]) -> str | None:
    if kind == "view":
        return "is a view"
    if kind == "timeseries":
        return "is a time-series collection"
    if options.get("capped"):
        return "is capped, and drops its oldest documents"
    collation = options.get("collation")
    if collation and collation.get("locale") != "simple":
        kept = ("locale", "strength", "caseLevel", "numericOrdering")
        shown = ", ".join(f"{name} {collation[name]}" for name in kept if collation.get(name))
        return f"has a collation of its own ({shown})"
    return None
