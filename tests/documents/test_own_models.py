"""Teams extend the store with Document classes of their own, and lose nothing by it."""

from __future__ import annotations

import asyncio
import base64
import random
from collections.abc import Callable
from datetime import datetime, timezone
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import uuid4

import pytest
from beanie import DecimalAnnotation, Document, Indexed, init_beanie
from claude_agent_sdk.testing import run_session_store_conformance
from pydantic import BaseModel, Field, model_validator
from pymongo import IndexModel
from support.server import connected
from support.watchdog import WATCHDOG_SECONDS

from beanie_session_store import (
    BeanieSessionStore,
    EntryChunk,
    InvalidModelError,
    SchemaOutdatedError,
    SessionStoreError,
    SessionSummary,
    TranscriptEntry,
    upgrade_schema,
)
from beanie_session_store.app.database.driver import Database

KEY = {"project_key": "-app", "session_id": "11111111-1111-4111-8111-111111111111"}
SUBAGENT = {**KEY, "subpath": "subagents/agent-a1"}
DEFAULT_COLLECTIONS = ("claude_transcript_entries", "claude_transcript_summaries")


class Region(Enum):
    EU = "eu"
    US = "us"


class Origin(BaseModel):
    host: str = "localhost"
    ports: list[int] = Field(default_factory=lambda: [80, 443])


class AcmeEntry(TranscriptEntry):
    region: Indexed(str) = "eu"  # type: ignore[valid-type]
    labels: list[str] = Field(default_factory=lambda: ["new"])
    zone: Region = Region.EU
    origin: Origin = Field(default_factory=Origin)
    price: DecimalAnnotation = Decimal("1.50")
    reviewed: datetime | None = None
    short: str = Field(default="s", alias="s")

    class Settings(TranscriptEntry.Settings):
        name = "acme_transcript_entries"
        indexes = [
            *TranscriptEntry.Settings.indexes,
            IndexModel([("region", 1), ("created_at", 1)], name="region"),
        ]


class AcmeSummary(SessionSummary):
    team: str = "blue"
    seen: int = 0

    class Settings(SessionSummary.Settings):
        name = "acme_transcript_summaries"
        indexes = [
            *SessionSummary.Settings.indexes,
            IndexModel([("metadata.user_id", 1)], name="user"),
        ]


class CheckedSummary(SessionSummary):
    """Allows no tenant but one, which it says of all fields together."""

    @model_validator(mode="after")
    def is_ours(self) -> CheckedSummary:
        if self.tenant != "ours":
            raise ValueError("this tenant is not ours")
        return self

    class Settings(SessionSummary.Settings):
        name = "checked_transcript_summaries"


class OtherEntry(TranscriptEntry):
    class Settings(TranscriptEntry.Settings):
        name = "other_transcript_entries"


class OtherSummary(SessionSummary):
    class Settings(SessionSummary.Settings):
        name = "other_transcript_summaries"


class SameCollectionEntry(TranscriptEntry):
    region: str = "eu"


class ForgetfulEntry(TranscriptEntry):
    class Settings:
        name = "forgetful_entries"


class ForgetfulSummary(SessionSummary):
    class Settings:
        name = "forgetful_summaries"


ALL = [AcmeEntry, AcmeSummary, OtherEntry, OtherSummary]
ACME: dict[str, Any] = {"entries": AcmeEntry, "summaries": AcmeSummary}
OTHER: dict[str, Any] = {"entries": OtherEntry, "summaries": OtherSummary}


async def initialised(database: Database, *models: type[Document], **options: Any) -> None:
    await init_beanie(
        database=database,
        document_models=[TranscriptEntry, SessionSummary, EntryChunk, *models],
        **options,
    )


async def index_names(database: Database, collection: str) -> dict[str, bool]:
    """The indexes of a collection, and whether each is unique."""
    found = await database[collection].index_information()
    return {name: bool(index.get("unique")) for name, index in found.items() if name != "_id_"}


