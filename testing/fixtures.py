"""The fixtures of the plugin, and the hook that tells of a script that was not kept to.

PYTEST_DONT_REWRITE: there are no assertions in it.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from ..app.concurrency.cancellation import settled
from ..app.database.driver import Database, bind_models, close_client, open_client
from ..app.embedded.mongo import EmbeddedMongo
from ..app.errors import MongodNotFoundError, MongodStartError, SessionStoreError
from ..app.store import BeanieSessionStore
from ..app.text import shown
from ..models import DOCUMENT_MODELS
from .databases import Documents, Isolation, StoreClasses, WorkerDatabases
from .scripted_agent import ScriptedAgent, surroundings

_AGENT = pytest.StashKey[ScriptedAgent]()
_LOOP_SCOPES = ("function", "class", "module", "package", "session")


# To override


@pytest.fixture(scope="session")
def session_store_url() -> Iterator[str]:
    """The MongoDB server: the one that SESSION_STORE_MONGODB_URL names, else one of our own.

    A replica set per test process, so per worker of pytest-xdist, that ends with it.
    """
    if given := os.environ.get("SESSION_STORE_MONGODB_URL"):
        yield given
        return
    mongo = EmbeddedMongo()
    try:
        mongo.start()
    except (MongodNotFoundError, MongodStartError) as error:
        raise _failure(f"The tests need a MongoDB server: {error}") from None
    try:
        yield mongo.url
    finally:
        mongo.stop()


@pytest.fixture(scope="session")
def session_store_documents() -> Documents:
    """The Document classes of the application, as ``init_beanie`` takes them.

    Those of the store's that are not among them, nor subclasses of them, are added; a subclass
    of ``TranscriptEntry`` or ``SessionSummary`` is what ``session_store`` works with.
    """
    return DOCUMENT_MODELS


@pytest.fixture(scope="session")
def session_store_isolation() -> Isolation:
    """What a test has to itself: ``"tenant"`` or ``"database"``.

    ``"tenant"`` is a tenant of its own in the database of the process, which is emptied after
    each test; ``"database"`` a database that is made for it and dropped, as a test needs that
    changes the schema.
    """
    return "tenant"


@pytest.fixture
def session_store_tenant() -> str:
    """The tenant of ``session_store``, another one for each test."""
    return f"test-{uuid.uuid4().hex[:16]}"


# To use


@pytest.fixture
def session_store_database_name(
    _session_store_databases: WorkerDatabases,
    session_store_documents: Documents,
    session_store_isolation: Isolation,
) -> Iterator[str]:
    """The name of a migrated database without any documents, of the test's own."""
    databases = _session_store_databases
    ways = {"tenant": databases.shared, "database": databases.fresh}
    if session_store_isolation not in ways:
        raise _failure(
            'session_store_isolation must return "tenant" or "database", not '
            f"{shown(session_store_isolation)}."
        )
    try:
        classes = StoreClasses.of(session_store_documents)
    except (TypeError, ValueError) as error:
        raise _failure(str(error)) from None
    with ExitStack() as stack:
        try:
            name = stack.enter_context(ways[session_store_isolation](classes))
        except SessionStoreError as error:
            raise _failure(f"There is no database for the test: {error}") from None
        yield name


@pytest.fixture
def session_store_database(request: pytest.FixtureRequest) -> Database:
    """That database, on a client of the test's event loop, with ``init_beanie`` called on it."""
    if "anyio_backend" in request.fixturenames:
        return request.getfixturevalue("_session_store_database_of_anyio")
    if not request.config.pluginmanager.hasplugin("asyncio"):
        raise _failure(
            "session_store and session_store_database need an event loop, and pytest-asyncio is "
            "not there. Install it with `pip install 'beanie-session-store[testing]'`, or mark "
            "the test with pytest.mark.anyio."
        )
    return request.getfixturevalue(f"_session_store_database_in_{_loop_scope(request)}_loop")


@pytest.fixture
def session_store(
    session_store_database: Database,
    session_store_tenant: str,
    session_store_documents: Documents,
) -> BeanieSessionStore:
    """A store of ``session_store_tenant``."""
    classes = StoreClasses.of(session_store_documents)
    return BeanieSessionStore.on(
        session_store_database,
        tenant=session_store_tenant,
        entries=classes.entries,
        summaries=classes.summaries,
    )


@pytest.fixture
def scripted_agent(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ScriptedAgent]:
    """The real agent, offline: every agent that the test starts asks a model of the test's own.

    Until the test is over, the environment of this process makes agents do so, has an empty home
    and no credentials.
    """
    agent = ScriptedAgent(tmp_path / "scripted-agent")
    request.node.stash[_AGENT] = agent
    with agent.running(), surroundings(agent.env):
        yield agent


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Fail a test whose agent did not keep to the script, and tell what it did if it fails."""
    try:
        outcome = yield
    except (Exception, pytest.fail.Exception):
        if agent := item.stash.get(_AGENT, None):
            told = agent.problem() or agent.account()
            item.add_report_section("call", "scripted agent", told)
        raise
    if (agent := item.stash.get(_AGENT, None)) and (problem := agent.problem()):
        raise _failure(problem)
    return outcome


# Behind them


def _failure(reason: str) -> BaseException:
    """What fails a test and shows the reason alone, without the lines of code that found it."""
    return pytest.fail.Exception(reason, pytrace=False)


@pytest.fixture(scope="session")
def _session_store_databases(session_store_url: str) -> Iterator[WorkerDatabases]:
    databases = WorkerDatabases(session_store_url)
    try:
        yield databases
    finally:
        databases.close()


def _opening() -> Callable[..., AsyncGenerator[Database]]:
    # A function for each fixture that is made of it, for pytest-asyncio marks the function.
    async def opened(
        session_store_url: str,
        session_store_database_name: str,
        session_store_documents: Documents,
    ) -> AsyncGenerator[Database]:
        client = open_client(session_store_url)
        try:
            database = client[session_store_database_name]
            await bind_models(database, StoreClasses.of(session_store_documents).documents)
            yield database
        finally:
            await settled()
            await close_client(client)

    return opened


_session_store_database_of_anyio = pytest.fixture(name="_session_store_database_of_anyio")(
    _opening()
)

try:
    import pytest_asyncio
except ModuleNotFoundError:
    pass
else:
    # The client must be of the loop that the test runs in, whichever that is.
    for _scope in _LOOP_SCOPES:
        _name = f"_session_store_database_in_{_scope}_loop"
        globals()[_name] = pytest_asyncio.fixture(name=_name, loop_scope=_scope)(_opening())


def _loop_scope(request: pytest.FixtureRequest) -> str:
    """The scope of the event loop that pytest-asyncio runs the test in."""
    marker = request.node.get_closest_marker("asyncio")
    given: Any = marker and (marker.kwargs.get("loop_scope") or marker.kwargs.get("scope"))
    with suppress(ValueError):  # Before pytest-asyncio had it.
        given = given or request.config.getini("asyncio_default_test_loop_scope")
    return given if given in _LOOP_SCOPES else "function"
