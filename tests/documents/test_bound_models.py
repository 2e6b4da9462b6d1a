"""What an application gave to its Document classes stays, whatever else the process opens."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
from beanie import init_beanie
from pymongo import IndexModel, MongoClient
from support.entries import message

from beanie_session_store import (
    DOCUMENT_MODELS,
    BeanieSessionStore,
    EntryChunk,
    RetentionPolicy,
    SessionSummary,
    TranscriptEntry,
    database_of,
    upgrade_schema,
)
from beanie_session_store.app.database.driver import Database, collection_of, is_bound

KEY: Any = {"project_key": "p", "session_id": "s"}


class AcmeEntry(TranscriptEntry):
    region: str = "eu"

    class Settings(TranscriptEntry.Settings):
        name = "acme_entries"


class AcmeSummary(SessionSummary):
    class Settings(SessionSummary.Settings):
        name = "acme_summaries"
        indexes = [*SessionSummary.Settings.indexes, IndexModel("tag", name="acme_tag")]


@pytest.fixture
async def other(mongo_url: str) -> AsyncIterator[str]:
    """A database besides the one that is bound."""
    name = f"test_{uuid4().hex[:16]}"
    yield name
    with MongoClient[dict[str, Any]](mongo_url) as client:
        client.drop_database(name)


@pytest.fixture
def unbound() -> Any:
    """The classes as a process has them that never called ``init_beanie``."""
    models = [*DOCUMENT_MODELS, AcmeEntry, AcmeSummary]
    kept = {model: model.__dict__.get("_document_settings") for model in models}
    for model in models:
        model._document_settings = None
    yield
    for model, settings in kept.items():
        model._document_settings = settings


def bound_to() -> dict[str, str]:
    return {
        model.__name__: database_of(model).name
        for model in (TranscriptEntry, SessionSummary, EntryChunk, RetentionPolicy)
    }


async def test_connecting_elsewhere_leaves_the_application_where_it_is(
    database: Database, mongo_url: str, other: str
) -> None:
    ours = BeanieSessionStore()
    collections = [collection_of(model) for model in DOCUMENT_MODELS]
    async with BeanieSessionStore.connect(mongo_url, database=other) as theirs:
        await ours.append(KEY, [message("ours")])
        await theirs.append(KEY, [message("theirs")])
        assert await theirs.summary(KEY) is not None
        assert len((await theirs.sessions()).sessions) == 1
        assert set(bound_to().values()) == {database.name}
        assert await SessionSummary.find(SessionSummary.first_prompt == "ours").count() == 1
    assert [collection_of(model) for model in DOCUMENT_MODELS] == collections
    await ours.append(KEY, [message("again")])
    (one, two) = await ours.load(KEY) or []
    assert "theirs" not in str((one, two))


async def test_a_class_of_a_teams_own_elsewhere_leaves_its_parent_where_it_is(
    database: Database, mongo_url: str, other: str
) -> None:
    async with BeanieSessionStore.connect(
        mongo_url, database=other, entries=AcmeEntry, summaries=AcmeSummary
    ) as theirs:
        await theirs.append(KEY, [message("theirs")])
        assert set(bound_to().values()) == {database.name}
        assert database_of(AcmeSummary).name == other
        assert (await AcmeEntry.find_one()).region == "eu"  # type: ignore[union-attr]
        names = await collection_of(AcmeSummary).index_information()
        assert "acme_tag" in names
    assert not is_bound(AcmeSummary)
    # Neither does a store on a given database.
    third = database.client[other]
    await upgrade_schema(third, entries=AcmeEntry, summaries=AcmeSummary)
    on = BeanieSessionStore.on(third, entries=AcmeEntry, summaries=AcmeSummary)
    assert (await on.summary(KEY)).first_prompt == "theirs"  # type: ignore[union-attr]
    assert set(bound_to().values()) == {database.name}


async def test_indexes_that_a_class_declares_are_made_where_it_is_not_bound(
    database: Database, mongo_url: str, other: str
) -> None:
    await init_beanie(database=database, document_models=[*DOCUMENT_MODELS, AcmeEntry, AcmeSummary])
    async with BeanieSessionStore.connect(
        mongo_url, database=other, entries=AcmeEntry, summaries=AcmeSummary
    ) as theirs:
        await theirs.append(KEY, [message("theirs")])
        assert database_of(AcmeSummary).name == database.name
    with MongoClient[dict[str, Any]](mongo_url) as client:
        assert "acme_tag" in client[other]["acme_summaries"].index_information()


@pytest.mark.usefixtures("unbound")
async def test_in_a_script_the_classes_answer_while_the_store_is_open(
    mongo_url: str, database_name: str
) -> None:
    for round_ in range(2):
        async with BeanieSessionStore.connect(mongo_url, database=database_name) as store:
            await store.append(KEY, [message(f"round {round_}")])
            assert await TranscriptEntry.find().count() == round_ + 1
        assert not any(map(is_bound, DOCUMENT_MODELS))


@pytest.mark.usefixtures("unbound")
async def test_several_at_once_hand_the_classes_on(
    mongo_url: str, database_name: str, other: str
) -> None:
    first = BeanieSessionStore.connect(mongo_url, database=database_name)
    second = BeanieSessionStore.connect(mongo_url, database=other)
    one, two = await first.__aenter__(), await second.__aenter__()
    await one.append(KEY, [message("one")])
    await two.append(KEY, [message("two")])
    assert (await SessionSummary.find_one()).first_prompt == "one"  # type: ignore[union-attr]
    await first.__aexit__(None, None, None)
    assert (await SessionSummary.find_one()).first_prompt == "two"  # type: ignore[union-attr]
    assert (await two.summary(KEY)).first_prompt == "two"  # type: ignore[union-attr]
    await second.__aexit__(None, None, None)
    assert not any(map(is_bound, DOCUMENT_MODELS))


@pytest.mark.usefixtures("unbound")
async def test_threads_connect_at_once(mongo_url: str, database_name: str) -> None:
    async with BeanieSessionStore.connect(mongo_url, database=database_name):
        pass

    def thread(number: int) -> list[Any]:
        async def work() -> list[Any]:
            async with BeanieSessionStore.connect(
                mongo_url, database=database_name, tenant=f"t{number}"
            ) as store:
                await store.append(KEY, [message(f"{number}")])
                await asyncio.sleep(number % 3 / 20)
                page = await store.sessions()
                return [session.first_prompt for session in page.sessions]

        return asyncio.run(work())

    found = await asyncio.gather(*(asyncio.to_thread(thread, number) for number in range(8)))
    assert found == [[str(number)] for number in range(8)]
    assert not any(map(is_bound, DOCUMENT_MODELS))


@pytest.mark.usefixtures("unbound")
async def test_an_application_that_binds_meanwhile_keeps_what_it_gave(
    mongo_url: str, database_name: str, other: str
) -> None:
    async with BeanieSessionStore.connect(mongo_url, database=database_name) as store:
        client: Any = (await store._connection()).client
        await init_beanie(database=client[other], document_models=DOCUMENT_MODELS)
        await store.append(KEY, [message("here")])
        assert await store.load(KEY)
    assert set(bound_to().values()) == {other}


async def test_a_store_says_that_its_classes_went_elsewhere(
    database: Database, other: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = BeanieSessionStore()
    await store.append(KEY, [message("here")])
    await init_beanie(database=database, document_models=DOCUMENT_MODELS)
    await store.append(KEY, [message("still here")])
    await upgrade_schema(database.client[other])
    with caplog.at_level(logging.WARNING):
        await init_beanie(database=database.client[other], document_models=DOCUMENT_MODELS)
        await store.append(KEY, [message("there")])
        await store.append(KEY, [message("and there")])
    said = [record.message for record in caplog.records if "init_beanie" in record.message]
    assert len(said) == 1
    assert database.name in said[0]
    assert other in said[0]
