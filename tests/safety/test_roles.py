"""The roles in docs/operating.md are enough, and of no privilege too many."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from beanie import init_beanie
from bson import ObjectId
from claude_agent_sdk import (
    fork_session_via_store,
    project_key_for_directory,
    rename_session_via_store,
    tag_session_via_store,
)
from pymongo import MongoClient
from pymongo.errors import OperationFailure
from support.database import forget_servers, prepared
from support.entries import message
from support.secured import SecuredServer

from beanie_session_store import (
    DOCUMENT_MODELS,
    AccessDeniedError,
    AuditUnavailableError,
    BeanieSessionStore,
    NewSession,
    SessionSummary,
    TranscriptEntry,
    clear_retention,
    diagnose,
    disable_search,
    downgrade_schema,
    enable_search,
    retention_policies,
    schema_status,
    set_retention,
    sweep_sessions,
    upgrade_schema,
    verify_audit,
    verify_sessions,
)
from beanie_session_store.app.budgets import budget_watch
from beanie_session_store.app.database.collection_names import PASSED_BUDGETS
from beanie_session_store.app.database.driver import Database, close_client, open_client
from beanie_session_store.app.schema.lock import LOCK_ID
from beanie_session_store.app.schema.versions import MINIMUM_SCRIPT
from beanie_session_store.app.storage import codec
from beanie_session_store.migrations._log import LOG_COLLECTION

DOCUMENT = Path(__file__).parents[2] / "docs" / "operating.md"
CREATED = r"db\.createRole\((\{.*?\n\})\)"
ROLES: dict[str, list[dict[str, Any]]] = {
    role["role"]: role["privileges"]
    for role in map(json.loads, re.findall(CREATED, DOCUMENT.read_text(), re.DOTALL))
}
NAME = "app"
PROJECT = project_key_for_directory(None)
KEY: Any = {"project_key": PROJECT, "session_id": "large"}

Step = Callable[[Database], Awaitable[Any]]

pytestmark = pytest.mark.usefixtures("quick_policies")


async def run_store(database: Database) -> None:
    """Whatever an application does with a store."""
    await init_beanie(database=database, document_models=DOCUMENT_MODELS, skip_indexes=True)
    store = BeanieSessionStore(metadata={"user_id": "u1"})
    session = str(uuid.uuid4())
    key: Any = {"project_key": PROJECT, "session_id": session}
    text = message(type="user", message={"role": "user", "content": "hello"})
    text |= {"sessionId": session, "timestamp": "2026-03-01T10:00:00.000Z"}
    await store.append(key, [text])
    await store.append({**key, "subpath": "subagents/agent-a1"}, [message()])
    async with aclosing(store.watch(key)) as entries:
        await anext(entries)
        coming = asyncio.ensure_future(anext(entries))
        try:
            await store.append(key, [text | {"uuid": str(uuid.uuid4())}])
            await coming
        finally:
            # What is being asked for the next entry cannot be closed.
            coming.cancel()
            await asyncio.wait([coming])
    assert len(await store.load(key) or []) == 2
    assert await store.list_sessions(PROJECT)
    assert await store.list_session_summaries(PROJECT)
    assert await store.list_subkeys(key)
    assert (await store.sessions(title="hello")).sessions
    assert [each async for each in store.stream(key, with_subagents=True)]
    assert [each async for each in store.all_sessions()]
    assert (await store.session_named(session)).session_id == session
    await store.usage()
    await store.tools()
    assert await store.transcript(key)
    assert await store.summary(key)
    await store.set_metadata(key, {"user_id": "u1", "plan": "free"})
    await rename_session_via_store(store, session, "title")
    await tag_session_via_store(store, session, "tag")
    fork = await fork_session_via_store(store, session)
    await store.hold(key)
    await store.release(key)
    assert (await store.verify(key)).is_sound
    assert (await verify_sessions(store, store.all_sessions(), repair=True)).unsound == 0
    await store.insert_sessions([NewSession(PROJECT, "new", None, {"": [message()]})])
    replay = await store.replay({**key, "session_id": "replayed"})
    await replay.add([message()])
    held: Any = {**key, "session_id": "held"}
    async with store.lease(held, owner="host-7") as leased:
        assert await store.lease_of(held) == leased.lease
        await leased.append(held, [message()])
    assert await SessionSummary.find({"tenant": "default"}).count()
    assert await TranscriptEntry.find({"tenant": "default"}).count()
    assert await retention_policies(database)
    await store.delete({**key, "subpath": "subagents/agent-a1"})
    await store.delete({**key, "session_id": fork.session_id})
    await store.delete_sessions(metadata={"user_id": "u1"})
    await store.append({**key, "session_id": str(uuid.uuid4())}, [message()])
    await store.erase(metadata={"user_id": "u1"}, dry_run=True)
    receipt = await store.erase(metadata={"user_id": "u1"})
    assert (await store.verify_erasure(receipt)).holds
    assert await budget_watch._is_first(
        database[PASSED_BUDGETS], "mark", datetime.now(timezone.utc), ObjectId()
    )
    await database[PASSED_BUDGETS].delete_one({"_id": "mark"})
    audited = BeanieSessionStore(audit=True, actor="role")
    await audited.recorded("look", key)
    assert (await verify_audit(database)).holds
    await sweep_sessions(database)


async def run_large(database: Database) -> None:
    """An entry that exceeds a document, for which nothing else is needed."""
    await init_beanie(database=database, document_models=DOCUMENT_MODELS, skip_indexes=True)
    store = BeanieSessionStore()
    # What compression makes no smaller.
    noise = os.urandom(codec.MAX_VALUE_BYTES)
    large = message(type="system", content=base64.b64encode(noise).decode())
    await store.append(KEY, [large])
    assert await store.load(KEY) == [large]
    await store.hold(KEY, wait=True)
    await store.release(KEY, wait=True)
    await store.delete(KEY, wait=True)


async def deploy(database: Database) -> None:
    """What a deploy job and an operator do."""
    await upgrade_schema(database)
    # Else the next one would wait until it is taken for that of a process that died.
    assert await database[LOG_COLLECTION].find_one({"_id": LOCK_ID}) is None
    assert not (await schema_status(database)).pending
    await upgrade_schema(database)
    await init_beanie(database=database, document_models=DOCUMENT_MODELS)
    await set_retention(database, timedelta(days=30))
    await set_retention(database, timedelta(days=3), tenant="acme")
    assert await retention_policies(database)
    await clear_retention(database)
    await enable_search(database)
    await disable_search(database)
    found = await diagnose(database)
    assert [each.check for each in found.findings if each.verdict == "bad"] == ["permissions"]
    await downgrade_schema(database, to=MINIMUM_SCRIPT)


class Server:
    """A user with a role that changes, and the database that it is for."""

    def __init__(self, secured: SecuredServer) -> None:
        self.admin = MongoClient[dict[str, Any]](secured.url())
        _, self.url = secured.user(privileges=ROLES["sessionStore"])
        self.role = self.url.partition("//")[2].partition(":")[0]

    def allow(self, privileges: list[dict[str, Any]]) -> None:
        self.admin.admin.command("updateRole", self.role, privileges=privileges)

    @asynccontextmanager
    async def database(self, url: str | None = None) -> AsyncIterator[Database]:
        # Whichever user found it.
        forget_servers()
        client = open_client(url or self.url)
        try:
            yield client[NAME]
        finally:
            await close_client(client)


@pytest.fixture(scope="module")
def server(secured: SecuredServer) -> Iterator[Server]:
    server = Server(secured)
    yield server
    server.admin.drop_database(NAME)
    server.admin.close()


@pytest.fixture
async def migrated(server: Server, secured: SecuredServer, quick_policies: None) -> None:
    server.admin.drop_database(NAME)
    async with server.database(secured.url()) as database:
        await prepared(database)
        # With dates on what is stored, as most have.
        await set_retention(database, timedelta(days=30))


def without_one(privileges: list[dict[str, Any]]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The privileges without each of them, and its name."""
    for place, privilege in enumerate(privileges):
        for action in privilege["actions"]:
            left = [each for each in privilege["actions"] if each != action]
            fewer = [{**privilege, "actions": left}] if left else []
            others = privileges[:place] + fewer + privileges[place + 1 :]
            yield f"{action} on {privilege['resource']['collection']}", others


