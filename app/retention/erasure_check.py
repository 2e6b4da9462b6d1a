"""Looking whether what a receipt says was erased is gone, and stays so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..database.collection_names import ADOPTION_RECORDS
from ..database.driver import Collection, aggregate, with_store_rules
from ..database.reads import retried
from ..errors import InvalidReceiptError
from ..queries.filters import SessionFilter
from ..sdk import SessionKey
from ..storage.connection import Connection
from ..text import shown
from ..writing.tombstones import MORE_THAN_TOMBSTONE
from .matching import matching_pages
from .receipts import ErasureReceipt, key_of

_PAGE = 100


@dataclass(frozen=True, slots=True)
class ErasureRemnant:
    """Documents under the key of a session that was erased."""

    project_key: str
    session_id: str
    documents: Mapping[str, int]
    """How many, by their collection."""

    def __str__(self) -> str:
        found = ", ".join(f"{count} in {name}" for name, count in self.documents.items())
        key = f"session {shown(self.session_id, 80)} of project {shown(self.project_key, 80)}"
        return f"{key}: {found}"


@dataclass(frozen=True, slots=True)
class ErasureCheck:
    """What the database says to a receipt."""

    sessions: int
    """Sessions of the receipt that were looked for."""
    remnants: tuple[ErasureRemnant, ...] = ()
    """What is there of them all the same. Once the tombstones are gone, they may have been begun
    again."""
    since: tuple[SessionKey, ...] = ()
    """Other sessions of the subject that are there, such as those that came since."""

    @property
    def holds(self) -> bool:
        """Whether nothing is there of what was erased."""
        return not self.remnants


async def check_erasure(
    connection: Connection, tenant: str, receipt: ErasureReceipt
) -> ErasureCheck:
    """Look for what was erased, and for other sessions of its subject.

    Raises:
        InvalidReceiptError: it is another tenant's, or of a dry run.
    """
    if receipt.tenant != tenant:
        raise InvalidReceiptError(
            f"The receipt is of tenant {shown(receipt.tenant)}, not of {shown(tenant)}; nothing "
            "was looked at. Name that tenant."
        )
    if receipt.erasure is None:
        raise InvalidReceiptError("Nothing was erased by a dry run, so there is nothing to verify.")
    remnants: list[ErasureRemnant] = []
    by_project: dict[str, list[str]] = {}
    for key in receipt.sessions:
        by_project.setdefault(key["project_key"], []).append(key["session_id"])
    for project_key, ids in by_project.items():
        for start in range(0, len(ids), _PAGE):
            owner = {
                "tenant": tenant,
                "project_key": project_key,
                "session_id": {"$in": ids[start : start + _PAGE]},
            }
            found = await retried(connection.client, lambda owner=owner: _found(connection, owner))
            remnants += [
                ErasureRemnant(project_key, session_id, found[session_id])
                for session_id in sorted(found)
            ]
    named = [*receipt.sessions, *receipt.held, *receipt.forked, *receipt.failed]
    known = {(key["project_key"], key["session_id"]) for key in named}
    since: list[SessionKey] = []
    wanted = SessionFilter(metadata=receipt.subject)
    async for rows in matching_pages(connection, tenant, wanted):
        keys = [key_of(row.key) for row in rows]
        since += [key for key in keys if (key["project_key"], key["session_id"]) not in known]
    return ErasureCheck(len(receipt.sessions), tuple(remnants), tuple(since))


async def _found(connection: Connection, owner: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """How many documents each of some sessions has, by session and collection."""
    adoptions = with_store_rules(connection.entries.collection.database)[ADOPTION_RECORDS]
    collections: tuple[tuple[Collection, dict[str, Any]], ...] = (
        (connection.entries.collection, {}),
        (connection.chunks.collection, {}),
        (connection.summaries.collection, MORE_THAN_TOMBSTONE),
        (adoptions, {}),
    )
    found: dict[str, dict[str, int]] = {}
    for collection, also in collections:
        # The driver's own, for a collection without a class is among them.
        pipeline = [
            {"$match": {**owner, **also}},
            {"$group": {"_id": "$session_id", "n": {"$sum": 1}}},
        ]
        async for row in await aggregate(collection, pipeline):
            found.setdefault(row["_id"], {})[collection.name] = row["n"]
    return found
