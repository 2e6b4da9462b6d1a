"""Summaries of sessions: of one, or of the latest of a tenant, a page at a time."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Generic

from bson import ObjectId
from pydantic import Field
from typing_extensions import TypeVar

from ...models import SessionSummary
from ..database.documents import Criteria, Row
from ..database.reads import retried
from ..errors import InvalidQueryError
from ..storage.connection import Connection
from ..storage.criteria import NOT_EXPIRED, WITH_MAIN, before
from ..storage.shown_texts import show_texts
from ..storage.stored_summaries import summary_of
from ..stored_times import EPOCH
from ..text import shown
from ..transcript_key import TranscriptKey
from .filters import SessionFilter
from .sealed_queries import refuse_sealed

S_co = TypeVar("S_co", bound=SessionSummary, default=SessionSummary, covariant=True)


@dataclass(frozen=True, slots=True)
class SessionPage(Generic[S_co]):
    """Some sessions, the most recently active first."""

    sessions: Sequence[S_co]
    cursor: str | None
    """Pass it as ``after`` for the next page; ``None`` on the last one."""


@dataclass(frozen=True, slots=True)
class Position:
    """Behind which session a page begins."""

    active_at: datetime
    id: ObjectId

    @classmethod
    def parse(cls, cursor: object) -> Position:
        """The position that a cursor stands for.

        Raises:
            InvalidQueryError: it is no cursor.
        """
        try:
            if not isinstance(cursor, str):
                raise TypeError
            milliseconds, found = json.loads(base64.urlsafe_b64decode(cursor.encode()))
            return cls(EPOCH + timedelta(milliseconds=milliseconds), ObjectId(found))
        except Exception:
            raise InvalidQueryError(
                f"after must be the cursor of a page, not {shown(cursor, 80)}; nothing was read. "
                "Pass page.cursor as it is, or None for the first page."
            ) from None

    @property
    def cursor(self) -> str:
        """The same as a text for callers to keep."""
        milliseconds = (self.active_at - EPOCH) // timedelta(milliseconds=1)
        return base64.urlsafe_b64encode(json.dumps([milliseconds, str(self.id)]).encode()).decode()


class _FiguresRow(Row):
    """What a summary says but for what is said in the session."""

    id: Any = Field(None, alias="_id")
    tenant: Any = None
    project_key: Any = None
    session_id: Any = None
    next_seq: Any = None
    mtime: Any = None
    metadata: Any = None
    totals: Any = None
    created_at: Any = None
    active_at: Any = None
    expires_at: Any = None
    held_at: Any = None

    def summary(self, model: type[S_co]) -> S_co:
        """A summary of which nothing else is known."""
        fields = type(self).model_fields
        return summary_of(
            model,
            {fields[name].alias or name: getattr(self, name) for name in self.model_fields_set},
        )


async def session_page(
    connection: Connection,
    tenant: str,
    wanted: SessionFilter,
    limit: int,
    after: Position | None,
    *,
    figures_only: bool = False,
) -> SessionPage[Any]:
    """The next ``limit`` sessions with a main transcript behind the cursor ``after``.

    They are of the class that the store was made with. With ``figures_only`` their texts stay in
    the database.
    """
    refuse_sealed(connection, wanted)
    summaries = connection.summaries
    criteria: list[Criteria] = [wanted.query(tenant), WITH_MAIN]
    if after is not None:
        # The first for the index, which the alternatives alone would not lead to the place.
        criteria.append({"active_at": {"$lte": after.active_at}})
        criteria.append(before(active_at=after.active_at, _id=after.id))

    async def attempt() -> list[SessionSummary]:
        # One more tells whether there is another page.
        order: dict[str, Any] = {"sort": [("active_at", -1), ("_id", -1)], "limit": limit + 1}
        order["max_time_ms"] = wanted.time_limit
        if not figures_only:
            found = await summaries.find(*criteria, **order).to_list()
            await show_texts(connection, found)
            return found
        rows = await summaries.find(*criteria, rows=_FiguresRow, **order).to_list()
        return [row.summary(summaries.model) for row in rows]

    found = await retried(connection.client, attempt)
    sessions = found[:limit]
    last = sessions[-1] if len(found) > limit else None
    # What has no date of activity comes last.
    if last is None or last.active_at is None or last.id is None:
        return SessionPage(sessions, None)
    return SessionPage(sessions, Position(last.active_at, last.id).cursor)


async def session_summary(connection: Connection, key: TranscriptKey) -> Any:
    """The summary of the key's session, of the store's class, or ``None`` without one."""

    async def attempt() -> SessionSummary | None:
        found = await connection.summaries.find_one(key.of_session, NOT_EXPIRED)
        if found is not None:
            await show_texts(connection, [found])
        return found

    return await retried(connection.client, attempt)


async def project_keys(connection: Connection, tenant: str) -> list[str]:
    """The project keys of a tenant's sessions, those that have expired since included."""

    async def attempt() -> list[Any]:
        # None of Beanie's; an index has the answer, and no document is read.
        return await connection.summaries.collection.distinct("project_key", {"tenant": tenant})

    return sorted(key for key in await retried(connection.client, attempt) if isinstance(key, str))
