"""Reading a tenant's audit, and looking whether anybody changed it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from ..database.driver import AnyDatabase, Database, Record, as_pymongo
from ..database.failures import reported, require_asyncio
from ..database.reads import retried
from ..errors import InvalidQueryError
from ..every import EVERY, Every
from ..text import shown
from ..transcript_key import checked_name
from .records import BEFORE_ALL, AuditRecord, audit_of, hash_of, of_tenant

_PAGE = 500
_MOST_FAULTS = 100
_HEAD = re.compile(r"([0-9]{1,18}):([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class AuditFault:
    """Where a chain does not hold."""

    seq: int
    reason: str

    def __str__(self) -> str:
        return f"record {self.seq}: {self.reason}"


@dataclass(frozen=True, slots=True)
class AuditCheck:
    """What became of a tenant's audit."""

    records: int
    """Records that were looked at."""
    head: str | None
    """The last one, ``"SEQ:SHA256"``; ``None`` where there is none. Kept somewhere else, it tells
    later whether any up to there was taken away or made anew."""
    faults: tuple[AuditFault, ...] = ()
    """The first hundred."""

    @property
    def holds(self) -> bool:
        """Whether nothing was changed, taken away, moved or put in between."""
        return not self.faults


async def audit_records(
    database: AnyDatabase, *, tenant: str | Every = "default", since: datetime | None = None
) -> AsyncIterator[AuditRecord]:
    """The records of a tenant's audit in their order, in constant memory.

    Args:
        database: the database, as given to ``init_beanie``.
        tenant: whose; ``EVERY`` for what was done to all tenants at once, such as their policy.
        since: only those from then on, with a time zone.

    Raises:
        InvalidKeyError: the tenant is no usable name.
        InvalidQueryError: ``since`` has no time zone.
        SessionStoreError: the database is away, or refuses.
    """
    require_asyncio()
    name = _name_of(tenant)
    moment = cast("object", since)
    if moment is not None and not (isinstance(moment, datetime) and moment.tzinfo):
        raise InvalidQueryError(
            f"since must be a datetime with a time zone, not {shown(moment)}; nothing was read."
        )
    with reported(database.client, "read the audit"):
        async for row in _rows(as_pymongo(database), name):
            found = _record_of(row)
            if found is not None and (since is None or found.at >= since):
                yield found


async def verify_audit(
    database: AnyDatabase, *, tenant: str | Every = "default", head: str | None = None
) -> AuditCheck:
    """Look whether a tenant's audit is as it was written.

    It tells what was changed, taken out, moved or put in between. Who can write to the collection
    can also take the last ones away, or make the whole chain anew: that is told by a ``head`` that
    was kept where they cannot write.

    Args:
        database: the database, as given to ``init_beanie``.
        tenant: as for :func:`audit_records`.
        head: what an earlier check said.

    Raises:
        InvalidKeyError: the tenant is no usable name.
        InvalidQueryError: ``head`` is none.
        SessionStoreError: the database is away, or refuses.
    """
    require_asyncio()
    name = _name_of(tenant)
    known = None if head is None else _HEAD.fullmatch(_text(head))
    if head is not None and known is None:
        raise InvalidQueryError(
            f"head must be what an earlier check said, SEQ:SHA256, not {shown(head)}; nothing was "
            "read."
        )
    faults: list[AuditFault] = []
    records, wanted, before = 0, 1, BEFORE_ALL
    seen: str | None = None
    with reported(database.client, "verify the audit"):
        async for row in _rows(as_pymongo(database), name):
            records += 1
            seq = _seq_of(row)
            faults += [AuditFault(seq, reason) for reason in _wrong_with(row, seq, wanted, before)]
            wanted, before = seq + 1, str(row.get("sha256"))
            if known is not None and seq == int(known[1]):
                seen = before
    if known is not None and seen != known[2]:
        what = "is gone, and so may be others at the end" if seen is None else "was made anew"
        faults.append(AuditFault(int(known[1]), f"the head that was kept {what}"))
    last = f"{wanted - 1}:{before}" if records else None
    return AuditCheck(records, last, tuple(faults[:_MOST_FAULTS]))


def _wrong_with(row: Record, seq: int, wanted: int, before: str) -> list[str]:
    if hash_of(row) != row.get("sha256"):
        return ["it was changed"]
    if seq > wanted:
        missing = f"{wanted}" if seq == wanted + 1 else f"{wanted} to {seq - 1}"
        return [f"before it, {missing} is missing"]
    if seq < wanted:
        return ["it stands where another does"]
    if row.get("before") != before:
        return ["it does not follow on the one before it"]
    return []


async def _rows(database: Database, tenant: str) -> AsyncIterator[Record]:
    records = audit_of(database)
    query = of_tenant(tenant)
    while True:

        async def page(query: dict[str, Any] = query) -> list[Record]:
            return await records.find(query, sort=[("_id", 1)], limit=_PAGE).to_list(None)

        rows = await retried(database.client, page)
        for row in rows:
            yield row
        if len(rows) < _PAGE:
            return
        query = {"_id": {**of_tenant(tenant)["_id"], "$gt": rows[-1]["_id"]}}


def _record_of(row: Record) -> AuditRecord | None:
    """A record as far as it can be read; what somebody else put there is for a check to say."""
    at, details = row.get("at"), cast("object", row.get("details"))
    if not isinstance(at, datetime):
        return None
    return AuditRecord(
        seq=_seq_of(row),
        at=at,
        actor=_text(row.get("actor")),
        action=_text(row.get("action")),
        project_key=row.get("project_key"),
        session_id=row.get("session_id"),
        subpath=row.get("subpath"),
        details=cast("Mapping[str, Any]", details) if isinstance(details, Mapping) else {},
        sha256=_text(row.get("sha256")),
    )


def _seq_of(row: Record) -> int:
    seq = cast("object", row["_id"].get("seq"))
    return int(seq) if isinstance(seq, (int, float)) else 0


def _text(value: object) -> str:
    return value if isinstance(value, str) else shown(value)


def _name_of(tenant: str | Every) -> str:
    return EVERY.value if tenant is EVERY else checked_name("tenant", tenant)
