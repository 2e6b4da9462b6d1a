"""The sessions that meet conditions, whatever state they are in, to be removed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, ClassVar

from pydantic import Field

from ..queries.filters import SessionFilter
from ..reading.listings import ListedRow, listing_of
from ..storage.connection import Connection
from ..storage.criteria import BY_KEY, LEFT_TO_SWEEP, NOT_DELETED, KeyRow
from ..transcript_key import TranscriptKey
from ..writing.housekeeping import sweep_orphans
from ..writing.remains import sweep

AT_ONCE = 4
"""Sessions that are removed at a time."""

_PAGE = 100


class MatchingRow(ListedRow):
    """A session that may be removed."""

    is_of_subject: ClassVar[bool] = True

    id: Any = Field(default=None, alias="_id")
    held_at: Any = None


async def matching_pages(
    connection: Connection, tenant: str, wanted: SessionFilter
) -> AsyncIterator[list[MatchingRow]]:
    """The summaries that meet the conditions, expired ones too, a page by a query of its own."""
    query = wanted.query(tenant, with_expired=True, with_packed=True)
    after: dict[str, Any] = {}
    while True:
        page = await connection.summaries.find(
            query,
            NOT_DELETED,
            after,
            rows=MatchingRow,
            sort=BY_KEY,
            limit=_PAGE,
        ).to_list()
        rows = [row for row in page if row.is_of_session and await _meets(connection, row, wanted)]
        if rows:
            yield rows
        if len(page) < _PAGE:
            return
        after = page[-1].behind


async def matching_now(
    connection: Connection, key: TranscriptKey, wanted: SessionFilter
) -> MatchingRow | None:
    """The summary of a session, if it meets the conditions by now, and is not deleted."""
    query = wanted.query(key.tenant, with_expired=True, with_packed=True)
    row = await connection.summaries.confirmed.find_one(
        query, key.of_session, NOT_DELETED, rows=MatchingRow
    )
    return row if row is not None and await _meets(connection, row, wanted) else None


async def _meets(connection: Connection, row: MatchingRow, wanted: SessionFilter) -> bool:
    """Whether metadata that the server cannot look into is as wanted."""
    if "packed_metadata" not in row.model_fields_set or not wanted.metadata:
        return True
    return wanted.describes((await listing_of(connection, row)).metadata)


async def sweep_what_is_gone(connection: Connection, tenant: str, wanted: SessionFilter) -> None:
    """Sweep what expired or was deleted before, of which nobody can say any more whose it was."""
    owner = {"tenant": tenant}
    if wanted.project_key is not None:
        owner["project_key"] = wanted.project_key
    marked = connection.summaries.find(owner, LEFT_TO_SWEEP, rows=KeyRow)
    async for row in marked:
        if row.is_of_session:
            await sweep(connection, row.key)
    await sweep_orphans(connection, owner, spares_lost=False)