@pytest.fixture
async def acme_database(mongo_url: str, database_name: str) -> Any:
    """A database with Acme's collections, and Beanie initialised with Acme's classes on it."""
    async with connected(mongo_url) as client:
        database = client[database_name]
        await upgrade_schema(database, **ACME)
        await initialised(database, *ALL)
        yield database


@pytest.fixture
def acme(acme_database: Database) -> BeanieSessionStore:
    return BeanieSessionStore(**ACME)


# The SDK's own contracts


def of_fresh_tenants(**models: Any) -> Callable[[], BeanieSessionStore]:
    return lambda: BeanieSessionStore(tenant=uuid4().hex, **models)


async def test_the_sdks_conformance_suite_passes(database: Database) -> None:
    await run_session_store_conformance(of_fresh_tenants())
    assert await TranscriptEntry.count() > 0


async def test_the_sdks_conformance_suite_passes_on_a_standalone_server(
    standalone_database: Database,
) -> None:
    await run_session_store_conformance(of_fresh_tenants())
    assert await TranscriptEntry.count() > 0


async def test_the_sdks_conformance_suite_passes_with_own_models(
    acme_database: Database,
) -> None:
    await run_session_store_conformance(of_fresh_tenants(**ACME))
    assert await AcmeEntry.count() > 0
    for name in DEFAULT_COLLECTIONS:
        assert await acme_database[name].count_documents({}) == 0


async def test_the_sdks_conformance_suite_passes_with_own_models_on_a_standalone_server(
    standalone_database: Database,
) -> None:
    await upgrade_schema(standalone_database, **ACME)
    await initialised(standalone_database, *ALL)
    await run_session_store_conformance(of_fresh_tenants(**ACME))
    assert await AcmeEntry.count() > 0
    for name in DEFAULT_COLLECTIONS:
        assert await standalone_database[name].count_documents({}) == 0


@pytest.mark.parametrize(
    ("models", "entries", "summaries"),
    [
        ({"entries": AcmeEntry}, AcmeEntry, SessionSummary),
        ({"summaries": AcmeSummary}, TranscriptEntry, AcmeSummary),
        ({"entries": SameCollectionEntry}, SameCollectionEntry, SessionSummary),
    ],
    ids=["own entries", "own summaries", "the default collection"],
)
async def test_one_class_of_ones_own_is_enough(
    mongo_url: str, database_name: str, models: Any, entries: Any, summaries: Any
) -> None:
    async with connected(mongo_url) as client:
        database = client[database_name]
        await upgrade_schema(database, **models)
        await initialised(database, entries, summaries)
        await run_session_store_conformance(of_fresh_tenants(**models))
        assert await entries.count() > 0
        assert await summaries.count() > 0


# Fields


async def test_added_fields_are_stored_at_their_defaults(
    acme: BeanieSessionStore, acme_database: Database
) -> None:
    await acme.append(KEY, [{"n": 1}, {"n": 2, "text": "cut \ud83d"}])
    found = await AcmeEntry.find(AcmeEntry.region == "eu").sort("seq").to_list()
    assert [document.content["n"] for document in found] == [1, 2]
    for document in found:
        assert document.labels == ["new"]
        assert document.zone is Region.EU
        assert document.origin == Origin()
        assert document.price == Decimal("1.50")
        assert document.reviewed is None
        assert document.short == "s"
    stored = await acme_database["acme_transcript_entries"].find_one({"seq": 1})
    assert stored is not None
    assert stored["s"] == "s"
    assert stored["zone"] == "eu"
    assert stored["origin"] == {"host": "localhost", "ports": [80, 443]}
    assert await AcmeSummary.find(AcmeSummary.team == "blue").count() == 1
    # They are no part of the entry.
    assert await acme.load(KEY) == [{"n": 1}, {"n": 2, "text": "cut \ud83d"}]


async def test_a_summary_that_a_teams_own_check_refuses_is_read_all_the_same(
    mongo_url: str, database_name: str
) -> None:
    async with connected(mongo_url) as client:
        database = client[database_name]
        await upgrade_schema(database, summaries=CheckedSummary)
        await initialised(database, CheckedSummary)
        for tenant in ("ours", "theirs"):
            store = BeanieSessionStore(tenant=tenant, summaries=CheckedSummary)
            await store.append(KEY, [{"type": "custom-title", "customTitle": tenant}])
            (found,) = (await store.sessions()).sessions
            assert (found.tenant, found.title, found.totals.entries) == (tenant, tenant, 1)
            assert isinstance(await store.summary(KEY), CheckedSummary)


