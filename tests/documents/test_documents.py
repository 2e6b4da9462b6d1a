"""The store's documents in the hands of a team: what is theirs is written, all else is safe."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from datetime import datetime, timezone
from typing import Any
from uuid import uuid4

import pytest
from beanie import (
    Document,
    Link,
    PydanticObjectId,
    WriteRules,
    init_beanie,
)
from beanie.odm.documents import DeleteRules
from beanie.operators import Inc, Set
from pydantic import Field
from support.database import Databases
from support.entries import message

from beanie_session_store import (
    DOCUMENT_MODELS,
    BeanieSessionStore,
    EntryChunk,
    InvalidMetadataError,
    RetentionPolicy,
    SessionStoreError,
    SessionSummary,
    StoreOwnedError,
    TranscriptEntry,
    UnknownSessionError,
    upgrade_schema,
)
from beanie_session_store.app.database.driver import Database, collection_of

KEY: Any = {"project_key": "p", "session_id": "s"}
SUBAGENT: Any = KEY | {"subpath": "subagents/agent-a"}


class OwnEntry(TranscriptEntry):
    reviewed: bool = False

    class Settings(TranscriptEntry.Settings):
        name = "own_entries"


class OwnSummary(SessionSummary):
    rating: int | None = None
    notes: list[str] = Field(default_factory=list)

    class Settings(SessionSummary.Settings):
        name = "own_summaries"
        use_state_management = True


class Ticket(Document):
    name: str
    session: Link[OwnSummary]


async def _with_own_collections(database: Database) -> None:
    await upgrade_schema(database)
    await upgrade_schema(database, entries=OwnEntry, summaries=OwnSummary)


@pytest.fixture
def database_name(databases: Databases) -> Iterator[str]:
    """A database that has the collections of a team's own too."""
    with databases.migrated(_with_own_collections) as name:
        yield name


@pytest.fixture
async def own(database: Database) -> BeanieSessionStore:
    """A store with classes of a team's own, and a session in it."""
    await init_beanie(
        database=database,
        document_models=[*DOCUMENT_MODELS, OwnEntry, OwnSummary, Ticket],
        skip_indexes=True,
    )
    store = BeanieSessionStore(entries=OwnEntry, summaries=OwnSummary, metadata={"user": "u1"})
    await store.append(KEY, [message("hello")])
    return store


async def summary_of() -> OwnSummary:
    found = await OwnSummary.find_one()
    assert found is not None
    return found


async def raw(model: type[Document]) -> list[dict[str, Any]]:
    return await collection_of(model).find({}).sort("_id", 1).to_list(None)


async def test_a_stale_document_that_is_saved_stops_nothing(own: BeanieSessionStore) -> None:
    stale = await summary_of()
    await own.append(KEY, [message("more")])
    await own.append(SUBAGENT, [message("and more")])
    before = await raw(OwnSummary)
    stale.rating = 5
    stale.metadata = {"user": "u2"}
    assert await stale.save() is stale
    (row,) = await raw(OwnSummary)
    assert row == before[0] | {"rating": 5, "metadata": {"user": "u2"}, "notes": []}
    await own.append(KEY, [message("goes on")])
    assert not (await own.verify(KEY)).differences
    (listing,) = [each async for each in own.all_sessions()]
    assert listing.metadata == {"user": "u2"}


@pytest.mark.parametrize("write", ["save", "replace", "save_changes"])
async def test_what_a_team_adds_is_written_and_nothing_else(
    own: BeanieSessionStore, write: str
) -> None:
    found = await summary_of()
    found.notes.append("seen")
    found.rating = 3
    await getattr(found, write)()
    (row,) = await raw(OwnSummary)
    assert (row["rating"], row["notes"]) == (3, ["seen"])
    assert "packed_metadata" not in row
    assert "data_chunks" not in row
    assert not (await own.verify(KEY)).differences


async def test_updates_of_a_teams_fields_work_in_every_form(own: BeanieSessionStore) -> None:
    found = await summary_of()
    await found.set({OwnSummary.rating: 1})
    await found.inc({OwnSummary.rating: 1})
    await found.update(Set({"notes": ["a"]}))
    assert (found.rating, found.notes) == (2, ["a"])
    await OwnSummary.find(OwnSummary.rating == 2).set({OwnSummary.rating: 4})
    await OwnSummary.find_one(OwnSummary.rating == 4).inc({OwnSummary.rating: 1})
    await OwnSummary.find_all().update(Inc({"rating": 1}), Set({"metadata.plan": "pro"}))
    await found.sync()
    assert (found.rating, found.metadata) == (6, {"user": "u1", "plan": "pro"})
    entry = await OwnEntry.find_one()
    assert entry is not None
    entry.reviewed = True
    await entry.save()
    assert [row["reviewed"] for row in await raw(OwnEntry)] == [True]


