"""Which documents are meant, by name: the criteria of the store's queries.

They are plain dicts, for a Document class has paths only once ``init_beanie`` was called with it,
and a store on a database of its own needs no such call. A test holds every name in them against
the fields of the classes.
"""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any

from ..models.retention import NOT_EXPIRED as NOT_EXPIRED

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

WITH_MAIN: dict[str, Any] = {"mtime": {"$exists": True}}
"""Summaries of sessions that have a main transcript."""

NOT_HELD: dict[str, Any] = {"held_at": None}
"""Summaries of sessions that no hold keeps from expiring."""

UNFINISHED: dict[str, Any] = {
    "$or": [
        EXPIRED,
        {"remains": True},
        {"removed.0": {"$exists": True}},
        {"backstop.to": {"$exists": True}},
    ]
}
"""Summaries of sessions that are gone, or have something on its way."""

BY_KEY = ("tenant", "project_key", "session_id")
"""The fields that name a session, in the order of its index."""


def not_expired_at(date: datetime) -> dict[str, Any]:
    """:data:`NOT_EXPIRED` by a date of ours, which an index can tell without the document."""
    return {"expires_at": {"$not": {"$lte": date}}}


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
