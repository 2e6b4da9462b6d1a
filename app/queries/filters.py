"""Which sessions are meant: checked conditions, bound to one tenant."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, TypeAlias, cast

import bson

from ...models.plain import JSON_CODEC
from ..errors import InvalidQueryError
from ..storage.criteria import NOT_EXPIRED
from ..text import plain, shown
from ..transcript_key import checked_name

MAX_TEXT_BYTES = 8192
"""Longest text to look for, in UTF-8. Escaped, it is a regular expression that MongoDB takes."""

MAX_QUERY_BYTES = 1024 * 1024
"""Largest criterion, or metadata, as BSON."""

QUERY_MS = 30_000
"""How long the server may look for what no index finds, in milliseconds."""

Criterion: TypeAlias = Mapping[str, Any] | bool
"""A query, or a comparison of a field of a Document class, which is one.

A checker takes it for a bool where the class is a team's own; a real bool is refused.
"""

_SCALARS = (str, int, float, bool, type(None))


@dataclass(frozen=True, slots=True)
class SessionFilter:
    """Conditions that a session must meet, all of them.

    Raises:
        InvalidQueryError: a condition is of a wrong type, or could be a query operator.
        InvalidKeyError: the project key is no usable name.
    """

    criteria: Sequence[Criterion] = ()
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
            if value is not None and not _is_moment(value):
                raise InvalidQueryError(
                    f"{name} must be a datetime with a time zone or None, not {shown(value)}; "
                    "nothing was read. Pass datetime(..., tzinfo=timezone.utc)."
                )
        for each in cast("Sequence[object]", self.criteria):
            if not isinstance(each, Mapping):
                raise InvalidQueryError(
                    f"a criterion must be a query such as SessionSummary.tag == 'x', not "
                    f"{shown(each)}; nothing was read."
                )
        metadata = cast("object", self.metadata)
        if metadata is not None and not isinstance(metadata, Mapping):
            raise InvalidQueryError(
                f"metadata must be a dict or None, not {shown(metadata)}; nothing was read."
            )
        for name, value in cast("Mapping[Any, Any]", metadata or {}).items():
            checked_field("a field of metadata", name)
            if not isinstance(value, _SCALARS):
                raise InvalidQueryError(
                    f"metadata[{shown(name)}] must be a string, number, boolean or None, not "
                    f"{type(value).__name__}, which could be a query operator; nothing was read. "
                    "For other conditions pass a criterion."
                )
        _require_encodable("metadata", cast("object", metadata))
        for each in self.criteria:
            _require_encodable("a criterion", each)

    @property
    def time_limit(self) -> int | None:
        """Milliseconds that the server may look for them; ``None`` where indexes bound it.

        What no index answers, or what a caller wrote, may take for ever, and the server's time
        is everybody's.
        """
        return QUERY_MS if self.criteria or self.title is not None else None

    @property
    def conditions(self) -> list[str]:
        """The names of what is asked for, without the values, which may be a person's."""
        fields = ("project_key", "tag", "branch", "title", "since", "until")
        given = [name for name in fields if getattr(self, name) is not None]
        described = [f"metadata.{name}" for name in self.metadata or {}]
        return [*given, *described, *(["criteria"] if self.criteria else [])]

    def query(
        self, tenant: str, *, with_expired: bool = False, with_packed: bool = False
    ) -> dict[str, Any]:
        """The query for them; whatever the criteria say, it finds sessions of ``tenant`` alone.

        ``with_packed`` also lets through those whose metadata the server cannot look into.
        """
        query: dict[str, Any] = {"tenant": tenant}
        if self.project_key is not None:
            query["project_key"] = self.project_key
        for name in ("tag", "branch"):
            value = getattr(self, name)
            if value is not None:
                query[name] = value
        parts = list(cast("Sequence[Mapping[str, Any]]", self.criteria))
        described = {f"metadata.{name}": value for name, value in (self.metadata or {}).items()}
        if with_packed and described:
            parts.append({"$or": [described, {"packed_metadata": {"$exists": True}}]})
        else:
            query |= described
        active: dict[str, datetime] = {}
        if self.since is not None:
            active["$gte"] = self.since.astimezone(timezone.utc)
        if self.until is not None:
            active["$lt"] = self.until.astimezone(timezone.utc)
        if active:
            query["active_at"] = active
        if self.title is not None:
            part = {"$regex": re.escape(self.title), "$options": "i"}
            parts.append({"$or": [{"title": part}, {"first_prompt": part}]})
        if parts:
            query["$and"] = [dict(part) for part in parts]
        return query if with_expired else query | NOT_EXPIRED

    def describes(self, metadata: Mapping[str, Any] | None) -> bool:
        """Whether metadata that was read has the values that are wanted."""
        wanted, stored = self.metadata or {}, metadata or {}
        return all(_equal(stored.get(name), value) for name, value in wanted.items())


