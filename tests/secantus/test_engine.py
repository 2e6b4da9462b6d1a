"""What the store asks of the server it runs on, each in its smallest form.

MongoDB keeps all of it. Where another engine does not, the tests of the store fail on it with
texts of their own; here is what they have in common.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from pymongo import ASCENDING, MongoClient
from pymongo.errors import DuplicateKeyError, OperationFailure

PAST, FUTURE = datetime(2020, 1, 1), datetime(2999, 1, 1)
Collection = Any


@pytest.fixture
def collection(mongo_url: str, database_name: str) -> Iterator[Collection]:
    with MongoClient(mongo_url) as client:
        yield client[database_name]["things"]


def ids(found: Any) -> list[Any]:
    return [document["_id"] for document in found]


@pytest.fixture
def dated(collection: Collection) -> Collection:
    collection.insert_many([{"_id": "past", "at": PAST}, {"_id": "future", "at": FUTURE}])
    return collection


def test_it_says_that_it_is_a_replica_set(collection: Collection) -> None:
    assert "setName" in collection.database.client.admin.command("hello")


@pytest.mark.parametrize(("comparison", "expected"), [("$lt", ["past"]), ("$gt", ["future"])])
def test_a_query_compares_dates_with_the_servers_now(
    dated: Collection, comparison: str, expected: list[str]
) -> None:
    assert ids(dated.find({"$expr": {comparison: ["$at", "$$NOW"]}})) == expected


def test_a_delete_compares_dates_with_the_servers_now(dated: Collection) -> None:
    dated.delete_many({"$expr": {"$not": [{"$gt": ["$at", "$$NOW"]}]}})
    assert ids(dated.find()) == ["future"]


def test_an_update_compares_dates_with_the_servers_now(dated: Collection) -> None:
    is_over = {"$lte": ["$at", "$$NOW"]}
    dated.update_many({}, [{"$set": {"is_over": is_over}}])
    assert ids(dated.find({"is_over": True})) == ["past"]


def test_a_projection_knows_the_servers_now(dated: Collection) -> None:
    found = dated.find({}, {"is_over": {"$lte": ["$at", "$$NOW"]}})
    assert {document["_id"]: document["is_over"] for document in found} == {
        "past": True,
        "future": False,
    }


def test_reads_of_a_snapshot_see_one_moment(collection: Collection) -> None:
    collection.insert_many([{"_id": number} for number in range(10)])
    with collection.database.client.start_session(snapshot=True) as session:
        assert len(list(collection.find(session=session))) == 10
        collection.delete_many({})
        assert len(list(collection.find(session=session))) == 10


def test_an_open_cursor_of_a_snapshot_is_not_cut_short_by_a_delete(
    collection: Collection,
) -> None:
    collection.insert_many([{"_id": number} for number in range(1000)])
    with collection.database.client.start_session(snapshot=True) as session:
        cursor = collection.find(session=session, batch_size=10)
        next(cursor)
        collection.delete_many({})
        assert len(list(cursor)) == 999


def test_an_aborted_transaction_leaves_nothing(collection: Collection) -> None:
    collection.insert_one({"_id": "counter", "n": 1})
    with collection.database.client.start_session() as session:
        session.start_transaction()
        collection.update_one({"_id": "counter"}, {"$inc": {"n": 1}}, session=session)
        collection.insert_one({"_id": "other"}, session=session)
        assert ids(collection.find()) == ["counter"]
        session.abort_transaction()
    assert list(collection.find()) == [{"_id": "counter", "n": 1}]


def test_of_two_transactions_that_change_one_document_one_is_told_to_try_again(
    collection: Collection,
) -> None:
    collection.insert_one({"_id": "counter", "n": 1})
    client = collection.database.client
    with client.start_session() as one, client.start_session() as two:
        one.start_transaction()
        two.start_transaction()
        collection.update_one({"_id": "counter"}, {"$inc": {"n": 1}}, session=one)
        with pytest.raises(OperationFailure) as error:
            collection.update_one({"_id": "counter"}, {"$inc": {"n": 1}}, session=two)
        assert error.value.has_error_label("TransientTransactionError")
        one.commit_transaction()
    assert list(collection.find()) == [{"_id": "counter", "n": 2}]


def test_a_unique_partial_index_aborts_the_transaction_that_breaks_it(
    collection: Collection,
) -> None:
    collection.create_index(
        [("session", ASCENDING), ("uuid", ASCENDING)],
        unique=True,
        partialFilterExpression={"uuid": {"$exists": True}},
    )
    collection.insert_many([{"_id": 1, "uuid": "a"}, {"_id": 2}, {"_id": 3}])
    with collection.database.client.start_session() as session:
        session.start_transaction()
        collection.insert_one({"_id": 4, "uuid": "b"}, session=session)
        with pytest.raises(DuplicateKeyError):
            collection.insert_one({"_id": 5, "uuid": "a"}, session=session)
        session.abort_transaction()
    assert ids(collection.find()) == [1, 2, 3]
