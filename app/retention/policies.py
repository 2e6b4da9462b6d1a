"""Setting how long sessions are kept."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from beanie.operators import Set
from pymongo.errors import OperationFailure

from ...models import EntryChunk, RetentionPolicy, SessionSummary, TranscriptEntry
from ..audit.actors import checked_name_of_actor
from ..audit.records import record
from ..database.attempts import unless_refused
from ..database.collection_names import collection_name, policy_collection_name
from ..database.documents import Documents
from ..database.driver import AnyDatabase, as_pymongo, with_store_rules
from ..database.failures import NOT_KNOWN, reported, require_asyncio
from ..database.server_codes import UNAUTHORIZED
from ..database.transactions import DoneInPartError, TransientFailureError, holds_already
from ..errors import (
    ContentionError,
    InvalidRetentionError,
    SchemaOutdatedError,
    UnknownSessionError,
)
from ..every import EVERY, Every
from ..instruments.operations import measured
from ..schema.other_collections import other_entry_collections
from ..storage.backstop import Dated
from ..storage.connection import Connection, StoreModels, connect_models
from ..storage.criteria import BY_KEY, DELETED
from ..storage.expiry import CACHE_SECONDS, PolicyRow, Retention, read_retention
from ..transcript_key import TranscriptKey, checked_name
from ..writing.dating import (
    DatedRow,
    change_dates,
    follow,
)
from ..writing.deletion import delete_session
from ..writing.remains import sweep
from .script import as_scripts_mean

_SESSIONS_AT_ONCE = 8
_REPORT_EVERY = 100
_IN_FORCE = (
    "the policy is in force, and sessions that are not dated yet get their dates when it is set "
    "again or they are written to"
)

logger = logging.getLogger("beanie_session_store.retention")


@dataclass(frozen=True, slots=True)
class Redating:
    """How far giving stored sessions their new dates has come."""

    sessions: int
    """Sessions looked at so far."""
    moved: int
    """Those of them that got another date."""
    failed: tuple[TranscriptKey, ...] = ()
    """Those that could not be dated; the same call tries them again."""
    others: tuple[str, ...] = ()
    """Collections with entries of other Document classes, whose sessions were not looked at."""


async def set_retention(
    database: AnyDatabase,
    keep: timedelta | None,
    *,
    tenant: str | Every = EVERY,
    project_key: str | Every = EVERY,
    entries: type[TranscriptEntry] = TranscriptEntry,
    summaries: type[SessionSummary] = SessionSummary,
    on_progress: Callable[[Redating], None] | None = None,
    actor: str | None = None,
) -> Redating:
    """Say how long idle sessions are kept, and give those stored their dates.

    A session is kept at least ``keep`` after its last append, and at most a tenth longer; then
    it is gone for readers at once, and MongoDB deletes it. ``EVERY`` stands for every tenant, or
    project, without a policy of its own; no string does. Stores that run follow within five
    seconds; this waits for them before it dates what they wrote meanwhile. Sessions that are held
    stay.

    It may be cut off at any time and run again: sessions dated already are passed over.

    A policy holds for the sessions of all Document classes, but those stored get their dates by a
    call with their classes. Where the database has others, a warning is logged, and ``others`` of
    what is returned names them.

    Args:
        database: the database, as given to ``init_beanie``.
        keep: the time since the last append, a second at least, or ``None`` for ever.
        tenant: the tenant, or ``EVERY``.
        project_key: the project key, or ``EVERY``.
        entries: the class for entries, where a team has its own.
        summaries: the class for summaries, where a team has its own.
        on_progress: called now and then with how far it is.
        actor: who does it: it is then recorded first in the audit of the tenant, or of ``EVERY``.

    Raises:
        InvalidActorError: ``actor`` is no name.
        AuditUnavailableError: it cannot be recorded; nothing was changed.
        InvalidRetentionError: ``keep`` is no time of a second or more.
        InvalidKeyError: the tenant or project key is no usable name.
        SchemaOutdatedError: the database has no TTL indexes yet, so nothing would expire.
    """
    require_asyncio()
    seconds = checked_seconds(keep)
    owner = checked_owner(*as_scripts_mean(tenant, project_key, inspect.currentframe()))
    who = None if actor is None else checked_name_of_actor(actor)
    connection = await retention_connection(database, entries, summaries)
    with (
        measured("set_retention", database=database),
        reported(database.client, "set the retention", unanswered=NOT_KNOWN),
    ):
        await _record(database, who, "set retention", owner, seconds)
        values = {"keep_seconds": seconds, "updated_at": connection.server.now()}
        policy = connection.policies.find_one(owner)
        await unless_refused(lambda: policy.update(Set(values), upsert=True))
        with holds_already(_IN_FORCE):
            return await _follow(connection, owner, on_progress)


async def clear_retention(
    database: AnyDatabase,
    *,
    tenant: str | Every = EVERY,
    project_key: str | Every = EVERY,
    entries: type[TranscriptEntry] = TranscriptEntry,
    summaries: type[SessionSummary] = SessionSummary,
    on_progress: Callable[[Redating], None] | None = None,
    actor: str | None = None,
) -> Redating:
    """Remove a policy, so that the next more general one holds, or none.

    Arguments and errors are those of :func:`set_retention`.
    """
    require_asyncio()
    owner = checked_owner(*as_scripts_mean(tenant, project_key, inspect.currentframe()))
    who = None if actor is None else checked_name_of_actor(actor)
    connection = await retention_connection(database, entries, summaries)
    with (
        measured("clear_retention", database=database),
        reported(database.client, "clear the retention", unanswered=NOT_KNOWN),
    ):
        await _record(database, who, "clear retention", owner)
        await unless_refused(lambda: connection.policies.find_one(owner).delete())
        with holds_already(_IN_FORCE):
            return await _follow(connection, owner, on_progress)


async def retention_policies(database: AnyDatabase) -> list[dict[str, Any]]:
    """The policies: ``{"tenant", "project_key", "keep_seconds", "updated_at"}`` of each.

    ``EVERY`` is the tenant, or project key, of one that holds for all others.
    """
    require_asyncio()
    collection = with_store_rules(as_pymongo(database))[policy_collection_name()]
    policies = Documents(RetentionPolicy, collection)
    with (
        measured("retention_policies", database=database),
        reported(database.client, "read the retention"),
    ):
        order = [("tenant", 1), ("project_key", 1)]
        rows = await policies.find(rows=PolicyRow, sort=order).to_list()
    return [
        {
            "tenant": _owner_of(row.tenant),
            "project_key": _owner_of(row.project_key),
            "keep_seconds": row.keep_seconds,
            "updated_at": row.updated_at,
        }
        for row in rows
    ]


async def _record(
    database: AnyDatabase,
    actor: str | None,
    action: str,
    owner: Mapping[str, str],
    seconds: int | None = None,
) -> None:
    # As a detail: no session is meant.
    details = {"project_key": owner["project_key"], "keep_seconds": seconds}
    await record(as_pymongo(database), owner["tenant"], actor, action, details=details)


def _owner_of(stored: Any) -> Any:
    return EVERY if stored == EVERY.value else stored


async def _follow(
    connection: Connection,
    owner: dict[str, str],
    on_progress: Callable[[Redating], None] | None,
) -> Redating:
    """Date what is stored, and once more what stores wrote that did not know yet."""
    connection.retentions.clear()
    await _redate(connection, owner, on_progress)
    await asyncio.sleep(CACHE_SECONDS)
    done = await _redate(connection, owner, on_progress)
    others = await other_entry_collections(connection.entries.collection)
    if others:
        logger.warning("%s", not_dated(others))
    return replace(done, others=tuple(others))


def not_dated(others: Sequence[str]) -> str:
    """What is to be done about the sessions of other Document classes, in words."""
    are = "is a collection" if len(others) == 1 else "are collections"
    return (
        f"{', '.join(others)} {are} of other Document classes, whose sessions keep the dates that "
        "they have until the next append to each. Do the same with entries=... and summaries=... "
        "(--entries, --summaries) of those classes."
    )


async def _redate(
    connection: Connection,
    owner: dict[str, str],
    on_progress: Callable[[Redating], None] | None,
) -> Redating:
    """Give the sessions that a policy may govern the dates they should have."""
    looked_at = moved = 0
    failed: list[TranscriptKey] = []
    retentions: dict[tuple[str, str], Retention] = {}
    governed = {field: name for field, name in owner.items() if name != EVERY.value}

    async def dated(row: DatedRow) -> bool:
        group = (row.tenant, row.project_key)
        if group not in retentions:
            retentions[group] = await read_retention(connection.policies, *group)
        key = TranscriptKey(*group, row.session_id)
        try:
            return await _redated(connection, key, row, retentions[group])
        except UnknownSessionError:
            # Deleted or expired since we saw it.
            return False
        except (
            ContentionError,
            TransientFailureError,
            DoneInPartError,
            OperationFailure,
        ) as error:
            if isinstance(error, OperationFailure) and error.code == UNAUTHORIZED:
                raise
            logger.warning("Could not date %s: %s", key, type(error).__name__)
            failed.append(key)
            return False

    async for rows in _batches(connection, governed):
        results = await asyncio.gather(*map(dated, rows))
        before = looked_at // _REPORT_EVERY
        looked_at += len(rows)
        moved += sum(results)
        if on_progress is not None and looked_at // _REPORT_EVERY > before:
            on_progress(Redating(looked_at, moved, tuple(failed)))
    done = Redating(looked_at, moved, tuple(failed))
    if on_progress is not None:
        on_progress(done)
    return done


async def _redated(
    connection: Connection, key: TranscriptKey, row: DatedRow, retention: Retention
) -> bool:
    """Give one session the dates that it should have, and return whether it had others."""
    if row.expires_at == DELETED:
        await sweep(connection, key)
        return False
    if row.has_remains:
        await sweep(connection, key)
    wanted, _ = row.wanted(retention)
    is_right = row.held_at is not None or wanted == row.expires_at
    if not is_right and wanted is not None and wanted <= connection.server.now():
        active_at = row.last_active

        def is_kept(now: DatedRow) -> bool:
            return now.held_at is not None or now.last_active != active_at

        return await delete_session(connection, key, unless=is_kept, wait=True)

    def redated(row: DatedRow, retention: Retention) -> tuple[Dated, dict[str, Any]] | None:
        dated = row.dated
        if dated.held_at is not None:
            return None
        wanted, to = row.wanted(retention)
        if dated.expires_at is None and (to is not None or dated.backstop is not None):
            return dated.announced(to), {}
        becomes = dated._replace(expires_at=dated.until(wanted))
        return None if becomes == dated else (becomes, {})

    if not is_right:
        await change_dates(connection, key, redated)
    await follow(connection, key)
    return not is_right


async def _batches(connection: Connection, owner: dict[str, str]) -> AsyncIterator[list[DatedRow]]:
    """All sessions in the order of their keys, a few at a time, each page by a query of its own.

    A cursor over a hundred thousand sessions would not live as long as dating them takes.
    """
    after: dict[str, Any] = {}
    while True:
        page = await connection.summaries.find(
            owner,
            after,
            rows=DatedRow,
            sort=BY_KEY,
            limit=_SESSIONS_AT_ONCE,
        ).to_list()
        if not page:
            return
        yield [row for row in page if row.is_of_session]
        after = page[-1].behind


async def retention_connection(
    database: AnyDatabase, entries: type[TranscriptEntry], summaries: type[SessionSummary]
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
        for collection in (
            connection.entries.collection,
            connection.summaries.collection,
            connection.chunks.collection,
        ):
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