async def test_a_default_factory_runs_for_every_entry(mongo_url: str, database_name: str) -> None:
    numbers = iter(range(100, 200))

    class CountedEntry(TranscriptEntry):
        number: int = Field(default_factory=lambda: next(numbers))
        at: datetime = Field(default_factory=lambda: datetime.now(timezone.utc))

        class Settings(TranscriptEntry.Settings):
            name = "counted_entries"

    async with connected(mongo_url) as client:
        await upgrade_schema(client[database_name], entries=CountedEntry)
        await initialised(client[database_name], CountedEntry)
        store = BeanieSessionStore(entries=CountedEntry)
        await store.append(KEY, [{"n": 1}, {"n": 2}])
        await store.append(KEY, [{"n": 3}])
        found = await CountedEntry.find_all().sort("seq").to_list()
        assert len({document.number for document in found}) == 3


async def test_a_default_factory_that_needs_other_fields_is_refused_or_works(
    mongo_url: str, database_name: str
) -> None:
    class DerivedEntry(TranscriptEntry):
        copy_of: str = Field(default_factory=lambda data: "x" + data["session_id"])

        class Settings(TranscriptEntry.Settings):
            name = "derived_entries"

    async with connected(mongo_url) as client:
        await upgrade_schema(client[database_name], entries=DerivedEntry)
        await initialised(client[database_name], DerivedEntry)
        try:
            store = BeanieSessionStore(entries=DerivedEntry)
        except InvalidModelError:
            return
        await store.append(KEY, [{"n": 1}])
        (document,) = await DerivedEntry.find_all().to_list()
        assert document.copy_of == "x" + KEY["session_id"]


async def test_what_a_team_writes_into_its_fields_is_kept(acme: BeanieSessionStore) -> None:
    await acme.append(KEY, [{"n": 1}])
    summary = await AcmeSummary.find_one(AcmeSummary.team == "blue")
    assert summary is not None
    await summary.set({AcmeSummary.team: "red", AcmeSummary.seen: 7})
    await AcmeEntry.find(AcmeEntry.seq == 1).set({AcmeEntry.region: "us"})
    await acme.append(KEY, [{"n": 2}])
    await BeanieSessionStore(**ACME).append(SUBAGENT, [{"n": 3}])
    summary = await AcmeSummary.find_one(AcmeSummary.team == "red")
    assert summary is not None
    assert summary.seen == 7
    found = await AcmeEntry.find_all().sort("seq").to_list()
    assert [document.region for document in found] == ["us", "eu", "eu"]


def test_a_field_without_a_default_is_refused_at_construction() -> None:
    class Demanding(TranscriptEntry):
        region: str
        team: str
        label: str = "x"

    with pytest.raises(InvalidModelError, match=r"\(region, team\)"):
        BeanieSessionStore(entries=Demanding)


# Collections and indexes


async def test_the_default_collections_stay_empty(
    acme: BeanieSessionStore, acme_database: Database
) -> None:
    await acme.append(KEY, [{"n": 1, "customTitle": "t"}])
    await acme.append(SUBAGENT, [{"n": 2}])
    for name in DEFAULT_COLLECTIONS:
        assert await acme_database[name].count_documents({}) == 0
    assert await BeanieSessionStore().load(KEY) is None
    assert await BeanieSessionStore().list_sessions("-app") == []
    assert await AcmeEntry.count() == 2
    assert await AcmeSummary.count() == 1


