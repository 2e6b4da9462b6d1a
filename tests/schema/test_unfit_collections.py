"""Collections that mix tenants up or lose what is appended: refused before anything is read."""

from __future__ import annotations

from typing import Any

import pytest
from beanie import init_beanie
from pymongo import MongoClient
from pymongo.monitoring import CommandListener, CommandStartedEvent
from support.database import prepared
from support.entries import KEY, message, turn
from support.secured import SecuredServer
from support.server import connected

from beanie_session_store import (
    DOCUMENT_MODELS,
    BeanieSessionStore,
    SchemaOutdatedError,
    SessionStoreError,
    SessionSummary,
    TranscriptEntry,
    UnfitCollectionError,
    adopt,
    copy_sessions,
    diagnose,
    set_retention,
    upgrade_schema,
)
from beanie_session_store.app.database.driver import Database, aggregate

KINDS: dict[str, tuple[dict[str, Any], str]] = {
    "case-insensitive": ({"collation": {"locale": "en", "strength": 2}}, "locale en, strength 2"),
    "base letters alone": ({"collation": {"locale": "fr", "strength": 1}}, "strength 1"),
    "of a language": ({"collation": {"locale": "de"}}, "locale de"),
    "numbers": ({"collation": {"locale": "en", "numericOrdering": True}}, "numericOrdering"),
    "capped": ({"capped": True, "size": 100_000}, "is capped"),
    "time series": ({"timeseries": {"timeField": "created_at"}}, "is a time-series collection"),
    "view": ({"viewOn": "elsewhere", "pipeline": []}, "is a view"),
}
each_kind = pytest.mark.parametrize(("options", "reason"), list(KINDS.values()), ids=list(KINDS))
COLLECTIONS = [
    "claude_transcript_entries",
    "claude_transcript_summaries",
    "claude_transcript_chunks",
    "claude_retention_policies",
]


@pytest.fixture
def made(mongo_url: str, database_name: str) -> Any:
    """Makes a collection before any of ours does."""

    def make(name: str, **options: Any) -> None:
        with MongoClient(mongo_url) as client:
            client[database_name].create_collection(name, **options)

    return make


def names_of(url: str, database: str) -> set[str]:
    with MongoClient(url) as client:
        return set(client[database].list_collection_names())


@each_kind
@pytest.mark.parametrize("at", range(4), ids=["entries", "summaries", "chunks", "policies"])
async def test_no_kind_is_used(
    mongo_url: str,
    database_name: str,
    made: Any,
    at: int,
    options: dict[str, Any],
    reason: str,
) -> None:
    name = COLLECTIONS[at]
    made(name, **options)
    before = names_of(mongo_url, database_name)
    async with connected(mongo_url) as client:
        database = client[database_name]
        with pytest.raises(UnfitCollectionError, match=rf"{name} .*{reason}") as raised:
            await upgrade_schema(database)
        assert "nothing was read or written. Rename it" in str(raised.value)
        with pytest.raises(UnfitCollectionError, match=name):
            await upgrade_schema(database, dry_run=True)
        # Neither an index nor a collection was made.
        assert names_of(mongo_url, database_name) == before
        await init_beanie(database=database, document_models=DOCUMENT_MODELS, skip_indexes=True)
        with pytest.raises(UnfitCollectionError, match=rf"{name} .*{reason}"):
            await BeanieSessionStore(tenant="ACME").load(KEY)
        with pytest.raises(UnfitCollectionError):
            await BeanieSessionStore(tenant="acme").append(KEY, turn(1))
        found = (await diagnose(database)).of("indexes")
        assert found is not None
        assert found.verdict == "bad"
        assert name in found.found
        assert reason.split(",")[0] in found.found
        assert "Rename it" in (found.advice or "")
        with pytest.raises((UnfitCollectionError, SchemaOutdatedError)):
            await set_retention(database, None)
    assert names_of(mongo_url, database_name) == before


