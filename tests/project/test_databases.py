"""The tests' own databases: what one test did to its database, no other test finds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest
from pymongo import MongoClient
from support.database import Databases

ENTRIES = "claude_transcript_entries"
LOG = "claude_transcript_migrations"


@pytest.fixture
def own(mongo_url: str) -> Iterator[Databases]:
    numbers = count()
    databases = Databases(mongo_url, lambda: f"test_databases_{next(numbers)}")
    yield databases
    databases.close()


def next_after(own: Databases, url: str, change: Callable[[Any], object]) -> tuple[str, str]:
    with own.migrated() as first, MongoClient[dict[str, Any]](url) as client:
        change(client[first])
    with own.migrated() as second, MongoClient[dict[str, Any]](url) as client:
        database = client[second]
        assert database[ENTRIES].find_one({}) is None
        assert "transcript_order" in database[ENTRIES].index_information()
        assert database[LOG].count_documents({"script": {"$exists": True}}) > 3
        assert sorted(database.list_collection_names()).count(ENTRIES) == 1
    return first, second


def test_one_that_was_only_filled_is_emptied_and_used_again(own: Databases, mongo_url: str) -> None:
    used: list[str] = []
    # The server may not have noticed yet that nobody is connected any more.
    while len(set(used)) == len(used) < 40:
        used += next_after(own, mongo_url, lambda db: db[ENTRIES].insert_one({"a": 1}))
    assert len(used) < 40


@pytest.mark.parametrize(
    "change",
    [
        lambda db: db[ENTRIES].drop_index("transcript_order"),
        lambda db: db[ENTRIES].create_index("more"),
        lambda db: db["another"].insert_one({"a": 1}),
        lambda db: db[ENTRIES].drop(),
        lambda db: db[LOG].delete_one({"script": {"$exists": True}}),
        lambda db: db.command("collMod", ENTRIES, validator={"a": 1}),
    ],
    ids=["index dropped", "index made", "collection made", "collection dropped", "log", "options"],
)
def test_one_that_was_changed_is_not_used_again(
    own: Databases, mongo_url: str, change: Callable[[Any], object]
) -> None:
    first, second = next_after(own, mongo_url, change)
    assert first != second


def test_one_that_somebody_is_still_connected_to_is_not_used_yet(
    own: Databases, mongo_url: str
) -> None:
    with MongoClient[dict[str, Any]](mongo_url) as still_there:
        with own.migrated() as first:
            still_there[first][ENTRIES].insert_one({"a": 1})
        with own.migrated() as second:
            assert second != first
