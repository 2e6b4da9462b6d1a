"""How many sessions a change of the retention would end at once, before anything is changed."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from ..models import SessionSummary
from .driver import Database, server_of, with_store_rules
from .every import EVERY, Every
from .expiry import NOT_EXPIRED, Retention, most_specific, policy_collection_name
from .failures import reported, require_asyncio
from .retention import checked_owner, checked_seconds
from .schema import collection_name
from .stored_times import last_active

_ROW = dict.fromkeys(("tenant", "project_key", "active_at", "mtime", "created_at"), 1)


async def ending_sessions(
    database: Database,
    keep: timedelta | None,
    *,
    tenant: str | Every = EVERY,
    project_key: str | Every = EVERY,
    is_cleared: bool = False,
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
        summaries: the class for summaries, where a team has its own.

    Raises:
        InvalidRetentionError, InvalidKeyError: as for :func:`set_retention`.
        SessionStoreError: the server is away or refuses.
    """
    require_asyncio()
    seconds = checked_seconds(keep)
    owner = checked_owner(tenant, project_key)
    with reported(database.client, "count the sessions that would end"):
        server = await server_of(database.client)
        ours = with_store_rules(database)
        rows = await ours[policy_collection_name()].find({}).to_list(None)
        policies: dict[tuple[str, str], int | None] = {
            (row["tenant"], row["project_key"]): row["keep_seconds"] for row in rows
        }
        changed = (owner["tenant"], owner["project_key"])
        policies.pop(changed, None)
        if not is_cleared:
            policies[changed] = seconds
        named = {field: name for field, name in owner.items() if name != EVERY.value}
        query: dict[str, Any] = {**named, "held_at": None, **NOT_EXPIRED}
        sessions = ours[collection_name(summaries)].find(query, _ROW)
        now = server.now()
        known: dict[tuple[str, str], Retention] = {}
        ending = 0
        async for row in sessions:
            group = (row["tenant"], row["project_key"])
            if group not in known:
                known[group] = most_specific(policies, *group)
            ending += _is_over(row, known[group], now)
        return ending


def _is_over(row: dict[str, Any], retention: Retention, now: datetime) -> bool:
    date = retention.expiry(last_active(row))
    return date is not None and date <= now