async def test_indexes_made_in_it_do_not_help(
    mongo_url: str, database_name: str, made: Any
) -> None:
    """As init_beanie makes them, on a collection that takes upper for lower case."""
    for name in COLLECTIONS[:3]:
        made(name, collation={"locale": "en", "strength": 2})
    async with connected(mongo_url) as client:
        await init_beanie(database=client[database_name], document_models=DOCUMENT_MODELS)
        with pytest.raises(UnfitCollectionError, match="claude_transcript_entries has a collation"):
            await BeanieSessionStore(tenant="ACME").append(KEY, [message()])


async def test_an_index_with_a_collation_does_not_stand_for_the_plain_one(
    mongo_url: str, database: Database
) -> None:
    entries = database["claude_transcript_entries"]
    found = (await entries.index_information())["transcript_uuid"]
    await entries.drop_index("transcript_uuid")
    await entries.create_index(
        found["key"],
        name="transcript_uuid",
        unique=True,
        partialFilterExpression=found["partialFilterExpression"],
        collation={"locale": "en", "strength": 2},
    )
    async with connected(mongo_url) as client:
        await init_beanie(
            database=client[database.name], document_models=DOCUMENT_MODELS, skip_indexes=True
        )
        with pytest.raises(SchemaOutdatedError, match="transcript_uuid"):
            await BeanieSessionStore().append(KEY, [message()])
        finding = (await diagnose(client[database.name])).of("indexes")
        assert finding is not None
        assert (finding.verdict, "transcript_uuid" in finding.found) == ("bad", True)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"collation": {"locale": "simple"}}, id="simple collation"),
        pytest.param({"validator": {"tenant": {"$type": "string"}}}, id="validator"),
        pytest.param({"clusteredIndex": {"key": {"_id": 1}, "unique": True}}, id="clustered"),
    ],
)
async def test_what_changes_no_promise_is_taken(
    mongo_url: str, database_name: str, made: Any, options: dict[str, Any]
) -> None:
    made("claude_transcript_entries", **options)
    async with connected(mongo_url) as client:
        await prepared(client[database_name])
        for tenant in ("ACME", "acme"):
            await BeanieSessionStore(tenant=tenant).append(KEY, [message(tenant)])
        loaded = await BeanieSessionStore(tenant="ACME").load(KEY) or []
        assert [entry["message"]["content"] for entry in loaded] == ["ACME"]


class UnfitEntry(TranscriptEntry):
    class Settings(TranscriptEntry.Settings):
        name = "unfit_entries"


class UnfitSummary(SessionSummary):
    class Settings(SessionSummary.Settings):
        name = "unfit_summaries"


async def test_classes_of_ones_own_adoption_and_copies(
    mongo_url: str, database_name: str, database: Database, made: Any
) -> None:
    made("unfit_entries", collation={"locale": "en", "strength": 1})
    with pytest.raises(UnfitCollectionError, match="unfit_entries"):
        await upgrade_schema(database, entries=UnfitEntry, summaries=UnfitSummary)
    await database["claude_session_entries"].insert_one(
        {"project_key": "p", "session_id": "s", "position": 1, "entry": message()}
    )
    await init_beanie(
        database=database,
        document_models=[*DOCUMENT_MODELS, UnfitEntry, UnfitSummary],
        skip_indexes=True,
    )
    classes: Any = {"entries": UnfitEntry, "summaries": UnfitSummary}
    with pytest.raises(UnfitCollectionError, match="unfit_entries"):
        await adopt(database, tenant="acme", **classes)
    source = BeanieSessionStore(tenant="acme")
    await source.append(KEY, turn(1))
    with pytest.raises(UnfitCollectionError, match="unfit_entries"):
        await copy_sessions(source, BeanieSessionStore(tenant="acme", **classes))
    made("claude_transcript_adoptions", collation={"locale": "en", "strength": 2})
    with pytest.raises(UnfitCollectionError, match="claude_transcript_adoptions"):
        await adopt(database, tenant="acme")
    # The store beside it is as good as before.
    assert len(await source.load(KEY) or []) == 6