OWNED: dict[str, Callable[[Any], Any]] = {
    "tag": lambda s: setattr(s, "tag", "x"),
    "next_seq": lambda s: setattr(s, "next_seq", 1),
    "totals": lambda s: setattr(s, "totals", None),
    "set": lambda s: s.set({"next_seq": 1}),
    "set of a part": lambda s: s.set({"totals.turns": 9}),
    "set of Beanie's": lambda s: s.update(Set({SessionSummary.title: "x"})),
    "a mixed one": lambda s: s.update({"$set": {"rating": 1, "mtime": 1}}),
    "inc": lambda s: s.inc({"next_seq": 1}),
    "rename": lambda s: s.update({"$rename": {"rating": "title"}}),
    "unset": lambda s: s.update({"$unset": {"data": ""}}),
    "an id": lambda s: s.update({"$set": {"_id": 1}}),
    "delete": lambda s: s.delete(),
    "insert": lambda s: s.insert(),
    "create": lambda s: s.create(),
    "insert_one": lambda s: type(s).insert_one(s),
    "insert_many": lambda s: type(s).insert_many([s]),
    "replace_many": lambda s: type(s).replace_many([s]),
    "delete_all": lambda s: type(s).delete_all(),
    "find delete": lambda s: type(s).find_all().delete(),
    "find_one delete": lambda s: type(s).find_one().delete(),
    "find update": lambda s: type(s).find_all().update({"$set": {"tenant": "x"}}),
    "find_one update": lambda s: type(s).find_one({}).set({"tenant": "x"}),
    "chained": lambda s: type(s).find_all().set({"rating": 1}).inc({"next_seq": 1}),
    "replace_one": lambda s: type(s).find_one().replace_one(s),
    "upsert": lambda s: type(s).find_one().upsert(Set({"rating": 1}), on_insert=s),
    "pipeline": lambda s: type(s).find_all().update([{"$set": {"next_seq": 1}}]),
}


@pytest.mark.parametrize("name", OWNED)
async def test_what_the_store_owns_is_not_written_through_a_document(
    own: BeanieSessionStore, name: str
) -> None:
    found = await summary_of()
    before = await raw(OwnSummary)

    async def attempt() -> None:
        outcome = OWNED[name](found)
        if hasattr(outcome, "__await__"):
            await outcome

    with pytest.raises(StoreOwnedError, match=r"nothing was written.*store\.") as caught:
        await attempt()
    assert isinstance(caught.value, SessionStoreError)
    assert await raw(OwnSummary) == before


@pytest.mark.parametrize("model", [TranscriptEntry, EntryChunk, RetentionPolicy])
async def test_no_document_of_the_store_is_made_or_removed_past_it(
    store: BeanieSessionStore, model: type[Any]
) -> None:
    await store.append(KEY, [message("hello")])
    document = model.model_construct(id=PydanticObjectId())
    attempts: list[Callable[[], Awaitable[Any]]] = [
        document.insert,
        document.delete,
        lambda: model.insert_many([document]),
        model.delete_all,
        lambda: model.find_all().delete(),
        lambda: model.find_all().set({"tenant": "x"}),
    ]
    before = await raw(model)
    for attempt in attempts:
        with pytest.raises(StoreOwnedError):
            await attempt()
    assert await raw(model) == before


async def test_a_document_of_a_deleted_session_makes_none(own: BeanieSessionStore) -> None:
    stale = await summary_of()
    await own.delete(KEY)
    stale.rating = 1
    with pytest.raises(StoreOwnedError, match="append"):
        await stale.save()
    assert await raw(OwnSummary) == []


async def test_a_link_leads_to_a_session_and_writes_nothing_of_the_stores(
    own: BeanieSessionStore,
) -> None:
    found = await summary_of()
    ticket = Ticket(name="t", session=found)  # type: ignore[arg-type]
    await ticket.insert()
    await own.append(KEY, [message("more")])
    before = await raw(OwnSummary)
    ticket.name = "renamed"
    await ticket.save(link_rule=WriteRules.WRITE)
    assert [row["next_seq"] for row in await raw(OwnSummary)] == [before[0]["next_seq"]]
    await own.append(KEY, [message("and more")])
    with pytest.raises(StoreOwnedError, match=r"store\.delete"):
        await ticket.delete(link_rule=DeleteRules.DELETE_LINKS)
    linked = await Ticket.find_one(fetch_links=True)
    assert linked is not None
    assert linked.session.key() == KEY  # type: ignore[attr-defined]
    # A session that is made anew is another document.
    await own.delete(KEY)
    await own.append(KEY, [message("anew")])
    dangling = await Ticket.find_one(fetch_links=True)
    assert dangling is None or not isinstance(dangling.session, OwnSummary)


