"""Queries of the store's own documents: Beanie's, where the store is bound and by its rules."""

from __future__ import annotations

import ast
import re
from collections.abc import AsyncIterator
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from beanie import Document
from beanie.odm.queries.find import FindMany, FindOne
from beanie.operators import In, Inc, Set, Unset
from bson import ObjectId, Regex
from pydantic import Field, ValidationError
from pymongo.errors import DuplicateKeyError
from pymongo.read_concern import ReadConcern
from support.server import Commands, connected

import beanie_session_store
from beanie_session_store import RetentionPolicy, SessionSummary
from beanie_session_store.app.database.attempts import Attempts
from beanie_session_store.app.database.documents import Documents, Row, joined
from beanie_session_store.app.database.driver import (
    ClientSession,
    Collection,
    Database,
    collection_of,
    is_bound,
    with_confirmed_reads,
    with_store_rules,
)
from beanie_session_store.app.database.server import server_of
from beanie_session_store.app.database.transactions import TransientFailureError, snapshot, transact
from beanie_session_store.app.storage.stored_summaries import summary_of
from beanie_session_store.models.views.lenient import Maybe, Whole

SOME = {"tenant": "t", "project_key": "p"}
WHEN = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=timezone.utc)


class Seen(Row):
    """What these tests read of a document, by the names in Python."""

    id: Any = Field(default=None, alias="_id")
    next_seq: Maybe[Whole] = None


class Named(Row):
    """What these tests read of a document, word for word."""

    session_id: Any = None
    next_seq: Any = None
    titled: Any = None


class OfAnIndex(Row):
    """What these tests read of an index."""

    session_id: Any = None


class Never(Document):
    """A class that nobody has given to init_beanie."""

    tenant: str
    when: datetime | None = None
    extra: dict[str, Any] | None = None


class _Fault(Exception):
    pass


@pytest.fixture
async def commands(
    mongo_url: str, database_name: str
) -> AsyncIterator[tuple[Commands, Collection]]:
    """A collection of a client that is listened to, and what it was sent."""
    listener = Commands()
    options = {"w": 0, "readPreference": "secondaryPreferred", "event_listeners": [listener]}
    async with connected(mongo_url, **options) as client:
        yield listener, with_store_rules(client[database_name])["never"]


@pytest.fixture
async def never(commands: tuple[Commands, Collection]) -> Documents[Never]:
    """Five documents of a class without a database."""
    listener, collection = commands
    await collection.insert_many(
        [{**SOME, "session_id": f"s{n}", "next_seq": n, "when": WHEN} for n in range(5)]
    )
    listener.sent.clear()
    return Documents(Never, collection)


def sent(commands: tuple[Commands, Collection]) -> list[dict[str, Any]]:
    """What was sent since the last call, without what the driver adds."""
    listener, _ = commands
    found = [command for _, command in listener.sent]
    listener.sent.clear()
    return found


async def test_they_are_beanies_own_queries_of_a_class_without_a_database(
    never: Documents[Never], commands: tuple[Commands, Collection]
) -> None:
    assert isinstance(never.find(SOME), FindMany)
    assert isinstance(never.find_one(SOME), FindOne)
    found = await never.find(SOME, rows=Named, sort=[("session_id", -1)], limit=2).to_list()
    assert [each.session_id for each in found] == ["s4", "s3"]
    one = await never.find_one(SOME, {"session_id": "s3"}, rows=Named)
    assert one == found[1]
    assert await never.find_one({"tenant": "other"}, rows=Named) is None
    assert not is_bound(Never)
    many, single, _ = sent(commands)
    assert (many["find"], many["filter"]) == ("never", SOME)
    assert (many["sort"], many["limit"]) == ({"session_id": -1}, 2)
    assert single["filter"] == {**SOME, "session_id": "s3"}
    # The client's options say otherwise.
    assert all("$readPreference" not in each for each in (many, single))


async def test_whole_documents_are_of_the_class(
    database: Database, commands: tuple[Commands, Collection]
) -> None:
    """The class has its collection elsewhere, and keeps it."""
    _, collection = commands
    policies = Documents(RetentionPolicy, collection)
    owner = {"tenant": "t", "project_key": "*"}
    values = {"keep_seconds": 5, "updated_at": WHEN}
    await policies.find_one(owner).update(Set(values), upsert=True)
    sent(commands)
    found = await policies.find_one(owner)
    assert isinstance(found, RetentionPolicy)
    assert (found.keep_seconds, found.updated_at) == (5, WHEN)
    assert await policies.find(owner).to_list() == [found]
    assert [each async for each in policies.find(owner)] == [found]
    # All that is there, for a team's class may keep what it does not declare.
    assert all("projection" not in each for each in sent(commands))
    assert await RetentionPolicy.find(owner).to_list() == []
    assert collection_of(RetentionPolicy).database.name == database.name
    # A team may not remove one; the store may.
    assert (await policies.find(owner).delete()).deleted_count == 1