async def test_upgrade_makes_the_collections_under_their_own_names(
    mongo_url: str, database_name: str
) -> None:
    async with connected(mongo_url) as client:
        database = client[database_name]
        ran = await upgrade_schema(database, **ACME)
        assert ran
        assert not set(DEFAULT_COLLECTIONS) & set(await database.list_collection_names())
        expected = {
            "acme_transcript_entries": {"transcript_order": True, "transcript_uuid": True},
            "acme_transcript_summaries": {"session": True},
            "claude_transcript_chunks": {"chunk_order": True},
        }
        for collection, indexes in expected.items():
            assert indexes.items() <= (await index_names(database, collection)).items()
        # Again, it does nothing.
        assert await upgrade_schema(database, **ACME) == []
        for collection, indexes in expected.items():
            assert indexes.items() <= (await index_names(database, collection)).items()
        # The default collections are another matter.
        assert await upgrade_schema(database) == ran
        assert await index_names(database, DEFAULT_COLLECTIONS[0]) != {}


async def test_init_beanie_adds_a_teams_own_indexes(
    acme: BeanieSessionStore, acme_database: Database
) -> None:
    entries = await index_names(acme_database, "acme_transcript_entries")
    expected = {
        "transcript_order": True,
        "transcript_uuid": True,
        "region": False,
        "region_1": False,
    }
    assert expected.items() <= entries.items()
    summaries = await index_names(acme_database, "acme_transcript_summaries")
    assert {"session": True, "user": False}.items() <= summaries.items()
    await acme.append(KEY, [{"n": 1}])
    assert await acme.load(KEY) == [{"n": 1}]


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ({}, {"summaries": AcmeSummary}),
        ({"entries": AcmeEntry}, ACME),
        (ACME, {"entries": AcmeEntry, "summaries": OtherSummary}),
    ],
    ids=["defaults, then own summaries", "own entries, then both", "other summaries"],
)
async def test_upgrade_serves_a_team_that_adds_a_class_later(
    mongo_url: str, database_name: str, first: Any, then: Any
) -> None:
    async with connected(mongo_url) as client:
        database = client[database_name]
        await upgrade_schema(database, **first)
        await upgrade_schema(database, **then)
        # As in an application whose deploy job makes the indexes.
        await initialised(database, *ALL, skip_indexes=True)
        store = BeanieSessionStore(**then)
        await store.append(KEY, [{"n": 1}])
        assert await store.load(KEY) == [{"n": 1}]


@pytest.mark.parametrize(
    ("models", "missing"),
    [
        ({"entries": ForgetfulEntry}, "forgetful_entries .*'transcript_order'"),
        ({"summaries": ForgetfulSummary}, "forgetful_summaries .*'session'"),
    ],
    ids=["entries", "summaries"],
)
async def test_settings_that_do_not_inherit_the_indexes_are_refused(
    database: Database, models: Any, missing: str
) -> None:
    await initialised(database, ForgetfulEntry, ForgetfulSummary)
    store = BeanieSessionStore(**models)
    with pytest.raises(SchemaOutdatedError, match=missing) as raised:
        await store.append(KEY, [{"n": 1}])
    assert "a subclass's Settings must inherit" in str(raised.value)
    assert await database["forgetful_entries"].count_documents({}) == 0
    # What it names helps as well.
    await upgrade_schema(database, entries=ForgetfulEntry, summaries=ForgetfulSummary)
    await store.append(KEY, [{"n": 1}])
    assert await store.load(KEY) == [{"n": 1}]


async def test_connect_takes_own_models(mongo_url: str, database_name: str) -> None:
    async with BeanieSessionStore.connect(mongo_url, database=database_name, **ACME) as store:
        await store.append(KEY, [{"n": 1}])
        assert await store.load(KEY) == [{"n": 1}]
        assert await AcmeEntry.count() == 1
    async with connected(mongo_url) as client:
        for name in DEFAULT_COLLECTIONS:
            assert await client[database_name][name].count_documents({}) == 0


