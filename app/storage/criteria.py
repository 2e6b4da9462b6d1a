"""Which documents are meant, by name: the criteria of the store's queries.

They are plain dicts, for a Document class has paths only once ``init_beanie`` was called with it,
and a store on a database of its own needs no such call. A test holds every name in them against
the fields of the classes.
"""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any

from ...models.retention import NOT_EXPIRED as NOT_EXPIRED
from ...models.retention import SERVER_NOW
from ..database.documents import Row
from ..transcript_key import TranscriptKey

EXPIRED: dict[str, Any] = {"$expr": {"$not": [NOT_EXPIRED["$expr"]]}}
"""Summaries whose date has passed, by the server's clock, or whose session was deleted."""

DELETED = 0
"""The date of a summary whose session was deleted while its entries are swept.

It is before every date for all who compare, and no date for MongoDB, which leaves it alone.
"""

MARKED_DELETED: dict[str, Any] = {"expires_at": DELETED}
"""Summaries that only stand for what is left of a deleted session."""

NOT_DELETED: dict[str, Any] = {"expires_at": {"$ne": DELETED}}
"""All other summaries, also of sessions that have expired."""

LEASED: dict[str, Any] = {
    "$expr": {
        "$and": [
            {"$eq": [{"$type": "$lease.until"}, "date"]},
            {"$gt": ["$lease.until", SERVER_NOW]},
        ]
    }
}
"""Summaries of sessions whose lease somebody holds, by the server's clock."""

NOT_LEASED: dict[str, Any] = {"$expr": {"$not": [LEASED["$expr"]]}}
"""All other summaries."""

ERASED: dict[str, Any] = {
    "$expr": {
        "$and": [
            {"$eq": [{"$type": "$erased_until"}, "date"]},
            {"$gt": ["$erased_until", SERVER_NOW]},
        ]
    }
}
"""Tombstones: they stand for a session that was erased, and that nobody may begin again yet."""

NOT_ERASED: dict[str, Any] = {"$expr": {"$not": [ERASED["$expr"]]}}
"""All other summaries."""

SWEPT_TOMBSTONE: dict[str, Any] = {
    "erased_until": {"$type": "date"},
    "remains": {"$ne": True},
}
"""Tombstones of sessions of which nothing else is left; MongoDB takes them at their date."""

LEFT_TO_SWEEP: dict[str, Any] = {**MARKED_DELETED, "$nor": [SWEPT_TOMBSTONE]}
"""Summaries that stand for what may be left of a deleted session."""

WITH_MAIN: dict[str, Any] = {"mtime": {"$exists": True}}
"""Summaries of sessions that have a main transcript."""

NOT_HELD: dict[str, Any] = {"held_at": None}
"""Summaries of sessions that no hold keeps from expiring."""

BEING_DATED: dict[str, Any] = {"backstop.to": {"$exists": True}}
"""Summaries of sessions whose entries are on their way to other dates."""

UNFINISHED: dict[str, Any] = {
    "$or": [
        EXPIRED,
        {"remains": True},
        {"removed.0": {"$exists": True}},
        BEING_DATED,
    ],
    "$nor": [SWEPT_TOMBSTONE],
}
"""Summaries of sessions that are gone, or have something on its way."""

BY_KEY = [("tenant", 1), ("project_key", 1), ("session_id", 1)]
"""The order of the index of sessions."""


class KeyRow(Row):
    """Whose a document is."""

    tenant: Any = None
    project_key: Any = None
    session_id: Any = None

    @property
    def key(self) -> TranscriptKey:
        """Its session."""
        return TranscriptKey(self.tenant, self.project_key, self.session_id)

    @property
    def is_of_session(self) -> bool:
        """Whether it is any session's: what else is in a collection is not the store's."""
        names = (self.tenant, self.project_key, self.session_id)
        return all(isinstance(name, str) for name in names)

    @property
    def behind(self) -> dict[str, Any]:
        """A criterion for the sessions behind it, :data:`BY_KEY`."""
        return behind(
            tenant=_beginning(self.tenant),
            project_key=_beginning(self.project_key),
            session_id=_beginning(self.session_id),
        )


def _beginning(name: object) -> object:
    """Where texts begin, for what is none and stands before them: nothing, or a number.

    A comparison with that finds nothing else, and so none of the sessions behind it.
    """
    is_before = name is None or (isinstance(name, (int, float)) and not isinstance(name, bool))
    return "" if is_before else name


def not_expired_at(date: datetime) -> dict[str, Any]:
    """:data:`NOT_EXPIRED` by a date of ours, which an index can tell without the document."""
    return {"expires_at": {"$not": {"$lte": date}}}


def expired_before(date: datetime) -> dict[str, Any]:
    """Summaries that MongoDB should have taken by a date, the deleted ones aside."""
    return {"expires_at": {"$type": "date", "$lt": date}}


def listed(tenant: str, project_key: str, now: datetime) -> dict[str, Any]:
    """Summaries of the sessions that a listing of a project has; ``now`` is the server's."""
    return {
        "tenant": tenant,
        "project_key": project_key,
        # An index tells what is compared, but not whether a field is there.
        "mtime": {"$gte": -math.inf},
        **not_expired_at(now),
    }


def behind(**last: Any) -> dict[str, Any]:
    """What comes after a document in the rising order of these fields, the first one first.

    So a page goes on where the one before it ended, by a query of its own: a cursor over all pages
    might be gone by then.
    """
    return _past("$gt", last)


def before(**last: Any) -> dict[str, Any]:
    """What comes after a document in the falling order of these fields, the first one first."""
    return _past("$lt", last)


def _past(operator: str, last: dict[str, Any]) -> dict[str, Any]:
    names = list(last)
    parts = [
        {**{same: last[same] for same in names[:place]}, name: {operator: last[name]}}
        for place, name in enumerate(names)
    ]
    return {"$or": parts[::-1]}