async def test_a_document_that_its_class_refuses_can_be_read_all_the_same(
    database: Database, commands: tuple[Commands, Collection]
) -> None:
    _, collection = commands
    made = {**SOME, "session_id": "s", "next_seq": 2, "created_at": WHEN, "_id": ObjectId()}
    await collection.insert_one({**made, "active_at": "yesterday", "tag": {"no": "text"}})
    strict = Documents(SessionSummary, collection)
    with pytest.raises(ValidationError):
        await strict.find_one(SOME)
    with pytest.raises(ValidationError):
        await strict.find(SOME).to_list()
    lenient = Documents(SessionSummary, collection, partial(summary_of, SessionSummary))
    for documents in (lenient, lenient.on(with_confirmed_reads(collection))):
        found = await documents.find_one(SOME)
        assert found is not None
        assert (found.id, found.session_id, found.next_seq) == (made["_id"], "s", 2)
        assert (found.active_at, found.tag) == (None, None)
        assert await documents.find(SOME).to_list() == [found]


async def test_rows_are_all_that_is_read(
    never: Documents[Never], commands: tuple[Commands, Collection]
) -> None:
    rows = await never.find(SOME, rows=Named).to_list()
    assert [(row.session_id, row.next_seq) for row in rows] == [(f"s{n}", n) for n in range(5)]
    assert [row.session_id async for row in never.find(SOME, rows=Named)] == [
        row.session_id for row in rows
    ]
    row = await never.find_one(SOME, rows=Named, sort=[("next_seq", -1)])
    assert row == Named(session_id="s4", next_seq=4)
    assert {tuple(each["projection"]) for each in sent(commands)} == {
        ("_id", "session_id", "next_seq", "titled")
    }


async def test_rows_that_an_index_has_are_read_from_it(
    never: Documents[Never], commands: tuple[Commands, Collection]
) -> None:
    _, collection = commands
    await collection.create_index([("session_id", 1)])
    wanted = await never.find({"session_id": {"$gt": "s1"}}, rows=OfAnIndex).to_list()
    assert [row.session_id for row in wanted] == ["s2", "s3", "s4"]
    look = sent(commands)[-1]
    options = {name: look[name] for name in ("find", "filter", "projection")}
    plan = await collection.database.command("explain", options, verbosity="executionStats")
    stats = plan["executionStats"]
    assert (stats["totalKeysExamined"], stats["totalDocsExamined"]) == (3, 0)
    # Unless the id is asked for.
    assert all(row.id is not None for row in await never.find(SOME, rows=Seen).to_list())


@pytest.mark.parametrize(
    "value", [None, "7", True, 1.5, b"x", {"$gt": 0}, [1], ObjectId(), Regex(".*")]
)
async def test_a_row_takes_whatever_is_stored(never: Documents[Never], value: Any) -> None:
    await never.find_one({"session_id": "s0"}).update(Set({"next_seq": value}))
    row = await never.find_one({"session_id": "s0"}, rows=Seen)
    assert row is not None
    assert row.next_seq is None
    word_for_word = await never.find_one({"session_id": "s0"}, rows=Named)
    assert word_for_word is not None
    assert word_for_word.next_seq == value
    same = never.find(word_for_word.as_read("session_id", "next_seq"), rows=Named)
    assert await same.to_list() == [word_for_word]


async def test_a_row_says_what_it_was_by_the_stored_names(never: Documents[Never]) -> None:
    row = await never.find_one(SOME, rows=Seen)
    assert row is not None
    assert row.as_read("id", "next_seq") == {"_id": row.id, "next_seq": row.next_seq}
    swapped = never.find_one(row.as_read("id", "next_seq"))
    assert (await swapped.update(Inc({"next_seq": 1}))).matched_count == 1
    again = never.find_one(row.as_read("id", "next_seq"))
    assert (await again.update(Inc({"next_seq": 1}))).matched_count == 0


async def test_one_or_all_are_changed_and_removed(
    never: Documents[Never], commands: tuple[Commands, Collection]
) -> None:
    _, collection = commands
    one = await never.find_one(SOME).update(Set({"extra": {"a": 1}}), Unset({"when": ""}))
    assert (one.matched_count, one.modified_count) == (1, 1)
    most = await never.find(SOME, In("session_id", ["s1", "s2", "s9"])).update(Set({"extra": None}))
    assert most.matched_count == 2
    assert (await never.find_one(SOME, {"session_id": "s1"}).delete()).deleted_count == 1
    assert (await never.find(SOME, In("session_id", ["s2", "s3"])).delete()).deleted_count == 2
    update, many, delete, deletes = sent(commands)
    (change,) = update["updates"]
    assert (change["q"], change.get("upsert", False)) == (SOME, False)
    assert change["u"] == {"$set": {"extra": {"a": 1}}, "$unset": {"when": ""}}
    assert [part["multi"] for part in many["updates"]] == [True]
    assert [part["limit"] for part in delete["deletes"]] == [1]
    (part,) = deletes["deletes"]
    assert (part["q"], part["limit"]) == ({**SOME, "session_id": {"$in": ["s2", "s3"]}}, 0)
    assert all(each["writeConcern"] == {"w": "majority"} for each in (update, many, deletes))
    assert await collection.count_documents({}) == 2


