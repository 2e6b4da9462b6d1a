"""The names in the store's criteria are fields of what is stored, and say what they are to find."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

import pytest
from bson import (
    Binary,
    Code,
    Decimal128,
    Int64,
    MinKey,
    ObjectId,
    Regex,
    Timestamp,
)
from bson.datetime_ms import DatetimeMS

from beanie_session_store import (
    EntryChunk,
    RetentionPolicy,
    SessionSummary,
    TranscriptEntry,
)
from beanie_session_store.app import store
from beanie_session_store.app.database.documents import Row
from beanie_session_store.app.database.driver import Collection, Database
from beanie_session_store.app.storage import criteria
from beanie_session_store.app.storage.criteria import BY_KEY, KeyRow, before, behind
from beanie_session_store.app.transcript_key import TranscriptKey
from beanie_session_store.models.entry import ORDER_INDEX
from beanie_session_store.models.summary import ACTIVITY_INDEX, SESSION_INDEX

NOW = datetime(2026, 1, 2, tzinfo=timezone.utc)
KEY = TranscriptKey("t", "p", "s", "subagents/a")

ABOUT_SUMMARIES: dict[str, Any] = {
    **{
        name: each
        for name, each in vars(criteria).items()
        if name.isupper() and isinstance(each, dict) and name != "SERVER_NOW"
    },
    "not_expired_at": criteria.not_expired_at(NOW),
    "expired_before": criteria.expired_before(NOW),
    "listed": criteria.listed("t", "p", NOW),
    "of a session": KEY.of_session,
    "a page": KeyRow(tenant="t", project_key="p", session_id="s").behind,
    "the latest": before(active_at=NOW, _id=1),
}


def fields(model: Any) -> set[str]:
    return {field.alias or name for name, field in model.model_fields.items()}


def names(query: object) -> Iterator[str]:
    """The names of fields in a query, wherever they are in it."""
    if isinstance(query, dict):
        for name, part in query.items():
            if not name.startswith("$"):
                yield name.split(".")[0]
            yield from names(part)
    elif isinstance(query, list):
        for part in query:
            yield from names(part)
    elif isinstance(query, str) and re.fullmatch(r"\$\w+(\.\w+)*", query):
        yield query[1:].split(".")[0]


@pytest.mark.parametrize("query", ABOUT_SUMMARIES.values(), ids=ABOUT_SUMMARIES)
def test_criteria_name_fields_of_summaries(query: Any) -> None:
    found = {*names(query)}
    assert found
    assert found <= fields(SessionSummary)


@pytest.mark.parametrize("model", [TranscriptEntry, EntryChunk])
def test_criteria_name_fields_of_entries_and_their_chunks(model: Any) -> None:
    assert {*names(KEY.of_transcript)} <= fields(model)
    assert {*names(KEY.of_session)} <= fields(model)


def test_a_wrong_name_would_be_found() -> None:
    assert {*names(criteria.EXPIRED)} == {"expires_at"}
    assert {*names({"$or": [{"a.b": 1}, {"$expr": {"$gt": ["$c", "$$NOW"]}}]})} == {"a", "c"}


def test_pages_go_by_the_fields_of_an_index_from_its_first_on() -> None:
    assert [*SESSION_INDEX.document["key"].items()] == BY_KEY
    assert [*ORDER_INDEX.document["key"].items()][:3] == BY_KEY
    some = {"tenant": "t", "project_key": "p", "session_id": "s"}
    assert KeyRow(**some).behind == behind(**some)
    assert KeyRow(**some).key == KEY.session
    assert tuple(ACTIVITY_INDEX.document["key"]) == ("tenant", "active_at", "_id")


@pytest.fixture
async def collection(database: Database) -> Collection:
    """Documents with all combinations of values that are next to one another."""
    collection = database["pages"]
    values = itertools.product(("a", "b", "b\x01"), (0, 1, None), (1, 2))
    await collection.insert_many(
        [{"a": a, "b": b, "_id": f"{a}{b}{c}", "c": c} for a, b, c in values]
    )
    return collection


@pytest.mark.parametrize("size", [1, 4, 18, 19])
@pytest.mark.parametrize(("past", "direction"), [(behind, 1), (before, -1)])
async def test_pages_hold_each_document_once_and_in_order(
    collection: Collection, past: Any, direction: int, size: int
) -> None:
    # Without the nulls: what is compared with a type has only values of that type.
    some = {"b": {"$type": "number"}}
    order = [(name, direction) for name in ("a", "b", "c")]
    wanted = await collection.find(some, sort=order).to_list(None)
    assert len(wanted) == 12
    found: list[dict[str, Any]] = []
    page: dict[str, Any] = {}
    for _ in range(len(wanted) + 1):
        rows = await collection.find({"$and": [some, page]}, sort=order, limit=size).to_list(None)
        found += rows
        if len(rows) < size:
            break
        page = past(**{name: rows[-1][name] for name in ("a", "b", "c")})
    assert found == wanted


def test_one_field_is_a_page_too() -> None:
    assert behind(seq=3) == {"$or": [{"seq": {"$gt": 3}}]}
    assert before(_id=1) == {"$or": [{"_id": {"$lt": 1}}]}


def rows(model: type[Row] = Row) -> Iterator[type[Row]]:
    """What queries of the store read of documents, wherever it is declared."""
    for each in model.__subclasses__():
        if each.__module__.startswith("beanie_session_store.app."):
            yield each
        yield from rows(each)


ROWS = sorted({*rows()}, key=lambda row: f"{row.__module__}.{row.__name__}")
ODD: list[Any] = [
    *(None, True, -1, 2**62, 1.5, math.nan, "", "x", b"x", [], [None], {}, {"$gt": 0}),
    *(NOW, NOW.replace(tzinfo=None), ObjectId(), Regex("("), Decimal128("NaN"), MinKey()),
    *(DatetimeMS(2**62), Timestamp(1, 1), Code("x"), Int64(7), Binary(b"x" * 16, 4)),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.__qualname__)
def test_rows_name_fields_and_take_whatever_is_stored(row: type[Row]) -> None:
    stored = fields(SessionSummary) | fields(TranscriptEntry) | fields(RetentionPolicy)
    assert fields(row) <= stored | {"score"}
    assert row.model_validate({}) == row()
    for name, value in itertools.product(fields(row), ODD):
        row.model_validate({name: value})
    word_for_word = {
        field.alias or name: name
        for name, field in row.model_fields.items()
        if field.annotation is Any and not field.metadata
    }
    odd = row.model_validate({name: {"$gt": 0} for name in word_for_word})
    assert odd.as_read(*word_for_word.values()) == {
        name: {"$eq": {"$gt": 0}} for name in word_for_word
    }


def test_there_are_rows() -> None:
    assert store.BeanieSessionStore
    assert len(ROWS) > 3