def _equal(stored: object, wanted: object) -> bool:
    """As MongoDB compares: a list is also equal to what it holds, and ``True`` is no 1."""
    if isinstance(stored, list):
        return any(_equal(each, wanted) for each in cast("list[object]", stored))
    return isinstance(stored, bool) == isinstance(wanted, bool) and stored == wanted


def _is_moment(value: object) -> bool:
    """Whether it is a date with a time zone, and one in UTC too."""
    try:
        return (
            isinstance(value, datetime)
            and value.utcoffset() is not None
            and bool(value.astimezone(timezone.utc))
        )
    except (OverflowError, ValueError):
        # A day beyond the calendar's edge.
        return False


def _require_encodable(what: str, value: object) -> None:
    """Refuse what the driver cannot put into a query, such as an integer beyond 64 bits.

    Raises:
        InvalidQueryError: it cannot, or the query would be too large.
    """
    try:
        size = len(bson.encode({"value": value}, codec_options=JSON_CODEC))
    # Whatever the value's own code raises, too.
    except Exception as error:
        raise InvalidQueryError(
            f"{what} holds something that no query can hold ({type(error).__name__}: "
            f"{plain(str(error))[:200]}); nothing was read. Use texts, numbers of up to 64 bits, "
            "booleans, None, dates, and lists and dicts of them."
        ) from None
    if size > MAX_QUERY_BYTES:
        raise InvalidQueryError(
            f"{what} takes {size} bytes, more than {MAX_QUERY_BYTES}; nothing was read. Ask for "
            "fewer things at once."
        )


def checked_text(name: str, value: object) -> None:
    """Refuse what is no text to look for, and what no document can hold.

    Raises:
        InvalidQueryError: it is none.
    """
    if not isinstance(value, str) or not value or "\0" in value:
        raise InvalidQueryError(
            f"{name} must be a text that is not empty, not {shown(value)}; nothing was read."
        )
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise InvalidQueryError(
            f"{name} holds a lone surrogate, which no document can match; nothing was read. Pass "
            "well-formed Unicode text."
        ) from None
    if size > MAX_TEXT_BYTES:
        raise InvalidQueryError(
            f"{name} is {size} bytes long, more than {MAX_TEXT_BYTES}; nothing was read. Look for "
            "a part of it."
        )


def checked_field(what: str, name: object) -> str:
    """Refuse what is no plain name of a field of metadata.

    Raises:
        InvalidQueryError: it is none.
    """
    if not isinstance(name, str) or not name or name[0] == "$" or "." in name or "\0" in name:
        raise InvalidQueryError(
            f"{what} must be a plain name, without a dot or a leading $, not {shown(name)}; "
            "nothing was read. For other conditions pass a criterion."
        )
    checked_text(what, name)
    return name


def require_subject(metadata: object, done: str) -> None:
    """Refuse metadata that names no subject, and so would be about everybody else.

    Raises:
        InvalidQueryError: it is empty, of a wrong type, or a value is ``None``.
    """
    SessionFilter(metadata=cast("Mapping[str, Any]", metadata))
    values = cast("Mapping[str, Any]", metadata)
    if not values:
        raise InvalidQueryError(
            f"metadata is empty, and that is everybody; nothing was {done}. Pass "
            "metadata={'user_id': 'u1'}."
        )
    for name, value in values.items():
        if value is None:
            raise InvalidQueryError(
                f"metadata[{shown(name)}] is None, and that is every session that has no "
                f"{shown(name)}, whosever it is; nothing was {done}. Name the subject."
            )


def checked_limit(limit: object) -> int:
    """Refuse what is no number of results.

    Raises:
        InvalidQueryError: it is none.
    """
    if type(limit) is not int or not 1 <= limit <= 1000:
        raise InvalidQueryError(
            f"limit must be an int from 1 to 1000, not {shown(limit, 40)}; nothing was read."
        )
    return limit