async def test_documents_know_their_keys(own: BeanieSessionStore) -> None:
    await own.append(SUBAGENT, [message("deep")])
    assert (await summary_of()).key() == KEY
    keys = [entry.key() async for entry in OwnEntry.find().sort("seq")]
    assert keys == [KEY, SUBAGENT]
    assert await own.load(keys[1])


async def test_nulls_that_an_earlier_save_left_are_no_values(own: BeanieSessionStore) -> None:
    nulls = dict.fromkeys(
        ("packed_metadata", "packed_data", "data_chunks", "tag", "expires_at", "held_at"), None
    )
    await collection_of(OwnSummary).update_many({}, {"$set": nulls})
    other = BeanieSessionStore(entries=OwnEntry, summaries=OwnSummary)
    await other.append(KEY, [message("more")])
    (listing,) = [each async for each in other.all_sessions()]
    assert listing.metadata == {"user": "u1"}
    assert len(await other.list_sessions("p")) == 1
    assert len(await other.list_session_summaries("p")) == 1
    assert len((await other.sessions()).sessions) == 1
    assert not (await other.verify(KEY)).differences
    assert (await other.summary(KEY)) is not None


async def test_metadata_is_set_after_the_fact(own: BeanieSessionStore) -> None:
    for metadata in ({"user": "u2"}, {"odd": "\ud83d", "\0": 1}, None, {"big": 2**80}, {"a": 1}):
        await own.set_metadata(KEY, metadata)
        (listing,) = [each async for each in own.all_sessions()]
        assert listing.metadata == metadata
        await own.append(KEY, [message("more")])
    assert len((await own.sessions(metadata={"a": 1})).sessions) == 1
    with pytest.raises(UnknownSessionError):
        await own.set_metadata(KEY | {"session_id": str(uuid4())}, {})
    for wrong in ("text", {"when": object()}, {"x": "y" * 70_000}):
        with pytest.raises(InvalidMetadataError):
            await own.set_metadata(KEY, wrong)  # type: ignore[arg-type]
    other = BeanieSessionStore(tenant="other", entries=OwnEntry, summaries=OwnSummary)
    with pytest.raises(UnknownSessionError):
        await other.set_metadata(KEY, {"mine": True})


async def test_saving_and_appending_at_once_lose_nothing(own: BeanieSessionStore) -> None:
    async def save(number: int) -> None:
        found = await summary_of()
        found.notes = [*found.notes, str(number)]
        await found.save()

    async def append(number: int) -> None:
        await own.append(KEY, [message(str(number))])

    # Each save waits for the transaction of an append in one of Motor's threads, and the append
    # needs one too: there are five of them to a core.
    for numbers in (range(4 * turn, 4 * turn + 4) for turn in range(4)):
        await asyncio.gather(*(work(n) for n in numbers for work in (save, append)))
    assert len(await own.load(KEY) or []) == 17
    assert not (await own.verify(KEY)).differences


async def test_a_query_of_a_team_finds_what_the_store_finds(own: BeanieSessionStore) -> None:
    past = datetime(2026, 1, 1, tzinfo=timezone.utc)
    for number, date in enumerate((past, 0, None, datetime(9000, 1, 1, tzinfo=timezone.utc))):
        await own.append(KEY | {"session_id": f"s{number}"}, [message("hello")])
        change: dict[str, Any] = {"$set": {"expires_at": date}}
        if date == 0:
            # What marks a session that is being swept says nothing else.
            change["$unset"] = {"mtime": ""}
        await collection_of(OwnSummary).update_one({"session_id": f"s{number}"}, change)
    found = await OwnSummary.find(OwnSummary.alive(), {"project_key": "p"}).to_list()
    listed = {each["session_id"] for each in await own.list_sessions("p")}
    assert {each.session_id for each in found} == listed == {"s", "s2", "s3"}
    assert await OwnSummary.find(OwnSummary.alive(), OwnSummary.session_id == "s1").count() == 0