async def test_an_upsert_is_one_command(
    never: Documents[Never], commands: tuple[Commands, Collection]
) -> None:
    _, collection = commands
    await collection.create_index(
        [("tenant", 1)], unique=True, name="x", partialFilterExpression={"tenant": {"$gt": "u"}}
    )
    sent(commands)
    owner = {"tenant": "u1"}
    for when in (WHEN, None):
        result = await never.find_one(owner).update(Set({"when": when}), upsert=True)
        assert bool(result.upserted_id) is (when is not None)
    names = [next(iter(each)) for each in sent(commands)]
    assert names == ["update", "update"]
    assert await never.find_one(owner, {"when": None}).exists()
    # Two at once: one makes it and the other changes it, or is refused by the index.
    with pytest.raises(DuplicateKeyError):
        await never.find_one({"tenant": "u1", "when": WHEN}).update(Set({"extra": {}}), upsert=True)


async def test_what_beanie_would_lose_is_refused(never: Documents[Never]) -> None:
    with pytest.raises(ValueError, match=r"\$set"):
        await never.find_one(SOME).update(Set({"a": 1}), Set({"b": 2}))
    with pytest.raises(ValueError, match=r"\$set"):
        await never.find(SOME).update({"$set": {"a": 1}}, Unset({"c": ""}), Set({"b": 2}))
    limited = never.find(SOME, limit=1)
    ordered = never.find(SOME, sort=[("next_seq", 1)])
    for part in (limited, ordered, never.find(SOME).skip(1)):
        with pytest.raises(ValueError, match="a part"):
            part.delete()
        with pytest.raises(ValueError, match="a part"):
            part.update(Set({"a": 1}))
        with pytest.raises(ValueError, match="a part"):
            part.aggregate([])
    for query in (never.find(SOME), never.find_one(SOME)):
        with pytest.raises(NotImplementedError, match="upsert=True"):
            query.upsert(Set({"a": 1}), on_insert=None)
    assert await never.find({"a": {"$exists": True}}).count() == 0
    assert await never.find(SOME).count() == 5


async def test_an_operator_that_changes_nothing_is_not_sent(
    never: Documents[Never], commands: tuple[Commands, Collection]
) -> None:
    await never.find_one(SOME).update(Set({"next_seq": 9}), Unset({}))
    (update,) = sent(commands)
    assert update["updates"][0]["u"] == {"$set": {"next_seq": 9}}


async def test_the_filter_begins_with_the_shard_key(
    never: Documents[Never], commands: tuple[Commands, Collection]
) -> None:
    clashing = ({"$or": [{"a": 1}]}, {"$or": [{"b": 1}]}, {"tenant": "u"}, {"$and": [{"c": 1}]})
    query = joined([SOME, *clashing])
    assert list(query) == ["tenant", "project_key", "$or", "$and"]
    assert query["tenant"] == "t"
    assert query["$or"] == [{"a": 1}]
    # What clashes is asked for as well, so it can only make less be found.
    assert query["$and"] == [{"c": 1}, {"$or": [{"b": 1}]}, {"tenant": "u"}]
    assert clashing[-1] == {"$and": [{"c": 1}]}
    assert joined([]) == {}
    assert await never.find(SOME, {"tenant": "u"}, rows=Named).to_list() == []
    await never.find(SOME, {"tenant": "u"}).aggregate([{"$count": "n"}]).to_list()
    find, aggregate = sent(commands)
    assert find["filter"] == {**SOME, "$and": [{"tenant": "u"}]}
    assert aggregate["pipeline"] == [{"$match": find["filter"]}, {"$count": "n"}]


async def test_values_go_to_the_server_as_they_are(
    never: Documents[Never], commands: tuple[Commands, Collection]
) -> None:
    """Beanie's encoder would make another value of some, and a copy of all."""
    values = {"big": 2**62, "when": WHEN, "odd": {"list": [b"x", None]}, "_id": ObjectId()}
    await never.find_one(values).update(Set({"extra": values}))
    (update,) = sent(commands)
    assert update["updates"][0]["q"] == values
    assert update["updates"][0]["u"] == {"$set": {"extra": values}}


