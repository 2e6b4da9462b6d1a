"""Summaries of sessions: of one, or of the latest of a tenant, a page at a time."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, Generic

from bson import ObjectId
from typing_extensions import TypeVar

from ..models import SessionSummary
from .connection import Connection
from .criteria import NOT_EXPIRED, before
from .errors import InvalidQueryError
from .key import TranscriptKey
from .reads import retried
from .session_filter import SessionFilter
from .shown import shown
from .stored_summaries import summary_of

S = TypeVar("S", bound=SessionSummary)
S_co = TypeVar("S_co", bound=SessionSummary, default=SessionSummary, covariant=True)

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


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
            return cls(_EPOCH + timedelta(milliseconds=milliseconds), ObjectId(found))
        except Exception:
            raise InvalidQueryError(
                f"after must be the cursor of a page, not {shown(cursor, 80)}; nothing was read. "
                "Pass page.cursor as it is, or None for the first page."
            ) from None

    @property
    def cursor(self) -> str:
        """The same as a text for callers to keep."""
        milliseconds = (self.active_at - _EPOCH) // timedelta(milliseconds=1)
        return base64.urlsafe_b64encode(json.dumps([milliseconds, str(self.id)]).encode()).decode()


async def session_page(
    connection: Connection,
    model: type[S],
    tenant: str,
    wanted: SessionFilter,
    limit: int,
    after: Position | None,
) -> SessionPage[S]:
    """The next ``limit`` sessions with a main transcript behind the cursor ``after``."""
    query = {**wanted.query(tenant), "mtime": {"$exists": True}}
    if after is not None:
        query["$and"] = [
            *query.get("$and", []),
            # For the index, which the alternatives alone would not lead to the place.
            {"active_at": {"$lte": after.active_at}},
            before(active_at=after.active_at, _id=after.id),
        ]

    async def attempt() -> list[dict[str, Any]]:
        order = [("active_at", -1), ("_id", -1)]
        # One more tells whether there is another page.
        found = connection.summaries.find(
            query, sort=order, limit=limit + 1, max_time_ms=wanted.time_limit
        )
        return await found.to_list(None)

    rows = await retried(connection.client, attempt)
    sessions = [summary_of(model, row) for row in rows[:limit]]
    last = rows[limit - 1] if len(rows) > limit else {}
    # What has no date of activity comes last.
    if not isinstance(last.get("active_at"), datetime):
        return SessionPage(sessions, None)
    return SessionPage(sessions, Position(last["active_at"], last["_id"]).cursor)


async def session_summary(connection: Connection, model: type[S], key: TranscriptKey) -> S | None:
    """The summary of the key's session, or ``None`` without one."""

    async def attempt() -> dict[str, Any] | None:
        return await connection.summaries.find_one({**key.session_filter(), **NOT_EXPIRED})

    row = await retried(connection.client, attempt)
    return None if row is None else summary_of(model, row)
