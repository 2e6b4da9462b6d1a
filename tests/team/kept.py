"""Tests of a team that keep to the rules, in pytest-asyncio's strict mode: all of them pass."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from beanie import Document, init_beanie
from claude_agent_sdk import ClaudeAgentOptions, ResultMessage, query
from fastapi.testclient import TestClient
from pymongo import MongoClient

from app import create_app
from beanie_session_store import DOCUMENT_MODELS, BeanieSessionStore, SessionSummary
from beanie_session_store.app.database.driver import close_client, open_client
from beanie_session_store.testing import Database, Documents, Isolation, ScriptedAgent

KEY: Any = {"project_key": "p", "session_id": "s"}
ENTRIES: Any = [{"type": "user", "uuid": "1"}]


class Note(Document):
    text: str


async def is_alone(store: BeanieSessionStore) -> bool:
    """Whether a test finds nothing of another; it leaves something for the next."""
    found = [listing async for listing in store.all_sessions()]
    counted = await SessionSummary.count()
    await store.append(KEY, ENTRIES)
    return not found and not counted and await SessionSummary.count() == 1


@pytest.mark.asyncio
@pytest.mark.parametrize("time", range(2))
async def test_in_a_loop_of_its_own(session_store: BeanieSessionStore, time: int) -> None:
    assert await is_alone(session_store)


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.parametrize("time", range(2))
async def test_in_the_loop_of_the_session(session_store: BeanieSessionStore, time: int) -> None:
    assert await is_alone(session_store)


@pytest.mark.asyncio(loop_scope="class")
class TestInTheLoopOfAClass:
    async def test_one(self, session_store: BeanieSessionStore) -> None:
        assert await is_alone(session_store)

    async def test_another(self, session_store: BeanieSessionStore) -> None:
        assert await is_alone(session_store)


@pytest.mark.anyio
@pytest.mark.parametrize("time", range(2))
async def test_in_the_loop_of_anyio(
    anyio_backend: str, session_store: BeanieSessionStore, time: int
) -> None:
    assert await is_alone(session_store)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def test_without_a_loop(session_store_url: str, session_store_database_name: str) -> None:
    with MongoClient[dict[str, Any]](session_store_url) as client:
        database = client[session_store_database_name]
        assert "claude_transcript_entries" in database.list_collection_names()
        assert not list(database["claude_transcript_entries"].find())
        database["notes"].insert_one({"text": "left behind"})
        database.create_collection("recent", viewOn="notes", pipeline=[])


class TestWithADatabaseOfItsOwn:
    @pytest.fixture
    def session_store_isolation(self) -> Isolation:
        return "database"

    @pytest.mark.asyncio
    @pytest.mark.parametrize("time", range(2))
    async def test_the_schema_is_whole(
        self, session_store: BeanieSessionStore, session_store_database: Database, time: int
    ) -> None:
        entries = session_store_database["claude_transcript_entries"]
        assert "transcript_uuid" in await entries.index_information()
        assert await is_alone(session_store)
        await entries.drop_index("transcript_uuid")


class TestWithDocumentsOfTheTeam:
    @pytest.fixture
    def session_store_documents(self) -> Documents:
        return [Note]

    @pytest.mark.asyncio
    @pytest.mark.parametrize("time", range(2))
    async def test_they_are_bound(self, session_store: BeanieSessionStore, time: int) -> None:
        assert await Note.count() == 0
        await Note(text="x").insert()
        assert await is_alone(session_store)


class TestWithAnInitOfTheTeam:
    @pytest.fixture
    def session_store_tenant(self) -> str:
        return "acme"

    @pytest.mark.asyncio
    async def test_the_store_is_where_it_binds(
        self, session_store: BeanieSessionStore, session_store_database: Database
    ) -> None:
        models: Any = [Note, *DOCUMENT_MODELS]
        await init_beanie(database=session_store_database, document_models=models)
        await BeanieSessionStore(tenant="acme").append(KEY, ENTRIES)
        assert await session_store.load(KEY) == ENTRIES


def test_the_surroundings_are_as_they_were() -> None:
    assert os.environ["ANTHROPIC_API_KEY"] == "a real key"
    assert os.environ["CLAUDE_CODE_USE_BEDROCK"] == "1"
    assert os.environ["HTTPS_PROXY"] == "http://127.0.0.1:9"
    assert "ANTHROPIC_BASE_URL" not in os.environ


@pytest.fixture
def watched() -> Iterator[None]:
    before = dict(os.environ)
    yield
    after = dict(os.environ)
    for environment in (before, after):
        environment.pop("PYTEST_CURRENT_TEST")
    assert after == before


@pytest.mark.asyncio
async def test_the_agent_gives_up_and_a_plain_query_goes_on(
    watched: None, scripted_agent: ScriptedAgent
) -> None:
    assert Path.home() == scripted_agent.home
    assert os.environ["ANTHROPIC_API_KEY"] == "not-a-real-key"
    assert not {"CLAUDE_CODE_USE_BEDROCK", "HTTPS_PROXY"} & set(os.environ)
    os.environ["CLAUDE_OF_THE_TEST"] = "1"

    async def answers() -> AsyncIterator[str | None]:
        options = ClaudeAgentOptions(cwd=scripted_agent.directory)
        async for message in query(prompt="Hello?", options=options):
            if isinstance(message, ResultMessage):
                yield message.result

    scripted_agent.fails(529).says("Again.")
    with pytest.raises(Exception, match="529"):
        assert [answer async for answer in answers()] == [None]
    assert len(scripted_agent.requests) == 3
    assert [answer async for answer in answers()] == ["Again."]


@pytest.mark.asyncio
async def test_agents_of_two_tenants_at_once(
    session_store_url: str, session_store_database_name: str, scripted_agent: ScriptedAgent
) -> None:
    client = open_client(session_store_url)
    app = create_app(client, scripted_agent.directory, session_store_database_name)
    scripted_agent.on("Acme asks").calls("Bash", {"command": "echo acme"}).says("For Acme.")
    scripted_agent.on("Rival asks").says("For Rival.")
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test") as http,
    ):

        async def ask(name: str) -> tuple[str, dict[str, Any]]:
            made = await http.post("/customers", json={"name": name})
            path = f"/customers/{made.json()['_id']}/ask"
            answer = await http.post(path, json={"prompt": f"{name} asks"}, timeout=None)
            return path, answer.json()

        (_, acme), (rival, other) = await asyncio.gather(ask("Acme"), ask("Rival"))
        assert (acme["answer"], other["answer"]) == ("For Acme.", "For Rival.")
        spied = {"prompt": "Rival asks again", "session_id": acme["session_id"]}
        assert (await http.post(rival, json=spied)).status_code == 404
        scripted_agent.on("Rival asks again").says("Still for Rival.")
        spied["session_id"] = other["session_id"]
        said = (await http.post(rival, json=spied, timeout=None)).json()
        assert said["answer"] == "Still for Rival."
    heard = scripted_agent.requests[-1].text
    assert "For Rival." in heard
    assert "Acme" not in heard
    await close_client(client)


def test_a_service_in_a_thread_of_its_own(
    session_store_url: str, session_store_database_name: str, scripted_agent: ScriptedAgent
) -> None:
    scripted_agent.says("For Acme.")
    client = open_client(session_store_url)
    app = create_app(client, scripted_agent.directory, session_store_database_name)
    with TestClient(app) as http:
        path = f"/customers/{http.post('/customers', json={'name': 'Acme'}).json()['_id']}/ask"
        assert http.post(path, json={"prompt": "Who?"}).json()["answer"] == "For Acme."
        assert http.portal is not None
        http.portal.call(close_client, client)


left: dict[str, Any] = {}


def of_the_agent_left() -> list[str]:
    """The commands of processes that ask the model of the test that left one."""
    found: list[str] = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if left["url"].encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_text())
    return found


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.skipif(sys.platform != "linux", reason="looks at processes as Linux shows them")
async def test_an_agent_is_left_with_a_tool(scripted_agent: ScriptedAgent) -> None:
    started = scripted_agent.directory / "started"
    wait = "touch started; while [ -e started ]; do sleep 0.1; done"
    scripted_agent.calls("Bash", {"command": wait})

    async def run() -> None:
        async for _ in query(prompt="Wait", options=scripted_agent.options()):
            pass

    left["task"] = asyncio.create_task(run())
    left["url"] = scripted_agent.env["ANTHROPIC_BASE_URL"]
    while not started.exists():
        assert not left["task"].done(), await left["task"]
        await asyncio.sleep(0.05)
    assert any("claude" in each for each in of_the_agent_left())
    assert any(wait in each for each in of_the_agent_left())


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.skipif(sys.platform != "linux", reason="looks at processes as Linux shows them")
async def test_nothing_of_it_is_there_in_the_next() -> None:
    assert of_the_agent_left() == []
    with pytest.raises(Exception, match=r"-9|137|SIGKILL|terminated"):
        await left["task"]
