"""Summaries as they are stored, whoever wrote them: a value that is none costs no other."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any, TypeVar

from bson import ObjectId
from pydantic import ValidationError

from ...models import SessionSummary
from ...models.entry import MAX_SEQ

S = TypeVar("S", bound=SessionSummary)

_DATES = ("created_at", "active_at", "expires_at", "held_at")


def summary_of(model: type[S], row: Mapping[str, Any]) -> S:
    """The summary in a document; a field of which the value is none reads as if it were absent."""
    # A validation would also take texts and numbers for dates, some without a time zone.
    found = {
        name: value
        for name, value in row.items()
        if name not in _DATES or value is None or isinstance(value, datetime)
    }
    try:
        return model.model_validate(found)
    except ValidationError as error:
        # What a team checks of all fields together names none.
        wrong = {each["loc"][0] for each in error.errors() if each["loc"]}
    left = {**_needed(row), **{name: found[name] for name in found.keys() - wrong}}
    try:
        return model.model_validate(left)
    except ValidationError:
        # To look at, it is good enough as the store alone reads it.
        return model.model_construct(**dict(SessionSummary.model_validate(left)))


def _needed(row: Mapping[str, Any]) -> dict[str, Any]:
    """Something for each field that no summary can be without."""
    made = row.get("_id")
    at = made.generation_time if isinstance(made, ObjectId) else datetime.now(timezone.utc)
    names = ("tenant", "project_key", "session_id")
    # All entries that there are stand before the last position.
    return {name: str(row.get(name)) for name in names} | {"next_seq": MAX_SEQ, "created_at": at}
