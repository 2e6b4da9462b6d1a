"""Event hooks and other habits of own classes: called, or told of, never silently dropped."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from beanie import (
    BulkWriter,
    Delete,
    Document,
    Insert,
    Link,
    Replace,
    Save,
    SaveChanges,
    Update,
    ValidateOnSave,
    WriteRules,
    after_event,
    before_event,
    init_beanie,
)
from pydantic import Field, ValidationError, model_validator
from support.database import Databases, forget_servers
from support.entries import KEY, message
from support.server import connected

from beanie_session_store import (
    DOCUMENT_MODELS,
    BeanieSessionStore,
    SessionSummary,
    StoreOwnedError,
    TranscriptEntry,
    upgrade_schema,
)
from beanie_session_store.app.database.driver import IS_MOTOR, Database, collection_of

Classes = tuple[type[TranscriptEntry], type[SessionSummary]]


def classes_with_hooks() -> Classes:
    """Classes of which nothing was said yet."""

    class Audited:
        @after_event([Insert, Replace])
        async def audit(self) -> None:
            raise AssertionError("the store makes no documents")

    class HookedEntry(Audited, TranscriptEntry):
        class Settings(TranscriptEntry.Settings):
            name = "hooked_entries"

    class HookedSummary(SessionSummary):
        @before_event(Delete)
        def forget(self) -> None:
            raise AssertionError("nothing is deleted through a document")

        @model_validator(mode="after")
        def checked(self) -> Any:
            return self

        class Settings(SessionSummary.Settings):
            name = "hooked_summaries"

    return HookedEntry, HookedSummary


async def by_constructor(database: Database, classes: Classes) -> None:
    BeanieSessionStore(entries=classes[0], summaries=classes[1])


async def by_on(database: Database, classes: Classes) -> None:
    BeanieSessionStore.on(database, entries=classes[0], summaries=classes[1])


async def by_upgrade(database: Database, classes: Classes) -> None:
    await upgrade_schema(database, entries=classes[0], summaries=classes[1], dry_run=True)


async def by_init_beanie(database: Database, classes: Classes) -> None:
    await init_beanie(database=database, document_models=[*DOCUMENT_MODELS, *classes])


@pytest.mark.parametrize("bind", [by_constructor, by_on, by_upgrade, by_init_beanie])
async def test_hooks_that_the_store_never_calls_are_told_of_once(
    database: Database,
    caplog: pytest.LogCaptureFixture,
    bind: Callable[[Database, Classes], Awaitable[None]],
) -> None:
    classes = classes_with_hooks()
    for _ in range(2):
        await bind(database, classes)
    said = [each.getMessage() for each in caplog.records if "no hook of" in each.msg]
    assert [each.split("no hook of ")[1].split(":")[0] for each in said] == [
        "HookedEntry",
        "HookedSummary",
    ]
    assert "audit (AFTER INSERT, REPLACE)" in said[0]
    assert "forget (BEFORE DELETE); checked (model_validator)" in said[1]
    assert all("on_committed" in each and "default_factory" in each for each in said)
    # What comes later has been said.
    await by_init_beanie(database, classes)
    store = BeanieSessionStore(entries=classes[0], summaries=classes[1])
    await store.append(KEY, [message("hello")])
    await store.delete(KEY)
    assert len([each for each in caplog.records if "no hook of" in each.msg]) == 2


async def test_connect_says_it_too(
    mongo_url: str, database_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    entries, summaries = classes_with_hooks()
    async with BeanieSessionStore.connect(
        mongo_url, database=database_name, entries=entries, summaries=summaries
    ):
        pass
    assert len([each for each in caplog.records if "no hook of" in each.msg]) == 2


class Owner(Document):
    name: str


class Quiet(SessionSummary):
    """Has private attributes, defaults and a plain method, of which there is nothing to say."""

    _seen: int = 0
    rating: int = Field(default=0, ge=0)

    def stars(self) -> str:
        return "*" * self.rating

    class Settings(SessionSummary.Settings):
        name = "quiet_summaries"


async def test_nothing_is_said_of_what_works(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    await init_beanie(database=database, document_models=[*DOCUMENT_MODELS, Quiet])
    BeanieSessionStore(summaries=Quiet)
    assert not [each for each in caplog.records if "no hook of" in each.msg]


class Watched(SessionSummary):
    rating: int = Field(default=0, ge=0)
    touched: int = 0
    owner: Link[Owner] | None = None
    calls: list[str] = Field(default_factory=list)

    @before_event([Save, Replace, SaveChanges, Update, ValidateOnSave, Insert, Delete])
    def before(self) -> None:
        self.touched += 1

    @after_event([Save, Replace])
    async def after(self) -> None:
        SEEN.append("after")

    class Settings(SessionSummary.Settings):
        name = "watched_summaries"
        use_state_management = True
        validate_on_save = True


class Meddling(Watched):
    @before_event([Save, Update])
    def meddle(self) -> None:
        self.next_seq = 1

    class Settings(Watched.Settings):
        pass


SEEN: list[str] = []


async def _with_hooks(database: Database) -> None:
    await upgrade_schema(database, summaries=Watched)


@pytest.fixture
def watched_name(databases: Databases) -> Iterator[str]:
    with databases.migrated(_with_hooks) as name:
        yield name


@pytest.fixture
async def watched(mongo_url: str, watched_name: str) -> Any:
    """A store with hooks, and a session in it."""
    async with connected(mongo_url) as client:
        forget_servers()
        await init_beanie(
            database=client[watched_name],
            document_models=[*DOCUMENT_MODELS, Watched, Owner],
            skip_indexes=True,
        )
        store = BeanieSessionStore(summaries=Watched)
        await store.append(KEY, [message("hello")])
        SEEN.clear()
        yield store


async def found() -> Watched:
    summary = await Watched.find_one(fetch_links=True)
    assert summary is not None
    return summary


@pytest.mark.parametrize("write", ["save", "replace", "save_changes", "set"])
async def test_hooks_are_called_for_what_a_team_writes_itself(
    watched: BeanieSessionStore, write: str
) -> None:
    summary = await found()
    assert summary.touched == 0
    if write == "set":
        await summary.set({"rating": 3})
    else:
        summary.rating = 3
        await getattr(summary, write)()
    (row,) = await collection_of(Watched).find({}).to_list(None)
    assert row["rating"] == 3
    # Beanie 1 writes nothing else with an update than what that says.
    assert row["touched"] >= (0 if write == "set" and IS_MOTOR else 1)
    assert summary.touched >= 1 or IS_MOTOR
    assert ("after" in SEEN) == (write in ("save", "replace"))
    assert not summary.is_changed
    assert not (await watched.verify(KEY)).differences


@pytest.mark.parametrize("write", ["save", "replace", "save_changes"])
async def test_what_is_to_be_validated_before_it_is_saved_is(
    watched: BeanieSessionStore, write: str
) -> None:
    summary = await found()
    summary.rating = -1
    with pytest.raises(ValidationError):
        await getattr(summary, write)()
    (row,) = await collection_of(Watched).find({}).to_list(None)
    assert row["rating"] == 0


async def test_a_hook_changes_nothing_of_the_stores(watched: BeanieSessionStore) -> None:
    await init_beanie(
        database=collection_of(Watched).database,
        document_models=[*DOCUMENT_MODELS, Meddling, Owner],
    )
    await watched.append(KEY, [message("more")])
    summary = await Meddling.find_one()
    assert summary is not None
    with pytest.raises(StoreOwnedError):
        await summary.save()
    with contextlib.suppress(StoreOwnedError):
        await summary.set({"rating": 1})
        assert IS_MOTOR
    (row,) = await collection_of(Watched).find({}).to_list(None)
    assert row["next_seq"] == 3
    assert not (await watched.verify(KEY)).differences


async def test_links_of_a_teams_own_are_written_where_that_is_asked_for(
    watched: BeanieSessionStore,
) -> None:
    owner = Owner(name="ann")
    await owner.insert()
    summary = await found()
    summary.owner = owner  # type: ignore[assignment]
    owner.name = "bob"
    await summary.save()
    assert (await Owner.find_one() or owner).name == "ann"
    owner.name = "bob"
    await summary.save(link_rule=WriteRules.WRITE)
    stored = await Owner.find_all().to_list()
    assert [each.name for each in stored] == ["bob"]
    linked = await found()
    assert isinstance(linked.owner, Owner)
    assert not (await watched.verify(KEY)).differences


BULK: dict[str, Callable[[Any, BulkWriter], Awaitable[Any]]] = {
    "set": lambda s, bulk: s.set({"rating": 1}, bulk_writer=bulk),
    "find_one": lambda s, bulk: Watched.find_one({}).set({"rating": 1}, bulk_writer=bulk),
    "find": lambda s, bulk: Watched.find_all().update({"$set": {"rating": 1}}, bulk_writer=bulk),
}
BULK_REFUSED: dict[str, Callable[[Any, BulkWriter], Awaitable[Any]]] = {
    "owned": lambda s, bulk: s.set({"next_seq": 1}, bulk_writer=bulk),
    "find_one": lambda s, bulk: Watched.find_one({}).set({"tag": "x"}, bulk_writer=bulk),
    "find": lambda s, bulk: Watched.find_all().update({"$set": {"tag": "x"}}, bulk_writer=bulk),
    "update_all": lambda s, bulk: Watched.update_all({"$set": {"tag": "x"}}, bulk_writer=bulk),
    "insert_one": lambda s, bulk: Watched.insert_one(s, bulk_writer=bulk),
    "delete": lambda s, bulk: s.delete(bulk_writer=bulk),
    "delete_all": lambda s, bulk: Watched.delete_all(bulk_writer=bulk),
    "find delete": lambda s, bulk: Watched.find_all().delete(bulk_writer=bulk),
    "replace_one": lambda s, bulk: Watched.find_one({}).replace_one(s, bulk_writer=bulk),
}


@pytest.mark.parametrize("name", BULK)
async def test_a_bulk_writer_writes_a_teams_fields(watched: BeanieSessionStore, name: str) -> None:
    summary = await found()
    async with BulkWriter() as bulk:
        await BULK[name](summary, bulk)
    (row,) = await collection_of(Watched).find({}).to_list(None)
    assert row["rating"] == 1


async def test_a_document_is_replaced_in_bulk(watched: BeanieSessionStore) -> None:
    summary = await found()
    summary.rating = 4
    await watched.append(KEY, [message("more")])
    async with BulkWriter() as bulk:
        await summary.replace(bulk_writer=bulk)
    (row,) = await collection_of(Watched).find({}).to_list(None)
    assert (row["rating"], row["next_seq"]) == (4, 3)
    assert not (await watched.verify(KEY)).differences


@pytest.mark.parametrize("name", BULK_REFUSED)
async def test_a_bulk_writer_writes_nothing_of_the_stores(
    watched: BeanieSessionStore, name: str
) -> None:
    summary = await found()
    before = await collection_of(Watched).find({}).to_list(None)

    async def attempt() -> None:
        async with BulkWriter() as bulk:
            outcome = BULK_REFUSED[name](summary, bulk)
            if hasattr(outcome, "__await__"):
                await outcome

    with pytest.raises(StoreOwnedError):
        await attempt()
    assert await collection_of(Watched).find({}).to_list(None) == before


class Stamped(TranscriptEntry):
    trace: UUID = Field(default_factory=uuid4)
    within: timedelta = timedelta(minutes=5)
    note: str | None = None
    alias: str = Field(default="a", alias="short")

    class Settings(TranscriptEntry.Settings):
        name = "stamped_entries"
        keep_nulls = False
        bson_encoders = {timedelta: lambda value: int(value.total_seconds())}


async def test_each_appended_entry_gets_the_defaults_as_beanie_stores_them(
    database: Database,
) -> None:
    await upgrade_schema(database, entries=Stamped)
    await init_beanie(database=database, document_models=[*DOCUMENT_MODELS, Stamped])
    store = BeanieSessionStore(tenant="t", entries=Stamped, summaries=Quiet)
    await init_beanie(database=database, document_models=[*DOCUMENT_MODELS, Stamped, Quiet])
    await store.append(KEY, [message("a"), message("b")])
    await store.append(KEY, [message("c")])
    rows = await collection_of(Stamped).find({}).sort("seq", 1).to_list(None)
    assert len({str(row["trace"]) for row in rows}) == 3
    assert [(row["within"], row["short"], "note" in row) for row in rows] == [(300, "a", False)] * 3
    entry = await Stamped.find_one(Stamped.seq == 1)
    assert entry is not None
    assert isinstance(entry.trace, UUID)
    # Saving changes nothing of how it is stored.
    await entry.save()
    assert await collection_of(Stamped).find({}).sort("seq", 1).to_list(None) == rows
    entry.note = "seen"
    await entry.save()
    entry.note = None
    await entry.save()
    assert await collection_of(Stamped).find({}).sort("seq", 1).to_list(None) == rows
