"""Finishing what others left: remains to sweep, and dates on their way.

Nothing needs it: appends go on with what concerns their sessions, and MongoDB's TTL monitor takes
entries at their own dates. It is for those who want remains gone sooner.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ...models import EntryChunk, SessionSummary, TranscriptEntry
from ..database.collection_names import collection_name
from ..database.driver import AnyDatabase
from ..database.failures import IN_STEPS, reported, require_asyncio
from ..database.transactions import DoneInPartError, TransientFailureError
from ..errors import ContentionError
from ..instruments.operations import measured
from ..storage.connection import Connection, StoreModels, connect_models
from ..storage.criteria import BY_KEY, EXPIRED, UNFINISHED, KeyRow
from ..storage.orphans import orphan_of, sessions_with_entries
from ..transcript_key import TranscriptKey
from .dating import DatedRow, follow
from .deletion import delete_session
from .remains import sweep, sweep_unowned

logger = logging.getLogger("beanie_session_store.writing")

_PAGE = 100


@dataclass(frozen=True, slots=True)
class Sweeping:
    """What was found to be finished."""

    swept: int = 0
    """Sessions, gone or alive, of which something was swept or dated."""
    failed: tuple[TranscriptKey, ...] = ()
    """Those that others wrote to all the time; the same call tries them again."""


async def sweep_sessions(
    database: AnyDatabase,
    *,
    tenant: str | None = None,
    entries: type[TranscriptEntry] = TranscriptEntry,
    summaries: type[SessionSummary] = SessionSummary,
    on_progress: Callable[[Sweeping], None] | None = None,
) -> Sweeping:
    """Delete now what is left of expired and deleted sessions, and finish moving entries' dates.

    It goes over all sessions, in batches that leave room for others, and may be cut off at any
    time and run again.

    Args:
        database: the database, as given to ``init_beanie``.
        tenant: only of this tenant.
        entries: the class for entries, where a team has its own.
        summaries: the class for summaries, where a team has its own.
        on_progress: called with what was finished so far.

    Raises:
        SessionStoreError: the database is away, or refuses.
    """
    require_asyncio()
    raw = (
        database[collection_name(entries)],
        database[collection_name(summaries)],
        database[collection_name(EntryChunk)],
    )
    connection = await connect_models(StoreModels(entries, summaries), raw)
    owner = {} if tenant is None else {"tenant": tenant}
    with (
        measured("sweep_sessions", database=database),
        reported(database.client, "sweep", outcome=IN_STEPS),
    ):
        return await _sweep_all(connection, owner, on_progress)


async def _sweep_all(
    connection: Connection,
    owner: Mapping[str, str],
    on_progress: Callable[[Sweeping], None] | None,
) -> Sweeping:
    swept = 0
    failed: list[TranscriptKey] = []
    async for key in _unfinished(connection, owner):
        try:
            await finish(connection, key)
        except (ContentionError, TransientFailureError, DoneInPartError):
            failed.append(key)
        else:
            swept += 1
        if on_progress is not None:
            on_progress(Sweeping(swept, tuple(failed)))
    swept += await sweep_orphans(connection, owner, spares_lost=True)
    return Sweeping(swept, tuple(failed))


async def finish(connection: Connection, key: TranscriptKey) -> None:
    """Sweep and date what is left to do of one session."""
    summaries = connection.summaries
    gone = await summaries.find_one(key.of_session, EXPIRED, rows=DatedRow)
    if gone is not None:
        this = gone.id
        await delete_session(connection, key, unless=lambda now: now.id != this, wait=True)
        return
    await sweep(connection, key)
    await follow(connection, key)


async def sweep_orphans(
    connection: Connection, owner: Mapping[str, str], *, spares_lost: bool
) -> int:
    """Sweep sessions whose summaries MongoDB has taken, and return how many there were.

    ``spares_lost`` leaves those alone of which something else took it: they can be repaired.
    """
    swept = 0
    async for each in sessions_with_entries(connection, owner):
        if each.has_summary:
            continue
        if spares_lost:
            orphan = await orphan_of(connection, each.key)
            if orphan is not None and not orphan.may_have_expired:
                logger.warning(
                    "Left %s alone, whose summary something else than expiry took: run "
                    "session-store verify --repair, or delete it.",
                    each.key,
                )
                continue
        swept += await sweep_unowned(connection, each.key)
    return swept


async def _unfinished(
    connection: Connection, owner: Mapping[str, str]
) -> AsyncIterator[TranscriptKey]:
    after: dict[str, Any] = {}
    while True:
        page = await connection.summaries.find(
            owner, UNFINISHED, after, rows=KeyRow, sort=BY_KEY, limit=_PAGE
        ).to_list()
        for row in page:
            if row.is_of_session:
                yield row.key
        if len(page) < _PAGE:
            return
        after = page[-1].behind