async def fails(server: Server, *steps: Step) -> bool:
    for step in steps:
        async with server.database() as database:
            try:
                await step(database)
            except AssertionError:
                return True
            except (AccessDeniedError, AuditUnavailableError, OperationFailure) as error:
                denied = 13
                if isinstance(error, AuditUnavailableError):
                    error = error.__cause__
                if isinstance(error, OperationFailure) and error.code != denied:
                    raise
                return True
    return False


@pytest.mark.parametrize("step", [run_store, run_large])
async def test_the_role_for_running_is_enough(
    server: Server, migrated: None, smaller_limits: int, step: Step
) -> None:
    server.allow(ROLES["sessionStore"])
    async with server.database() as database:
        await step(database)


async def in_use(server: Server, secured: SecuredServer) -> None:
    """A database of the release before, with sessions."""
    server.admin.drop_database(NAME)
    async with server.database(secured.url()) as database:
        await prepared(database)
        await BeanieSessionStore().append(KEY, [message()])
        await downgrade_schema(database, to=MINIMUM_SCRIPT)


@pytest.mark.parametrize("is_new", [True, False])
async def test_the_role_for_deploying_is_enough(
    server: Server, secured: SecuredServer, is_new: bool
) -> None:
    await in_use(server, secured)
    if is_new:
        server.admin.drop_database(NAME)
    server.allow(ROLES["sessionStoreDeploy"])
    async with server.database() as database:
        await deploy(database)


async def test_the_role_for_running_has_nothing_that_is_not_needed(
    server: Server, migrated: None, smaller_limits: int
) -> None:
    idle: list[str] = []
    for name, privileges in without_one(ROLES["sessionStore"]):
        server.allow(privileges)
        steps = (run_store, run_large) if "chunks" in name else (run_store,)
        if not await fails(server, *steps):
            idle.append(name)
    assert not idle, ", ".join(idle)


@pytest.mark.soak
async def test_the_role_for_deploying_has_nothing_that_is_not_needed(
    server: Server, secured: SecuredServer
) -> None:
    idle: list[str] = []
    for name, privileges in without_one(ROLES["sessionStoreDeploy"]):
        if "createCollection" in name:
            server.admin.drop_database(NAME)
        else:
            await in_use(server, secured)
        server.allow(privileges)
        if not await fails(server, deploy):
            idle.append(name)
    assert not idle, ", ".join(idle)