async def test_a_source_that_mixes_cases_is_adopted_apart(database: Database, made: Any) -> None:
    made("claude_session_entries", collation={"locale": "en", "strength": 2})
    for position, (session, text) in enumerate([("S", "upper"), ("s", "lower")], 1):
        await database["claude_session_entries"].insert_one(
            {
                "project_key": "p",
                "session_id": session,
                "position": position,
                "entry": message(text),
            }
        )
    assert (await adopt(database, tenant="acme")).adopted == 2
    for session, text in (("S", "upper"), ("s", "lower")):
        key: Any = {"project_key": "p", "session_id": session}
        loaded = await BeanieSessionStore(tenant="acme").load(key) or []
        assert [entry["message"]["content"] for entry in loaded] == [text]


async def test_it_is_asked_once_per_process_and_database(
    database: Database, mongo_url: str
) -> None:
    seen: list[str] = []

    class Listener(CommandListener):
        def started(self, event: CommandStartedEvent) -> None:
            seen.append(event.command_name)

        def succeeded(self, event: object) -> None:
            pass

        failed = succeeded

    async with connected(mongo_url, event_listeners=[Listener()]) as client:
        await init_beanie(
            database=client[database.name], document_models=DOCUMENT_MODELS, skip_indexes=True
        )
        seen.clear()
        for number in range(5):
            for _ in range(2):
                await BeanieSessionStore(tenant=f"t{number}").append(KEY, turn(number))
    assert [name for name in seen if name.startswith("list")].count("listCollections") == 1
    assert seen.count("commitTransaction") == 10


LEAST = ("find", "insert", "update", "remove", "listIndexes")


@pytest.mark.parametrize("kind", ["plain", "case-insensitive", "view", "time series"])
async def test_a_user_who_may_not_list_collections_is_told_too(
    secured: SecuredServer, database_name: str, kind: str
) -> None:
    """No privilege is needed that the store did not need before."""
    options, reason = KINDS.get(kind, ({}, ""))
    privileges = [
        {"resource": {"db": database_name, "collection": name}, "actions": list(LEAST)}
        for name in (*COLLECTIONS, "claude_transcript_migrations")
    ]
    with MongoClient(secured.url()) as client:
        if options:
            client[database_name].create_collection("claude_transcript_summaries", **options)
    async with connected(secured.url()) as client:
        if not options:
            await upgrade_schema(client[database_name])
    _, url = secured.user(privileges=privileges)
    async with connected(url) as client:
        await init_beanie(
            database=client[database_name],
            document_models=[TranscriptEntry, SessionSummary, *DOCUMENT_MODELS],
            skip_indexes=True,
        )
        store = BeanieSessionStore()
        if not options:
            await store.append(KEY, turn(1))
            assert len(await store.load(KEY) or []) == 6
            return
        with pytest.raises(SessionStoreError, match=f"summaries .*{reason}") as raised:
            await store.append(KEY, turn(1))
        assert isinstance(raised.value, UnfitCollectionError)


async def test_what_the_refusal_advises_helps(
    mongo_url: str, database_name: str, made: Any
) -> None:
    for name in COLLECTIONS[:3]:
        made(name, collation={"locale": "en", "strength": 2})
    stored = {"tenant": "acme", **KEY, "subpath": "", "seq": 1, "uuid": "u", "entry": {"uuid": "u"}}
    async with connected(mongo_url) as client:
        database = client[database_name]
        await database["claude_transcript_entries"].insert_one(dict(stored))
        for name in COLLECTIONS[:3]:
            await database[name].rename(f"{name}_aside")
        await upgrade_schema(database)
        for name in COLLECTIONS[:3]:
            cursor = await aggregate(database[f"{name}_aside"], [{"$merge": name}])
            assert await cursor.to_list() == []
    async with connected(mongo_url) as client:
        await init_beanie(
            database=client[database_name], document_models=DOCUMENT_MODELS, skip_indexes=True
        )
        assert await BeanieSessionStore(tenant="acme").load(KEY) == [{"uuid": "u"}]
        assert await BeanieSessionStore(tenant="ACME").load(KEY) is None
