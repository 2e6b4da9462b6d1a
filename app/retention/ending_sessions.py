"""How many sessions a change of the retention would end at once, before anything is changed."""

from __future__ import annotations

from datetime import datetime, timedelta

from ...models import SessionSummary, TranscriptEntry
from ..database.driver import Database
from ..database.failures import reported, require_asyncio
from ..every import EVERY, Every
from ..storage.criteria import NOT_EXPIRED, NOT_HELD
from ..storage.expiry import PolicyRow, Retention, most_specific
from ..storage.last_activity import ActiveRow
from .policies import checked_owner, checked_seconds, retention_connection


async def ending_sessions(
    database: Database,
    keep: timedelta | None,
    *,
    tenant: str | Every = EVERY,
    project_key: str | Every = EVERY,
    is_cleared: bool = False,
    entries: type[TranscriptEntry] = TranscriptEntry,
    summaries: type[SessionSummary] = SessionSummary,
) -> int:
    """How many sessions would be gone as soon as :func:`set_retention` has dated them.

    Sessions that are held, or that a more specific policy keeps, are none of them. Nothing is
    written.

    Args:
        database: the database, as given to ``init_beanie``.
        keep: the time of the policy, or ``None`` for ever.
        tenant: the tenant of the policy, or ``EVERY``.
        project_key: its project key, or ``EVERY``.
        is_cleared: the policy is removed instead; ``keep`` is not looked at.
        entries: the class for entries, where a team has its own.
        summaries: the class for summaries, where a team has its own.

    Raises:
        SessionStoreError: as for :func:`set_retention`.
    """
    require_asyncio()
    seconds = checked_seconds(keep)
    owner = checked_owner(tenant, project_key)
    connection = await retention_connection(database, entries, summaries)
    with reported(database.client, "count the sessions that would end"):
        rows = await connection.policies.find(rows=PolicyRow).to_list()
        policies: dict[tuple[str, str], int | None] = {
            (row.tenant, row.project_key): row.keep_seconds for row in rows
        }
        changed = (owner["tenant"], owner["project_key"])
        policies.pop(changed, None)
        if not is_cleared:
            policies[changed] = seconds
        named = {field: name for field, name in owner.items() if name != EVERY.value}
        found = connection.summaries.find(named, NOT_HELD, NOT_EXPIRED, rows=ActiveRow)
        now = connection.server.now()
        known: dict[tuple[str, str], Retention] = {}
        ending = 0
        async for row in found:
            if not row.is_of_session:
                continue
            group = (row.tenant, row.project_key)
            if group not in known:
                known[group] = most_specific(policies, *group)
            ending += _is_over(row, known[group], now)
        return ending


def _is_over(row: ActiveRow, retention: Retention, now: datetime) -> bool:
    date = retention.expiry(row.last_active)
    return date is not None and date <= now
