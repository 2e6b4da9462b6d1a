"""Examining a database: migrations, indexes, expiry."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import aclosing
from datetime import timedelta
from typing import Any

from beanie import Document
from pymongo import IndexModel

from ...models.encryption_key import EncryptionKey
from ...models.retention import EXPIRY_INDEX
from ..database.documents import Row
from ..database.server import server_of
from ..schema.indexes import missing_indexes
from ..schema.migrator import Migrator
from ..schema.unfit_collections import ADVICE, index_information, unfit_collections
from ..schema.versions import MINIMUM_SCRIPT
from ..storage.criteria import BEING_DATED, LEFT_TO_SWEEP, NOT_LEASED, expired_before
from ..storage.orphans import sessions_with_entries
from .findings import Finding
from .target import Target

_UPGRADE = "Run 'session-store schema upgrade', or await upgrade_schema(database)."

# The server deletes once a minute, and a great deal takes it longer than that.
_OVERDUE = timedelta(hours=1)
_MANY = 1000
_SOON = timedelta(days=1)


async def schema(target: Target) -> Finding:
    """Whether the migrations of this release have run."""
    status = await Migrator(
        target.database, target.models.entries, target.models.summaries
    ).status()
    applied = [script for script in status.scripts if script.applied_at is not None]
    if status.unknown:
        return Finding(
            "schema",
            "bad",
            f"migrated by a newer release ({', '.join(status.unknown)})",
            "Install that release: pip install -U beanie-session-store",
        )
    if not applied:
        return await _unmigrated(target)
    if status.pending:
        is_usable = max(script.name for script in applied) >= MINIMUM_SCRIPT
        are = "migration is" if len(status.pending) == 1 else "migrations are"
        return Finding(
            "schema",
            "warning" if is_usable else "bad",
            f"{len(status.pending)} {are} still to run: {', '.join(status.pending)}",
            _UPGRADE,
        )
    edited = [script.name for script in applied if not script.is_unchanged]
    if edited:
        return Finding(
            "schema",
            "warning",
            f"edited since they ran: {', '.join(edited)}",
            "Compare them with the scripts of this release; they are not run again.",
        )
    return Finding("schema", "good", f"up to date, {applied[-1].name}")


async def _unmigrated(target: Target) -> Finding:
    if await _unprotected(target):
        return Finding("schema", "bad", "no migration has run, so no store starts here", _UPGRADE)
    return Finding("schema", "warning", "made by init_beanie; no migration has run", _UPGRADE)


async def indexes(target: Target) -> Finding:
    """Whether the collections have the indexes that their Document classes declare.

    Where one is of a kind that no store can use, no index helps.
    """
    names = [target.collection(model).name for model in target.classes]
    if unfit := await unfit_collections(target.database, names):
        return Finding(
            "indexes",
            "bad",
            f"no store can use this: {'; '.join(map(str, unfit))}",
            f"{ADVICE}.",
        )
    missing: list[str] = []
    further: list[str] = []
    count = 0
    for model in target.classes:
        collection = target.collection(model)
        stored = await index_information(collection)
        declared = [_index(each) for each in _declared(model)]
        count += len(declared)
        missing += [
            f"{collection.name}.{index.document['name']}"
            for index in declared
            if not _is_there(index, stored)
        ]
        names = {index.document["name"] for index in declared}
        further += [
            f"{collection.name}.{name}" for name in stored if name != "_id_" and name not in names
        ]
    unprotected = await _unprotected(target)
    missing = sorted({*missing, *unprotected})
    if missing:
        what = "all" if len(missing) == count else ", ".join(missing)
        return Finding(
            "indexes",
            "bad" if unprotected else "warning",
            f"missing, or of another kind: {what}",
            f"{_UPGRADE} Indexes of your own come with init_beanie; one of another kind must be "
            "dropped first.",
        )
    found = f"all {count} are there"
    if further:
        found += f"; others, which cost every append: {', '.join(further)}"
    return Finding("indexes", "good", found)


class _OverdueRow(Row):
    expires_at: Any = None


async def retention(target: Target) -> Finding:
    """Whether what has expired is deleted."""
    documents = target.documents
    policies = await documents.policies.find().count()
    without_index = [
        collection.name
        for collection in map(target.collection, target.classes[:3])
        if not _is_there(EXPIRY_INDEX, await index_information(collection))
    ]
    if policies and without_index:
        return Finding(
            "retention",
            "bad",
            f"nothing expires in {', '.join(without_index)}, which lack the TTL index",
            _UPGRADE,
        )
    now = (await server_of(target.client)).now()
    overdue = await documents.summaries.find_one(
        expired_before(now - _OVERDUE), rows=_OverdueRow, sort=[("expires_at", 1)]
    )
    if overdue is not None:
        return Finding(
            "retention",
            "bad",
            f"sessions that expired at {overdue.expires_at:%Y-%m-%d %H:%M} UTC are not deleted",
            "Readers do not see them. Set the server's parameter ttlMonitorEnabled to true.",
        )
    # By the index, for there may be very many summaries.
    marked = documents.summaries.find(LEFT_TO_SWEEP, NOT_LEASED, limit=_MANY)
    left = await marked.count()
    if left:
        many = "a thousand or more" if left == _MANY else str(left)
        return Finding(
            "retention",
            "warning",
            f"remains of {many} deleted session{'s'[: left != 1]} are still to be swept",
            "Readers do not see them. If nobody is at it, run 'session-store retention sweep', or "
            "await sweep_sessions(database).",
        )
    soon = {"expires_at": {"$gt": now, "$lt": now + _SOON}}
    if await documents.summaries.find_one(soon, BEING_DATED).exists():
        return Finding(
            "retention",
            "warning",
            "sessions expire within a day whose new dates, or holds, have not reached all entries",
            "If nobody is at it, run 'session-store retention sweep', or await "
            "sweep_sessions(database).",
        )
    if not policies:
        return Finding("retention", "good", "no policies: every session is kept for ever")
    plural = "policy" if policies == 1 else "policies"
    return Finding("retention", "good", f"{policies} {plural}; nothing is overdue")


async def summaries(target: Target) -> Finding:
    """Whether sessions that have entries have a summary, without which they are in no listing."""
    lost = looked_at = 0
    found = sessions_with_entries(target.documents, {})
    async with aclosing(found) as sessions:
        async for each in sessions:
            looked_at += 1
            # What is left of an expired session has dates, and MongoDB takes it.
            lost += not each.has_summary and not each.is_dated
            if looked_at == _MANY:
                break
    is_part = looked_at == _MANY
    whose = f"{'the first ' * is_part}{looked_at} session{'s'[: looked_at != 1]}"
    if lost:
        return Finding(
            "summaries",
            "warning",
            f"{lost} of {whose} {'has' if lost == 1 else 'have'} entries but no summary, which "
            "something else than the store took: no listing shows them",
            "Run 'session-store verify --repair' for each tenant, which makes it anew, or delete "
            "them; and let nothing else write to the collections.",
        )
    return Finding("summaries", "good", f"{whose} with entries: none lacks its summary")


async def encryption(target: Target) -> Finding:
    """Whether some sessions are plain beside encrypted ones, and where the keys are."""
    summaries = target.documents.summaries
    sealed = looked_at = 0
    async for row in summaries.find({}, rows=_SealedMarkRow, sort=[("_id", -1)], limit=_MANY):
        if row.mtime is not None:
            looked_at += 1
            sealed += isinstance(row.sealed, bytes)
    if not sealed:
        return Finding("encryption", "good", "nothing is encrypted")
    whose = f"the last {looked_at} session{'s'[: looked_at != 1]}"
    if sealed < looked_at:
        return Finding(
            "encryption",
            "warning",
            f"{looked_at - sealed} of {whose} plain beside encrypted ones",
            "Give all stores that write encryption=..., and run 'session-store keys seal' for "
            "each tenant.",
        )
    keys = target.collection(EncryptionKey)
    where = "in another database"
    if await keys.find_one({}, {"_id": 1}) is not None:
        where = "in this database, and so in its backups"
    return Finding("encryption", "good", f"{whose} encrypted; the keys are {where}")


class _SealedMarkRow(Row):
    mtime: Any = None
    sealed: Any = None


async def _unprotected(target: Target) -> list[str]:
    """The unique indexes without which the store does not start."""
    found = await missing_indexes(*map(target.collection, target.classes[:3]))
    return [f"{each.collection.name}.{each.name}" for each in found]


def _declared(model: type[Document]) -> Iterable[Any]:
    return getattr(getattr(model, "Settings", None), "indexes", ())


def _index(declared: Any) -> IndexModel:
    # Beanie also takes a name of a field, or a list of keys.
    return declared if isinstance(declared, IndexModel) else IndexModel(declared)


def _is_there(index: IndexModel, stored: Mapping[str, Any]) -> bool:
    found = stored.get(index.document["name"])
    return found is not None and all(
        found.get(option) == index.document.get(option)
        for option in ("unique", "expireAfterSeconds", "sparse", "partialFilterExpression")
    )
