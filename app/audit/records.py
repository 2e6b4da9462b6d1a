"""Records of what was done, each with the hash of the one before it of its tenant.

The position of a record is in its ``_id``, which is unique whatever was migrated: of two who add
one at the same time, one adds the next. So there is one chain, however many processes write.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

import bson
from bson import ObjectId
from pymongo.errors import AutoReconnect, DuplicateKeyError, PyMongoError

from ..database.attempts import Attempts
from ..database.collection_names import AUDIT
from ..database.driver import (
    Collection,
    Database,
    Record,
    with_confirmed_reads,
    with_store_rules,
)
from ..database.elections import confirmed_primary
from ..database.reads import is_resumable
from ..database.server import server_of
from ..errors import AuditUnavailableError
from ..transcript_key import TranscriptKey
from .actors import recorded_text

BEFORE_ALL = "0" * 64
"""What the first record of a tenant has for the hash of the one before."""

_LAST_POSITION = 2**63 - 1

Detail: TypeAlias = str | int | bool | Sequence[str] | None


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """That somebody did something, or was about to."""

    seq: int
    """Its position among those of its tenant, from 1 on, without a gap."""
    at: datetime
    """When, by the server's clock, UTC."""
    actor: str
    """Who, as the application said."""
    action: str
    """What, such as ``"read"``, ``"export"``, ``"delete"``, ``"hold"``, ``"erase"``."""
    project_key: str | None
    session_id: str | None
    subpath: str | None
    details: Mapping[str, Any]
    """What else is known of it: how many, which fields were asked for, never their values."""
    sha256: str
    """Of all of it, the hash of the record before included."""

    def as_json(self) -> dict[str, Any]:
        """The record as JSON types."""
        return {
            "seq": self.seq,
            "at": self.at.isoformat(),
            "actor": self.actor,
            "action": self.action,
            "project_key": self.project_key,
            "session_id": self.session_id,
            "subpath": self.subpath,
            "details": dict(self.details),
            "sha256": self.sha256,
        }


async def record(
    database: Database,
    tenant: str,
    actor: str | None,
    action: str,
    key: TranscriptKey | None = None,
    details: Mapping[str, Detail] | None = None,
) -> None:
    """Add a record to a tenant's audit, before what it says is done; without an actor, nothing.

    Args:
        database: the database of the store.
        tenant: whose sessions it concerns; ``"*"`` for all of them.
        actor: who does it; ``None`` where the store keeps no audit.
        action: what is done, in a word or two.
        key: the session or transcript that it is done to.
        details: what else to record, of JSON types; nothing of what was said in a session.

    Raises:
        AuditUnavailableError: it cannot be written, so what it was to say must not be done.
    """
    if actor is None:
        return
    told: dict[str, Any] = {
        "record": ObjectId(),
        "actor": recorded_text(actor),
        "action": action,
    }
    if key is not None:
        told |= {"project_key": key.project_key, "session_id": key.session_id}
        if key.subpath:
            told["subpath"] = key.subpath
    given = details or {}
    told["details"] = {name: _kept(value) for name, value in given.items() if value is not None}
    try:
        await _add(database, tenant, told)
    except PyMongoError as error:
        raise _unavailable(action, error) from error


def audit_of(database: Database) -> Collection:
    """Where the records are."""
    return with_store_rules(database)[AUDIT]


def of_tenant(tenant: str, after: int = 0) -> dict[str, Any]:
    """A query for the records of a tenant behind a position, in the order of ``_id``."""
    return {
        "_id": {
            "$gt": {"tenant": tenant, "seq": after},
            "$lte": {"tenant": tenant, "seq": _LAST_POSITION},
        }
    }


def hash_of(row: Mapping[str, Any]) -> str:
    """The hash of a document, whatever is in it: of its BSON, without the hash itself."""
    said = {name: value for name, value in row.items() if name != "sha256"}
    encoded: bytes = bson.encode(said)
    return hashlib.sha256(encoded).hexdigest()


async def _add(database: Database, tenant: str, told: Mapping[str, Any]) -> None:
    records = audit_of(database)
    server = await server_of(database.client)
    attempts = Attempts()
    tried: list[dict[str, Any]] = []
    while True:
        try:
            async with confirmed_primary(database.client):
                # A try that was not answered may have been stored all the same.
                mine = {"_id": {"$in": tried}, "record": told["record"]}
                if tried and await records.find_one(mine, {"_id": 1}) is not None:
                    if await with_confirmed_reads(records).find_one(mine, {"_id": 1}) is not None:
                        return
                    # Nor may it be done as long as an election can take the record back.
                    raise AutoReconnect("its record waits for a majority")
                last = await records.find_one(of_tenant(tenant), sort=[("_id", -1)])
                row = _next(tenant, told, last, server.now())
                if row["_id"] not in tried:
                    tried.append(row["_id"])
                await records.insert_one(row)
                return
        except DuplicateKeyError as error:
            # Another one was faster.
            if not await attempts.pause():
                raise _unavailable(told["action"], error) from error
        except PyMongoError as error:
            if not is_resumable(error) or not await attempts.pause(error):
                raise


def _next(
    tenant: str, told: Mapping[str, Any], last: Record | None, now: datetime
) -> dict[str, Any]:
    seq, before = 1, BEFORE_ALL
    if last is not None:
        # Whatever stands there by now, this one is bound to it.
        seq, before = last["_id"]["seq"] + 1, str(last.get("sha256"))
    row = {
        "_id": {"tenant": tenant, "seq": seq},
        "version": 1,
        "at": now,
        **told,
        "before": before,
    }
    return {**row, "sha256": hash_of(row)}


def _kept(value: Detail) -> Any:
    if isinstance(value, str):
        return recorded_text(value)
    if isinstance(value, (bool, int)) or value is None:
        return value
    return [recorded_text(each) for each in value]


def _unavailable(action: str, error: PyMongoError) -> AuditUnavailableError:
    return AuditUnavailableError(
        f'"{action}" was to be recorded first and could not be ({type(error).__name__}); it was '
        "not done. Try again; where the server refuses, let the user of this connection insert "
        f"into and find in {AUDIT}."
    )
