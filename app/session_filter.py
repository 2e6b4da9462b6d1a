"""Which sessions are meant: checked conditions, bound to one tenant."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, cast

from .errors import InvalidQueryError
from .expiry import NOT_EXPIRED
from .key import checked_name

_SCALARS = (str, int, float, bool, type(None))


@dataclass(frozen=True, slots=True)
class SessionFilter:
    """Conditions that a session must meet, all of them.

    Raises:
        InvalidQueryError: a condition is of a wrong type, or could be a query operator.
        InvalidKeyError: the project key is no usable name.
    """

    criteria: Sequence[Mapping[str, Any]] = ()
    """Queries in the ODM's own style, such as ``SessionSummary.totals.turns > 3``."""
    project_key: str | None = None
    tag: str | None = None
    branch: str | None = None
    title: str | None = None
    """A part of the title or of the first prompt, in upper or lower case."""
    metadata: Mapping[str, Any] | None = None
    """Values that the session's metadata has, by field."""
    since: datetime | None = None
    until: datetime | None = None
    """Last activity, by the server's clock, from ``since`` on and before ``until``."""

    def __post_init__(self) -> None:
        if self.project_key is not None:
            checked_name("project_key", self.project_key)
        for name in ("tag", "branch", "title"):
            if getattr(self, name) is not None:
                checked_text(name, getattr(self, name))
        for name in ("since", "until"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, datetime) and value.tzinfo):
                raise InvalidQueryError(
                    f"{name} must be a datetime with a time zone or None, not {value!r:.60}; "
                    "nothing was read. Pass datetime(..., tzinfo=timezone.utc)."
                )
        for each in cast("Sequence[object]", self.criteria):
            if not isinstance(each, Mapping):
                raise InvalidQueryError(
                    f"a criterion must be a query such as SessionSummary.tag == 'x', not "
                    f"{each!r:.60}; nothing was read."
                )
        metadata = cast("object", self.metadata)
        if metadata is not None and not isinstance(metadata, Mapping):
            raise InvalidQueryError(
                f"metadata must be a dict or None, not {metadata!r:.60}; nothing was read."
            )
        for name, value in cast("Mapping[Any, Any]", metadata or {}).items():
            checked_field("a field of metadata", name)
            if not isinstance(value, _SCALARS):
                raise InvalidQueryError(
                    f"metadata[{name!r}] must be a string, number, boolean or None, not "
                    f"{type(value).__name__}, which could be a query operator; nothing was read. "
                    "For other conditions pass a criterion."
                )

    def query(self, tenant: str) -> dict[str, Any]:
        """The query for them; whatever the criteria say, it finds sessions of ``tenant`` alone."""
        query: dict[str, Any] = {"tenant": tenant}
        if self.project_key is not None:
            query["project_key"] = self.project_key
        for name in ("tag", "branch"):
            value = getattr(self, name)
            if value is not None:
                query[name] = value
        for name, value in (self.metadata or {}).items():
            query[f"metadata.{name}"] = value
        active: dict[str, datetime] = {}
        if self.since is not None:
            active["$gte"] = self.since.astimezone(timezone.utc)
        if self.until is not None:
            active["$lt"] = self.until.astimezone(timezone.utc)
        if active:
            query["active_at"] = active
        parts: list[Mapping[str, Any]] = list(self.criteria)
        if self.title is not None:
            part = {"$regex": re.escape(self.title), "$options": "i"}
            parts.append({"$or": [{"title": part}, {"first_prompt": part}]})
        if parts:
            query["$and"] = [dict(part) for part in parts]
        return query | NOT_EXPIRED


def checked_text(name: str, value: object) -> None:
    """Refuse what is no text to look for, and what no document can hold.

    Raises:
        InvalidQueryError: it is none.
    """
    if not isinstance(value, str) or not value or "\0" in value:
        raise InvalidQueryError(
            f"{name} must be a text that is not empty, not {value!r:.60}; nothing was read."
        )
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidQueryError(
            f"{name} holds a lone surrogate, which no document can match; nothing was read."
        ) from None


def checked_field(what: str, name: object) -> str:
    """Refuse what is no plain name of a field of metadata.

    Raises:
        InvalidQueryError: it is none.
    """
    if not isinstance(name, str) or not name or name[0] == "$" or "." in name or "\0" in name:
        raise InvalidQueryError(
            f"{what} must be a plain name, without a dot or a leading $, not {name!r:.60}; "
            "nothing was read. For other conditions pass a criterion."
        )
    return name


def checked_limit(limit: object) -> int:
    """Refuse what is no number of results.

    Raises:
        InvalidQueryError: it is none.
    """
    if type(limit) is not int or not 1 <= limit <= 1000:
        raise InvalidQueryError(
            f"limit must be an int from 1 to 1000, not {limit!r:.40}; nothing was read."
        )
    return limit
