"""Setting how long sessions are kept, and holding single ones."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from ..models import EntryChunk, SessionSummary, TranscriptEntry
from .attempts import Attempts
from .claim import move_date
from .connection import Connection, StoreModels, connect_models
from .driver import (
    ClientSession,
    Database,
    TransientFailureError,
    transact,
    with_store_rules,
)
from .errors import ContentionError, InvalidRetentionError, SchemaOutdatedError, UnknownSessionError
from .every import EVERY, Every
from .expiry import (
    CACHE_SECONDS,
    NOT_EXPIRED,
    Retention,
    policy_collection_name,
    read_retention,
)
from .failures import reported, require_asyncio
from .key import TranscriptKey, checked_name
from .retention_script import as_scripts_mean
from .schema import collection_name
from .stored_times import last_active

_SESSIONS_AT_ONCE = 8
_REPORT_EVERY = 100

_ROW = dict.fromkeys(
    (
        *("tenant", "project_key", "session_id"),
        *("expires_at", "held_at", "active_at", "mtime", "created_at"),
    ),
    1,
)


@dataclass(frozen=True, slots=True)
class Redating:
    """How far giving stored sessions their new dates has come."""

    sessions: int
    """Sessions looked at so far."""
    moved: int
    """Those of them that got another date."""


async def set_retention(
    database: Database,
    keep: timedelta | None,
    *,
    tenant: str | Every = EVERY,
    project_key: str | Every = EVERY,
    entries: type[TranscriptEntry] = TranscriptEntry,
    summaries: type[SessionSummary] = SessionSummary,
    on_progress: Callable[[Redating], None] | None = None,
) -> Redating:
    """Say how long idle sessions are kept, and give those stored their dates.

    A session is kept at least ``keep`` after its last append, and at most a tenth longer; then
    it is gone for readers at once, and MongoDB deletes it. ``EVERY`` stands for every tenant, or
    project, without a policy of its own; no string does. Stores that run follow within five
    seconds; this waits for them before it dates what they wrote meanwhile. Sessions that are held
    stay.

    It may be cut off at any time and run again: sessions dated already are passed over.

    Args:
        database: the database, as given to ``init_beanie``.
        keep: the time since the last append, a second at least, or ``None`` for ever.
        tenant: the tenant, or ``EVERY``.
        project_key: the project key, or ``EVERY``.
        entries: the class for entries, where a team has its own.
        summaries: the class for summaries, where a team has its own.
        on_progress: called now and then with how far it is.

    Raises:
        InvalidRetentionError: ``keep`` is no time of a second or more.
        InvalidKeyError: the tenant or project key is no usable name.
        SchemaOutdatedError: the database has no TTL indexes yet, so nothing would expire.
    """
    require_asyncio()
    seconds = checked_seconds(keep)
    owner = checked_owner(*as_scripts_mean(tenant, project_key, inspect.currentframe()))
    connection = await retention_connection(database, entries, summaries)
    with reported(database.client, "set the retention"):
        values = {"keep_seconds": seconds, "updated_at": connection.server.now()}
        await connection.policies.update_one(owner, {"$set": values}, upsert=True)
        return await _follow(connection, owner, on_progress)


async def clear_retention(
    database: Database,
    *,
    tenant: str | Every = EVERY,
    project_key: str | Every = EVERY,
    entries: type[TranscriptEntry] = TranscriptEntry,
    summaries: type[SessionSummary] = SessionSummary,
    on_progress: Callable[[Redating], None] | None = None,
) -> Redating:
    """Remove a policy, so that the next more general one holds, or none.

    Arguments and errors are those of :func:`set_retention`.
    """
    require_asyncio()
    owner = checked_owner(*as_scripts_mean(tenant, project_key, inspect.currentframe()))
    connection = await retention_connection(database, entries, summaries)
    with reported(database.client, "clear the retention"):
        await connection.policies.delete_one(owner)
        return await _follow(connection, owner, on_progress)


async def retention_policies(database: Database) -> list[dict[str, Any]]:
    """The policies: ``{"tenant", "project_key", "keep_seconds", "updated_at"}`` of each.

    ``EVERY`` is the tenant, or project key, of one that holds for all others.
    """
    require_asyncio()
    policies = with_store_rules(database)[policy_collection_name()]
    with reported(database.client, "read the retention"):
        order = [("tenant", 1), ("project_key", 1)]
        rows = await policies.find({}, {"_id": 0}, sort=order).to_list()
    names = ("tenant", "project_key")
    return [{**row, **{name: _owner_of(row[name]) for name in names}} for row in rows]


def _owner_of(stored: str) -> str | Every:
    return EVERY if stored == EVERY.value else stored


async def hold(connection: Connection, key: TranscriptKey) -> None:
    """Keep a session from expiring until it is released.

    Raises:
        UnknownSessionError: there is no such session, or it has expired.
    """

    def held(row: dict[str, Any], _: Retention) -> _Dates:
        return _Dates(None, row.get("held_at") or connection.server.now())

    await _change(connection, key, held)


async def release(connection: Connection, key: TranscriptKey) -> None:
    """Let a session that was held expire again: its period begins now.

    Raises:
        UnknownSessionError: there is no such session.
    """
    now = connection.server.now()
    await _change(connection, key, lambda _, retention: _Dates(retention.expiry(now), None))


async def _follow(
    connection: Connection,
    owner: dict[str, str],
    on_progress: Callable[[Redating], None] | None,
) -> Redating:
    """Date what is stored, and once more what stores wrote that did not know yet."""
    connection.retentions.clear()
    await _redate(connection, owner, on_progress)
    await asyncio.sleep(CACHE_SECONDS)
    return await _redate(connection, owner, on_progress)


async def _redate(
    connection: Connection,
    owner: dict[str, str],
    on_progress: Callable[[Redating], None] | None,
) -> Redating:
    """Give the sessions that a policy may govern the dates they should have."""
    looked_at = moved = 0
    retentions: dict[tuple[str, str], Retention] = {}
    query = {field: name for field, name in owner.items() if name != EVERY.value}

    async def dated(row: dict[str, Any]) -> bool:
        group = (row["tenant"], row["project_key"])
        if group not in retentions:
            retentions[group] = await read_retention(connection.policies, *group)
        wanted = retentions[group].expiry(last_active(row))
        if row.get("held_at") is not None or wanted == row.get("expires_at"):
            return False
        key = TranscriptKey(*group, row["session_id"])
        try:
            await _change(connection, key, _wanted_date)
        except UnknownSessionError:
            # Deleted or expired since we saw it.
            return False
        return True

    async for rows in _batches(connection, query):
        results = await asyncio.gather(*map(dated, rows))
        before = looked_at // _REPORT_EVERY
        looked_at += len(rows)
        moved += sum(results)
        if on_progress is not None and looked_at // _REPORT_EVERY > before:
            on_progress(Redating(looked_at, moved))
    done = Redating(looked_at, moved)
    if on_progress is not None:
        on_progress(done)
    return done


@dataclass(frozen=True, slots=True)
class _Dates:
    expires_at: datetime | None
    held_at: datetime | None


def _wanted_date(row: dict[str, Any], retention: Retention) -> _Dates:
    if row.get("held_at") is not None:
        return _Dates(None, row["held_at"])
    return _Dates(retention.expiry(last_active(row)), None)


async def _change(
    connection: Connection,
    key: TranscriptKey,
    wanted: Callable[[dict[str, Any], Retention], _Dates],
) -> None:
    """Change the dates of a session as a whole, whoever appends to it meanwhile."""
    attempts = Attempts()
    while True:
        row = await connection.summaries.find_one({**key.session_filter(), **NOT_EXPIRED}, _ROW)
        if row is None:
            raise UnknownSessionError(
                f"There is no {key}; nothing was changed. Check tenant, project key and session id."
            )
        retention = await read_retention(connection.policies, key.tenant, key.project_key)
        dates = wanted(row, retention)

        async def work(
            session: ClientSession | None, row: dict[str, Any] = row, dates: _Dates = dates
        ) -> bool:
            return await _apply(connection, key, row, dates, session)

        try:
            if await transact(connection.client, connection.server, work, attempts):
                return
        except TransientFailureError:
            if not await attempts.pause():
                raise
        else:
            if not await attempts.pause():
                raise ContentionError(
                    f"Could not change the date of {key}: it is written to all the time; nothing "
                    "was changed. Try again."
                )


async def _apply(
    connection: Connection,
    key: TranscriptKey,
    row: dict[str, Any],
    dates: _Dates,
    session: ClientSession | None,
) -> bool:
    fields = {"expires_at": dates.expires_at, "held_at": dates.held_at}
    change: dict[str, Any] = {}
    if values := {field: value for field, value in fields.items() if value is not None}:
        change["$set"] = values
    if gone := {field: "" for field, value in fields.items() if value is None}:
        change["$unset"] = gone
    query = {
        **key.session_filter(),
        **{field: row.get(field) for field in ("_id", "active_at", "expires_at", "held_at")},
        **NOT_EXPIRED,
    }
    result = await connection.summaries.update_one(query, change, session=session)
    if result.matched_count:
        await move_date(connection, key, dates.expires_at, session)
    return bool(result.matched_count)


async def _batches(
    connection: Connection, query: dict[str, Any]
) -> AsyncIterator[list[dict[str, Any]]]:
    """All sessions in the order of their keys, a few at a time, each page by a query of its own.

    A cursor over a hundred thousand sessions would not live as long as dating them takes.
    """
    order = ("tenant", "project_key", "session_id")
    behind: dict[str, Any] = {}
    while True:
        page = await connection.summaries.find(
            {"$and": [query, behind]},
            _ROW,
            sort=[(field, 1) for field in order],
            limit=_SESSIONS_AT_ONCE,
        ).to_list()
        if not page:
            return
        yield page
        tenant, project_key, session_id = (page[-1][field] for field in order)
        behind = {
            "$or": [
                {"tenant": tenant, "project_key": project_key, "session_id": {"$gt": session_id}},
                {"tenant": tenant, "project_key": {"$gt": project_key}},
                {"tenant": {"$gt": tenant}},
            ]
        }


async def retention_connection(
    database: Database, entries: type[TranscriptEntry], summaries: type[SessionSummary]
) -> Connection:
    """A connection to a database in which sessions can expire.

    Raises:
        SchemaOutdatedError: it has no TTL indexes yet.
    """
    raw = (
        database[collection_name(entries)],
        database[collection_name(summaries)],
        database[collection_name(EntryChunk)],
    )
    connection = await connect_models(StoreModels(entries, summaries), raw)
    with reported(database.client, "look at the expiry indexes"):
        for collection in (connection.entries, connection.summaries, connection.chunks):
            indexes = (await collection.index_information()).values()
            if not any("expireAfterSeconds" in index for index in indexes):
                raise SchemaOutdatedError(
                    f"The collection {collection.name} has no TTL index, so nothing in it would "
                    "ever expire; nothing was changed. Run 'session-store schema upgrade' or "
                    "'await upgrade_schema(database)' first."
                )
    return connection


def checked_owner(tenant: str | Every, project_key: str | Every) -> dict[str, str]:
    """Whose policy it is, as stored.

    Raises:
        InvalidKeyError: the tenant or project key is no usable name.
    """
    return {
        "tenant": _checked_owner("tenant", tenant),
        "project_key": _checked_owner("project_key", project_key),
    }


def _checked_owner(field: str, name: str | Every) -> str:
    return EVERY.value if name is EVERY else checked_name(field, name)


def checked_seconds(keep: object) -> int | None:
    """A time to keep sessions, as stored.

    Raises:
        InvalidRetentionError: it is none.
    """
    if keep is None:
        return None
    if not isinstance(keep, timedelta):
        raise InvalidRetentionError(
            f"keep must be a datetime.timedelta or None (for ever), not {type(keep).__name__}; "
            "nothing was changed."
        )
    if keep < timedelta(seconds=1) or keep > timedelta(days=36500):
        raise InvalidRetentionError(
            f"keep must be between a second and a hundred years, not {keep}; nothing was changed."
        )
    return round(keep.total_seconds())