async def test_options_of_a_query_reach_what_is_done_with_it(
    never: Documents[Never], commands: tuple[Commands, Collection]
) -> None:
    options: dict[str, Any] = {"hint": "_id_", "comment": "why"}
    await never.find(SOME, rows=Named, max_time_ms=5000, **options).to_list()
    await never.find_one(SOME, rows=Named, **options)
    assert await never.find_one(SOME, **options).exists()
    await never.find_one(SOME, **options).update(Set({"a": 1}))
    await never.find(SOME, **options).update(Set({"a": 1}))
    await never.find_one(SOME, **options).delete()
    await never.find(SOME, **options).delete()
    await never.find(SOME).aggregate([], maxTimeMS=5000, **options).to_list()
    found = sent(commands)
    assert len(found) == 8
    assert [each["comment"] for each in found] == ["why"] * 8
    parts = [(each.get("updates") or each.get("deletes") or [each])[0] for each in found]
    assert [part["hint"] for part in parts] == ["_id_"] * 8
    assert (found[0]["maxTimeMS"], found[-1]["maxTimeMS"]) == (5000, 5000)


async def test_a_look_stops_at_the_first(
    never: Documents[Never], commands: tuple[Commands, Collection]
) -> None:
    assert await never.find_one(SOME).exists()
    assert not await never.find_one({"tenant": "u"}).exists()
    look, _ = sent(commands)
    assert (look["limit"], look["projection"]) == (1, {"_id": 1})


@pytest.mark.parametrize("is_committed", [True, False])
async def test_all_of_it_takes_part_in_a_transaction(
    never: Documents[Never], commands: tuple[Commands, Collection], is_committed: bool
) -> None:
    _, collection = commands
    client = collection.database.client
    server = await server_of(client)
    kept = {"session_id": "s4"}

    async def work(session: ClientSession | None) -> None:
        await never.find_one({"tenant": "new"}).update(
            Set({"when": WHEN}), upsert=True, session=session
        )
        await never.find(kept).update(Set({"next_seq": 40}), session=session)
        await never.find_one({"session_id": "s0"}, session=session).delete()
        await never.find(In("session_id", ["s1", "s2"])).delete(session=session)
        await never.find(In("session_id", ["s3"]), session=session).delete()
        seen = await never.find({}, rows=Named, sort=[("next_seq", 1)], session=session).to_list(2)
        assert [row.next_seq for row in seen if row.session_id == "s4"] == [40]
        assert await never.find_one({"tenant": "new"}, session=session).exists()
        assert await never.find({}, session=session).count() == 2
        grouped = never.find({}).aggregate([{"$count": "n"}], session=session)
        assert await grouped.to_list() == [{"n": 2}]
        assert await collection.count_documents({}) == 5
        if not is_committed:
            raise _Fault

    try:
        await transact(client, server, work, Attempts())
    except _Fault:
        assert not is_committed
    except TransientFailureError:
        pytest.fail("nobody else writes here")
    assert await never.find({}).count() == (2 if is_committed else 5)


async def test_a_snapshot_sees_one_moment(
    never: Documents[Never], commands: tuple[Commands, Collection]
) -> None:
    _, collection = commands
    client = collection.database.client
    async with snapshot(client, await server_of(client)) as session:
        before = await never.find(SOME, rows=Named, session=session).to_list()
        await never.find(SOME).delete()
        again = await never.find(SOME, rows=Named, session=session).to_list()
    assert len(before) == 5
    assert again == before


async def test_other_rules_are_those_of_another_collection(
    never: Documents[Never], commands: tuple[Commands, Collection]
) -> None:
    confirmed = never.confirmed
    assert confirmed.model is Never
    assert confirmed.collection.read_concern == ReadConcern("majority")
    assert len(await confirmed.find(SOME, rows=Named).to_list()) == 5
    await never.find(SOME, rows=Named).to_list()
    majority, local = sent(commands)
    assert majority["readConcern"]["level"] == "majority"
    assert "level" not in local.get("readConcern", {})


# Beanie has words for these. For the others, which are a hot command, or none of its, a comment
# says where they stand why.
# What returns the document that it changes is none of them: Beanie parses it into the whole class.
WORDS = re.compile(r"^(find_one$|update_|delete_|aggregate|count_documents)")
CUT_BY_THE_SERVER = {"glimpses.py"}
"""Reads whose projection is made of expressions, which no class of rows can say."""


def test_what_beanie_has_words_for_is_not_sent_past_it() -> None:
    app = Path(beanie_session_store.__file__).parent / "app"
    past = [
        f"{path.name}:{node.lineno} {node.func.attr}"
        for path in app.rglob("*.py")
        if path.name not in CUT_BY_THE_SERVER
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Attribute)
        and node.func.value.attr == "collection"
        and WORDS.match(node.func.attr)
    ]
    assert not past