async def test_a_unique_index_of_the_teams_own_is_an_error_and_no_endless_wait(
    mongo_url: str, database_name: str
) -> None:
    class UniqueEntry(TranscriptEntry):
        class Settings(TranscriptEntry.Settings):
            name = "unique_entries"
            indexes = [
                *TranscriptEntry.Settings.indexes,
                # Across transcripts, where the store itself keeps the same uuid twice.
                IndexModel(
                    [("uuid", 1)],
                    name="only_one",
                    unique=True,
                    partialFilterExpression={"uuid": {"$exists": True}},
                ),
            ]

    async with connected(mongo_url) as client:
        await upgrade_schema(client[database_name], entries=UniqueEntry)
        await initialised(client[database_name], UniqueEntry)
        store = BeanieSessionStore(entries=UniqueEntry)
        await store.append(KEY, [{"uuid": "u"}])
        with pytest.raises(SessionStoreError, match="only_one"):
            await asyncio.wait_for(store.append(SUBAGENT, [{"uuid": "u"}]), WATCHDOG_SECONDS)
        assert await store.load(KEY) == [{"uuid": "u"}]
        assert await store.load(SUBAGENT) is None


# Several stores in one database


def incompressible(seed: int, size: int) -> str:
    """Text whose packed form is cut into chunks."""
    return base64.b64encode(random.Random(seed).randbytes(size)).decode()


async def test_stores_with_other_collections_do_not_share_chunks(
    acme_database: Database, smaller_limits: int
) -> None:
    one, other = BeanieSessionStore(**ACME), BeanieSessionStore(**OTHER)
    size = 17 * 1024 * 1024 // smaller_limits
    first, second = ([{"text": incompressible(seed, size)}] for seed in (1, 2))
    # The same tenant, session and position.
    await one.append(KEY, first)
    await other.append(KEY, second)
    assert (await one.load(KEY) == first) is True
    assert (await other.load(KEY) == second) is True
    await one.delete(KEY)
    assert await one.load(KEY) is None
    assert (await other.load(KEY) == second) is True
    assert await EntryChunk.distinct("collection") == ["other_transcript_entries"]
    await other.delete(KEY)
    assert await EntryChunk.count() == 0


async def test_stores_with_other_collections_number_and_list_apart(
    acme_database: Database,
) -> None:
    one, other = BeanieSessionStore(**ACME), BeanieSessionStore(**OTHER)
    for n in range(3):
        await one.append(KEY, [{"uuid": str(n), "customTitle": "one"}])
    await other.append(KEY, [{"uuid": "0", "customTitle": "other"}])
    await other.append(SUBAGENT, [{"uuid": "0"}])
    assert await one.list_subkeys(KEY) == []
    (summary,) = await one.list_session_summaries("-app")
    assert summary["data"]["custom_title"] == "one"
    assert [entry.seq async for entry in other.stream(KEY)] == [1]
    await other.delete(KEY)
    assert len(await one.load(KEY) or []) == 3
    assert len(await one.list_sessions("-app")) == 1


async def test_stores_that_share_summaries_but_not_entries_do_not_lose_a_session(
    acme_database: Database,
) -> None:
    # One summary then stands for two transcripts. To refuse the pair would be as good.
    one = BeanieSessionStore(entries=AcmeEntry, summaries=AcmeSummary)
    other = BeanieSessionStore(entries=OtherEntry, summaries=AcmeSummary)
    await one.append(KEY, [{"n": 1}])
    try:
        await other.append(KEY, [{"n": 2}])
        await one.delete(KEY)
    except SessionStoreError:
        assert await one.load(KEY) == [{"n": 1}]
        return
    assert await other.load(KEY) == [{"n": 2}]
    await other.append(KEY, [{"n": 3}])
    assert await other.load(KEY) == [{"n": 2}, {"n": 3}]


async def test_classes_of_two_clients_are_refused(
    mongo_url: str, database_name: str, acme_database: Database
) -> None:
    # One transaction cannot span two clients.
    async with connected(mongo_url) as client:
        await init_beanie(database=client[database_name], document_models=[OtherSummary])
        store = BeanieSessionStore(entries=AcmeEntry, summaries=OtherSummary)
        await upgrade_schema(acme_database, entries=AcmeEntry, summaries=OtherSummary)
        with pytest.raises(SessionStoreError, match="nothing was"):
            await store.append(KEY, [{"n": 1}])
    assert await AcmeEntry.count() == 0
