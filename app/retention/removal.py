"""Removing all sessions that meet conditions, such as those of one user."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from ..database.collection_names import ADOPTION_RECORDS
from ..database.driver import with_store_rules
from ..database.transactions import DoneInPartError, TransientFailureError
from ..errors import ContentionError, InvalidQueryError
from ..queries.filters import SessionFilter
from ..queries.sealed_queries import refuse_sealed
from ..reading.listings import SessionListing, listing_of
from ..storage.connection import Connection
from ..writing.dating import DatedRow
from ..writing.deletion import delete_session
from .matching import AT_ONCE, MatchingRow, matching_pages, sweep_what_is_gone


@dataclass(frozen=True, slots=True)
class Removal:
    """What became of the sessions that were to be removed."""

    found: int = 0
    """Sessions that met the conditions."""
    deleted: int = 0
    held: tuple[SessionListing, ...] = ()
    """Those that stay, for they are held; release them first."""
    failed: tuple[SessionListing, ...] = ()
    """Those that others wrote to all the time; the same call tries them again."""


async def remove_sessions(
    connection: Connection,
    tenant: str,
    wanted: SessionFilter,
    *,
    dry_run: bool,
    on_progress: Callable[[Removal], None] | None,
) -> Removal:
    """Delete the sessions of a tenant that meet the conditions, but for those that are held."""
    refuse_sealed(connection, wanted)
    found = deleted = 0
    held: list[SessionListing] = []
    failed: list[SessionListing] = []
    records = with_store_rules(connection.entries.collection.database)[ADOPTION_RECORDS]

    async def remove(row: MatchingRow) -> bool:
        key = row.key
        listing = await listing_of(connection, row)
        if row.held_at is not None:
            held.append(listing)
            return False
        if dry_run:
            return False
        is_held = False

        def stays(now: DatedRow) -> bool:
            nonlocal is_held
            is_held = now.held_at is not None
            return is_held or now.id != row.id

        try:
            is_deleted = await delete_session(connection, key, unless=stays, wait=True)
        except (ContentionError, TransientFailureError, DoneInPartError):
            failed.append(listing)
            return False
        if is_held:
            held.append(listing)
        elif is_deleted:
            # An adoption that is run again must find no trace of it either.
            await records.delete_many(key.of_session)
        return is_deleted

    async for rows in matching_pages(connection, tenant, wanted):
        found += len(rows)
        for start in range(0, len(rows), AT_ONCE):
            deleted += sum(await asyncio.gather(*map(remove, rows[start : start + AT_ONCE])))
        if on_progress is not None:
            on_progress(Removal(found, deleted, tuple(held), tuple(failed)))
    if not dry_run:
        await sweep_what_is_gone(connection, tenant, wanted)
    return Removal(found, deleted, tuple(held), tuple(failed))


def require_conditions(wanted: SessionFilter) -> None:
    """Refuse to remove everything by leaving all conditions out.

    Raises:
        InvalidQueryError: there is no condition.
    """
    given = (
        *(wanted.criteria, wanted.project_key, wanted.tag, wanted.branch, wanted.title),
        *(wanted.metadata, wanted.since, wanted.until),
    )
    if not any(given) or any(not each for each in cast("Any", wanted.criteria)):
        raise InvalidQueryError(
            "No condition says which sessions to delete, and that would be all of the tenant; "
            "nothing was deleted. Name at least one, such as metadata={'user_id': 'u1'}."
        )
