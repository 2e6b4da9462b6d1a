"""What the store cannot do it refuses: with its own errors, before anything reaches the server."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import textwrap
import threading
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from datetime import datetime, timezone
from types import SimpleNamespace
from typing import Any

import pytest
from beanie import init_beanie
from bson import Binary, Decimal128, ObjectId
from bson.code import Code
from pymongo.monitoring import CommandFailedEvent, CommandListener, CommandStartedEvent
from pymongo.monitoring import CommandSucceededEvent as Succeeded
from support.database import Databases, bound, prepared
from support.processes import PREPARED
from support.server import connected
from support.watchdog import WATCHDOG_SECONDS

from beanie_session_store import (
    DOCUMENT_MODELS,
    AccessDeniedError,
    BeanieSessionStore,
    ClientClosedError,
    EntryChunk,
    EventLoopError,
    InvalidEntryError,
    InvalidKeyError,
    InvalidMetadataError,
    InvalidModelError,
    InvalidURLError,
    NotInitializedError,
    SchemaOutdatedError,
    SchemaTooNewError,
    SessionStoreError,
    SessionSummary,
    TranscriptEntry,
    UnknownSessionError,
    UnreachableError,
    upgrade_schema,
)
from beanie_session_store.app.database.attempts import Attempts
from beanie_session_store.app.database.driver import Client, Database, open_client

KEY = {"project_key": "-app", "session_id": "11111111-1111-4111-8111-111111111111"}
PASSWORD = "hunter2-Tr0ub4dor"


class Commands(CommandListener):
    """The names of the commands that a client sent."""

    def __init__(self) -> None:
        self.sent: list[str] = []

    def started(self, event: CommandStartedEvent) -> None:
        self.sent.append(event.command_name)

    def succeeded(self, event: Succeeded) -> None:
        pass

    def failed(self, event: CommandFailedEvent) -> None:
        pass


@pytest.fixture
def migrated_name(databases: Databases) -> Iterator[str]:
    with databases.migrated() as name:
        yield name


@pytest.fixture
async def commands(mongo_url: str, migrated_name: str) -> AsyncIterator[Commands]:
    """Records what is sent by the client that the Document classes are bound to."""
    commands = Commands()
    async with connected(mongo_url, event_listeners=[commands]) as client:
        await prepared(client[migrated_name])
        commands.sent.clear()
        yield commands


async def append(store: BeanieSessionStore, key: Any) -> None:
    await store.append(key, [{"type": "user"}])


async def load(store: BeanieSessionStore, key: Any) -> None:
    await store.load(key)


async def stream(store: BeanieSessionStore, key: Any) -> None:
    async for _ in store.stream(key):
        pass


async def delete(store: BeanieSessionStore, key: Any) -> None:
    await store.delete(key)


async def verify(store: BeanieSessionStore, key: Any) -> None:
    with suppress(UnknownSessionError):
        await store.verify(key)


async def repair(store: BeanieSessionStore, key: Any) -> None:
    with suppress(UnknownSessionError):
        await store.repair(key)


async def transcript(store: BeanieSessionStore, key: Any) -> None:
    await store.transcript(key)


async def sessions(store: BeanieSessionStore, key: Any) -> None:
    await store.sessions(project_key=key["project_key"])


async def usage(store: BeanieSessionStore, key: Any) -> None:
    await store.usage(project_key=key["project_key"])


async def tools(store: BeanieSessionStore, key: Any) -> None:
    await store.tools(project_key=key["project_key"])


async def list_subkeys(store: BeanieSessionStore, key: Any) -> None:
    await store.list_subkeys(key)


async def list_sessions(store: BeanieSessionStore, key: Any) -> None:
    await store.list_sessions(key["project_key"])


async def list_session_summaries(store: BeanieSessionStore, key: Any) -> None:
    await store.list_session_summaries(key["project_key"])


Call = Callable[[BeanieSessionStore, Any], Awaitable[None]]
WITH_KEY: list[Call] = [append, load, stream, delete, list_subkeys, transcript, verify, repair]
TENANT_WIDE: list[Call] = [sessions, usage, tools]
WITH_PROJECT: list[Call] = [list_sessions, list_session_summaries, *TENANT_WIDE]
EVERY_METHOD = pytest.mark.parametrize("call", [*WITH_KEY, *WITH_PROJECT], ids=lambda c: c.__name__)


def assert_helpful(error: BaseException) -> None:
    """The message says what happened and what to do."""
    assert isinstance(error, SessionStoreError)
    text = str(error)
    advice = ("Pass ", "Use ", "Leave ", "Give ", "Install ", "Run ", "Call ", "Check ", "must ")
    advice += ("Under trio, run ", "Make ", "Remove ", "Name ", "Set ", "keep ", "Known are ")
    assert any(word in text for word in advice), f"no advice in: {text}"
    assert len(text) < 900


async def assert_refused(
    kind: type[SessionStoreError], work: Callable[[], Awaitable[Any]], what: object
) -> SessionStoreError:
    outcome: BaseException | None = None
    try:
        await work()
    except Exception as error:
        outcome = error
    assert type(outcome) is kind, f"{what!r:.100} gave {outcome!r:.200}"
    return outcome


# Keys

BAD_NAMES: dict[str, Any] = {
    "an operator": {"$ne": None},
    "an empty operator": {},
    "a list": ["a"],
    "None": None,
    "an int": 1,
    "a bool": True,
    "a float": 1.5,
    "bytes": b"a",
    "an ObjectId": ObjectId("0" * 24),
    "a date": datetime(2026, 1, 1, tzinfo=timezone.utc),
    "empty": "",
    "over-long": "a" * 1025,
    "over-long in bytes": "é" * 513,
    "NUL": "a\0b",
    "only NUL": "\0",
    "a lone surrogate": "a\ud83d",
    "two surrogates": "\ud83d\ude00",
    "every one": "*",
}
BAD_KEYS: dict[str, Any] = {
    **{
        f"{field} is {name}": {**KEY, field: value}
        for field in ("project_key", "session_id", "subpath")
        for name, value in BAD_NAMES.items()
        # A subpath of None is none, and a file of a subagent may have any name.
        if not (field == "subpath" and value in (None, "*"))
    },
    "no project_key": {"session_id": "s"},
    "no session_id": {"project_key": "p"},
    "nothing": {},
    "an unknown field": {**KEY, "tenant": "other"},
    "a misspelt subpath": {**KEY, "sub_path": "subagents/agent-a1"},
    "a field that is no string": {**KEY, 1: "x"},
    "None": None,
    "a string": "session",
    "a list": ["p", "s"],
    "pairs": [("project_key", "p"), ("session_id", "s")],
    "an int": 1,
    "an object": SimpleNamespace(**KEY),
}


@pytest.mark.parametrize("call", WITH_KEY, ids=lambda call: call.__name__)
async def test_no_bad_key_reaches_the_server(commands: Commands, call: Call) -> None:
    store = BeanieSessionStore()
    for name, key in BAD_KEYS.items():
        error = await assert_refused(InvalidKeyError, lambda key=key: call(store, key), name)
        assert isinstance(error, ValueError)
        assert "nothing was read or written" in str(error), name
    assert commands.sent == []
    # The listener does see commands.
    await call(store, KEY)
    assert commands.sent != []


@pytest.mark.parametrize("call", WITH_PROJECT, ids=lambda call: call.__name__)
async def test_no_bad_project_reaches_the_server(commands: Commands, call: Call) -> None:
    store = BeanieSessionStore()
    for name, value in BAD_NAMES.items():
        if value is None and call in TENANT_WIDE:
            # It stands for all projects.
            continue
        key = {"project_key": value}
        error = await assert_refused(InvalidKeyError, lambda key=key: call(store, key), name)
        assert "nothing was read or written" in str(error)
    assert commands.sent == []
    await call(store, KEY)
    assert commands.sent != []


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_bad_tenant_is_refused_at_construction(name: str) -> None:
    with pytest.raises(InvalidKeyError, match="tenant"):
        BeanieSessionStore(tenant=BAD_NAMES[name])


@pytest.mark.parametrize("key", BAD_KEYS.values(), ids=BAD_KEYS.keys())
async def test_the_refusal_of_a_key_says_what_to_do(key: Any) -> None:
    with pytest.raises(InvalidKeyError) as raised:
        await BeanieSessionStore().load(key)
    assert_helpful(raised.value)


async def test_a_bad_key_is_refused_by_stream_at_once() -> None:
    # Not only when the first entry is asked for.
    with pytest.raises(InvalidKeyError):
        BeanieSessionStore().stream({"project_key": "p"})


async def test_a_position_that_is_none_is_refused(commands: Commands) -> None:
    afters: list[Any] = ["1", 1.0, True, [], {"$gt": 0}, ObjectId("0" * 24)]
    for after in afters:
        with pytest.raises(InvalidKeyError, match="after must be"):
            BeanieSessionStore().stream(KEY, after=after)
    assert commands.sent == []


@pytest.mark.parametrize("after", [2**63, 2**70, -(2**70), -1])
async def test_an_int_outside_all_positions_fails_with_no_foreign_error(
    store: BeanieSessionStore, after: int
) -> None:
    await store.append(KEY, [{"n": 1}])
    expected = [{"n": 1}] if after < 0 else []
    try:
        found = [entry async for entry in store.stream(KEY, after=after)]
    except InvalidKeyError:
        return
    assert found == expected


async def test_the_longest_names_are_taken(store: BeanieSessionStore) -> None:
    key = {"project_key": "é" * 512, "session_id": "s" * 1024, "subpath": "/" * 1024}
    owner = BeanieSessionStore(tenant="t" * 1024)
    await owner.append(key, [{"n": 1}])
    assert await owner.load(key) == [{"n": 1}]
    assert await owner.list_subkeys(key) == ["/" * 1024]


# Entries

BAD_VALUES: dict[str, Any] = {
    "a date": datetime(2026, 1, 1, tzinfo=timezone.utc),
    "bytes": b"a",
    "an ObjectId": ObjectId("0" * 24),
    "a set": {1},
    "a tuple": (1, 2),
    "Binary": Binary(b"a"),
    "Decimal128": Decimal128("1.5"),
    "an object": SimpleNamespace(a=1),
    "a class": dict,
    "complex": 1j,
}
BAD_OBJECTS: dict[str, Any] = {
    "an int key": {1: "a"},
    "a None key": {None: "a"},
    "a bytes key": {b"a": 1},
    "a tuple key": {("a",): 1},
    **{f"{name}": {"value": value} for name, value in BAD_VALUES.items()},
}


def wrapped(value: Any, levels: int) -> Any:
    for level in range(levels):
        value = [value] if level % 2 else {"k": value}
    return value


async def test_no_entry_that_is_no_json_reaches_the_server(commands: Commands) -> None:
    store = BeanieSessionStore()
    # At every depth at which the store looks in another way.
    for levels in (0, 1, 2, 88, 89, 90, 91, 92, 300):
        for name, bad in BAD_OBJECTS.items():
            batch = [{"n": 1}, {"outer": wrapped(bad, levels)} if levels else bad, {"n": 2}]
            error = await assert_refused(
                InvalidEntryError, lambda batch=batch: store.append(KEY, batch), (name, levels)
            )
            assert "entry 1 of the batch" in str(error)
            assert "nothing of the batch was stored" in str(error)
            assert isinstance(error, ValueError)
    assert commands.sent == []
    assert await store.load(KEY) is None
    assert commands.sent != []


BAD_BATCHES: list[Any] = [
    {"type": "user"},
    {},
    "[]",
    "",
    b"[]",
    None,
    1,
    [None],
    [1],
    ["{}"],
    [[{"type": "user"}]],
    [("type", "user")],
    [{"n": 1}, SimpleNamespace(n=2)],
]


async def test_a_batch_that_is_no_list_of_objects_is_refused(commands: Commands) -> None:
    store = BeanieSessionStore()
    for batch in BAD_BATCHES:
        await assert_refused(InvalidEntryError, lambda batch=batch: store.append(KEY, batch), batch)
    assert commands.sent == []


@pytest.mark.parametrize("entries", [None, [None], [{"date": datetime(2026, 1, 1)}], [{1: 2}]])
async def test_the_refusal_of_an_entry_says_what_to_do(entries: Any) -> None:
    with pytest.raises(InvalidEntryError) as raised:
        await BeanieSessionStore().append(KEY, entries)
    assert_helpful(raised.value)


async def test_javascript_is_no_json_though_it_is_a_string_to_python(
    store: BeanieSessionStore,
) -> None:
    # Stored as what it is, it would come back as something that json.dumps turns into another
    # value; it has to be refused, or to become the string that it looks like.
    try:
        await store.append(KEY, [{"value": Code("return 1")}])
    except InvalidEntryError:
        return
    (entry,) = await store.load(KEY) or []
    assert type(entry["value"]) is str  # type: ignore[typeddict-item]


def test_an_entry_that_holds_itself_is_refused() -> None:
    # In a process of its own, since one that hangs cannot be interrupted.
    script = """
        import asyncio
        from beanie_session_store import BeanieSessionStore, InvalidEntryError

        loop = {"type": "user"}
        loop["self"] = [loop]

        async def main():
            try:
                await BeanieSessionStore().append({"project_key": "p", "session_id": "s"}, [loop])
            except InvalidEntryError:
                print("refused")

        asyncio.run(main())
    """
    command = 'ulimit -v 4000000; exec timeout 600 "$0" -c "$1"'
    done = subprocess.run(
        ["bash", "-c", command, sys.executable, textwrap.dedent(script)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "refused\n", f"exit code {done.returncode}: {done.stderr[-300:]}"


async def test_an_empty_batch_is_no_error_and_needs_no_server(commands: Commands) -> None:
    await BeanieSessionStore().append(KEY, [])
    assert commands.sent == []


# Metadata


@pytest.mark.parametrize(
    "metadata",
    [
        [],
        "a",
        1,
        True,
        b"{}",
        [("user_id", "u1")],
        SimpleNamespace(user_id="u1"),
        *BAD_OBJECTS.values(),
        {"nested": [BAD_OBJECTS]},
    ],
    ids=lambda value: f"{value!r:.30}",
)
def test_metadata_that_is_no_json_object_is_refused(metadata: Any) -> None:
    with pytest.raises(InvalidMetadataError) as raised:
        BeanieSessionStore(metadata=metadata)
    assert_helpful(raised.value)


@pytest.mark.parametrize(
    "metadata",
    [
        {"note": "x" * 65_600},
        {"note": "x" * 17 * 1024 * 1024},
        {"notes": list(range(20_000))},
    ],
    ids=["64 KiB", "17 MiB", "many values"],
)
def test_metadata_beyond_its_limit_is_refused(metadata: Any) -> None:
    with pytest.raises(InvalidMetadataError, match="more than 65536") as raised:
        BeanieSessionStore(metadata=metadata)
    assert_helpful(raised.value)


# Document classes


class NeedsRegion(TranscriptEntry):
    region: str


class NeedsTeam(SessionSummary):
    team: str
    region: str = "eu"


@pytest.mark.parametrize(
    "models",
    [
        {"entries": None},
        {"entries": "TranscriptEntry"},
        {"entries": SessionSummary},
        {"entries": dict},
        {"entries": EntryChunk},
        {"entries": TranscriptEntry.model_construct()},
        {"summaries": None},
        {"summaries": TranscriptEntry},
        {"summaries": object},
    ],
    ids=lambda models: f"{models!r:.40}",
)
def test_a_class_that_is_no_subclass_is_refused(models: Any) -> None:
    with pytest.raises(InvalidModelError, match="subclass") as raised:
        BeanieSessionStore(**models)
    assert isinstance(raised.value, TypeError)
    assert_helpful(raised.value)


@pytest.mark.parametrize(
    ("models", "field"),
    [({"entries": NeedsRegion}, "region"), ({"summaries": NeedsTeam}, "team")],
    ids=["entries", "summaries"],
)
def test_a_field_without_a_default_is_refused(models: Any, field: str) -> None:
    with pytest.raises(InvalidModelError, match=rf"without a default \({field}\)") as raised:
        BeanieSessionStore(**models)
    assert_helpful(raised.value)


# Used before init_beanie


class NeverEntry(TranscriptEntry):
    class Settings(TranscriptEntry.Settings):
        name = "never_entries"


class NeverSummary(SessionSummary):
    class Settings(SessionSummary.Settings):
        name = "never_summaries"


@EVERY_METHOD
async def test_a_subclass_that_was_not_initialised_is_not_taken_for_its_parent(
    commands: Commands, call: Call
) -> None:
    for models, name in (
        ({"entries": NeverEntry}, "NeverEntry"),
        ({"summaries": NeverSummary}, "NeverSummary"),
        ({"entries": NeverEntry, "summaries": NeverSummary}, "NeverEntry"),
    ):
        store = BeanieSessionStore(**models)
        error = await assert_refused(
            NotInitializedError, lambda store=store: call(store, KEY), models
        )
        assert f"{name} was not initialised" in str(error)
        assert f"document_models=[..., {name}]" in str(error)
    assert commands.sent == []


def test_a_store_used_before_init_beanie_says_so() -> None:
    # The classes of this process are initialised by other tests.
    script = """
        import asyncio
        from beanie_session_store import BeanieSessionStore, NotInitializedError

        KEY = {"project_key": "p", "session_id": "s"}

        async def main():
            store = BeanieSessionStore()
            for work in (
                lambda: store.append(KEY, [{"n": 1}]),
                lambda: store.load(KEY),
                lambda: anext(store.stream(KEY)),
                lambda: store.delete(KEY),
                lambda: store.list_subkeys(KEY),
                lambda: store.list_sessions("p"),
                lambda: store.list_session_summaries("p"),
            ):
                try:
                    await work()
                except NotInitializedError as error:
                    print("init_beanie(" in str(error))

        asyncio.run(main())
    """
    done = subprocess.run(
        [PREPARED, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "True\n" * 7, done.stderr[-600:]


async def test_init_beanie_without_the_chunks_is_noticed(
    mongo_url: str, database_name: str
) -> None:
    script = """
        import asyncio, sys
        from beanie import init_beanie
        from beanie_session_store import *
        from beanie_session_store.app.storage.client import open_database

        async def main():
            async with open_database(*sys.argv[1:]) as database:
                await upgrade_schema(database)
                models = [TranscriptEntry, SessionSummary]
                await init_beanie(database=database, document_models=models)
                try:
                    await BeanieSessionStore().load({"project_key": "p", "session_id": "s"})
                except NotInitializedError as error:
                    print(error)

        asyncio.run(main())
    """
    process = await asyncio.create_subprocess_exec(
        PREPARED,
        "-c",
        textwrap.dedent(script),
        mongo_url,
        database_name,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    assert b"EntryChunk was not initialised" in output, errors[-600:]


# Used too late, or in the wrong place


@EVERY_METHOD
async def test_a_closed_client_is_named_as_the_reason(
    mongo_url: str, migrated_name: str, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with connected(mongo_url) as client:
        await prepared(client[migrated_name])
        used, unused = BeanieSessionStore(), BeanieSessionStore()
        await call(used, KEY)
    # At once: there is nothing to wait for.
    monkeypatch.setattr(Attempts, "pause", lambda _: pytest.fail("it was tried again"))
    for store in (used, unused):
        with pytest.raises(ClientClosedError, match="client was closed") as raised:
            await call(store, KEY)
        assert_helpful(raised.value)


async def test_a_store_outlives_its_connect_block_only_to_say_so(
    mongo_url: str, database_name: str
) -> None:
    async with BeanieSessionStore.connect(mongo_url, database=database_name) as store:
        await store.append(KEY, [{"n": 1}])
    with pytest.raises(ClientClosedError):
        await store.load(KEY)


@EVERY_METHOD
def test_without_a_running_asyncio_loop_the_store_says_so(call: Call) -> None:
    # As under trio, which runs coroutines by sending to them as well.
    work = call(BeanieSessionStore(), KEY)
    with pytest.raises(EventLoopError, match="needs asyncio") as raised:
        work.send(None)  # type: ignore[attr-defined]
    assert_helpful(raised.value)


def test_without_a_running_asyncio_loop_connect_and_upgrade_say_so(mongo_url: str) -> None:
    connecting = BeanieSessionStore.connect(mongo_url, database="never").__aenter__()
    with pytest.raises(EventLoopError, match="needs asyncio"):
        connecting.send(None)  # type: ignore[attr-defined]
    client: Client = open_client(mongo_url)
    upgrading = upgrade_schema(client["never"])
    with pytest.raises(EventLoopError, match="needs asyncio"):
        upgrading.send(None)


@EVERY_METHOD
async def test_a_client_of_another_event_loop_is_named_as_the_reason(
    database: Database, call: Call
) -> None:
    used, unused = BeanieSessionStore(), BeanieSessionStore()
    await call(used, KEY)
    failures: list[BaseException] = []

    def elsewhere() -> None:
        for store in (used, unused):
            try:
                asyncio.run(call(store, KEY))  # type: ignore[arg-type]
            except BaseException as error:
                failures.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    await asyncio.to_thread(thread.join)
    assert [type(error) for error in failures] == [EventLoopError, EventLoopError]
    assert "another event loop" in str(failures[0])
    assert_helpful(failures[0])
    # Here it still works.
    await call(used, KEY)


# No usable server


def assert_silent(error: BaseException) -> None:
    """The password is nowhere to be seen, in whatever way an error is printed."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    texts = [*traceback.format_exception(error)]
    for member in chain:
        texts += [str(member), repr(member), repr(member.args), repr(vars(member))]
    for part in (PASSWORD, PASSWORD[:8], PASSWORD[-8:]):
        assert not any(part in text for text in texts)


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that nobody listens on, and nobody else is given meanwhile."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


async def test_an_unreachable_server_is_named_without_its_password(
    closed_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"mongodb://user:{PASSWORD}@127.0.0.1:{closed_port}/db?serverSelectionTimeoutMS=300"
    with pytest.raises(UnreachableError, match=f"127.0.0.1:{closed_port}") as raised:
        async with BeanieSessionStore.connect(url):
            pass
    assert isinstance(raised.value, ConnectionError)
    assert_silent(raised.value)
    assert_helpful(raised.value)
    assert PASSWORD not in caplog.text


async def test_upgrade_names_the_server_that_is_away(closed_port: int) -> None:
    url = f"mongodb://user:{PASSWORD}@127.0.0.1:{closed_port}/?serverSelectionTimeoutMS=100"
    async with connected(url) as client:
        with pytest.raises(UnreachableError, match=f"127.0.0.1:{closed_port}") as raised:
            await upgrade_schema(client["db"])
    assert_silent(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        f"mongodb://user:{PASSWORD}@x@127.0.0.1/db",
        f"mongodb://user:p:{PASSWORD}@127.0.0.1/db",
        f"mongodb://user:a/{PASSWORD}@127.0.0.1:27017/db",
        f"mongodb://user:{PASSWORD}/x@127.0.0.1:27017/db",
        f"mongodb://user:1/{PASSWORD}$@127.0.0.1/db",
        f"mongodb://user:{PASSWORD}%@127.0.0.1/db",
        f"mongodb://user:{PASSWORD}@127.0.0.1:port/db",
        f"mongodb://user:{PASSWORD}@127.0.0.1:99999/db",
        f"mongodb://user:{PASSWORD}@[::1/db",
        f"mongodb://user:{PASSWORD}@127.0.0.1/db?replicaSet",
        f"mongodb://user:{PASSWORD}@127.0.0.1/",
        f"mongodb://user:{PASSWORD}@127.0.0.1/a b",
        f"mongodb://:{PASSWORD}@127.0.0.1/db",
        f"mongodb+srv://user:{PASSWORD}@127.0.0.1/db",
        f"mongodb+srv://user:{PASSWORD}@a.example.org:1/db",
        f"http://user:{PASSWORD}@127.0.0.1/db",
        f"user:{PASSWORD}@127.0.0.1",
        "",
        "mongodb://",
        "mongodb://127.0.0.1",
    ],
)
async def test_a_malformed_url_is_refused_without_repeating_it(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(InvalidURLError) as raised:
        async with BeanieSessionStore.connect(url):
            pass
    assert isinstance(raised.value, ValueError)
    assert_silent(raised.value)
    assert "mongodb://user:password@host:port/database" in str(raised.value)
    assert PASSWORD not in caplog.text


@pytest.mark.parametrize("url", [None, 1, b"mongodb://127.0.0.1/db", ["127.0.0.1"]], ids=repr)
async def test_a_url_that_is_no_string_is_refused(url: Any) -> None:
    with pytest.raises(InvalidURLError, match="must be a string"):
        async with BeanieSessionStore.connect(url):
            pass


@pytest.mark.parametrize("name", ["", "a b", "a/b", "a.b", "$a", 5, ["db"]], ids=repr)
async def test_a_bad_database_name_is_refused(mongo_url: str, name: Any) -> None:
    with pytest.raises(InvalidURLError) as raised:
        async with BeanieSessionStore.connect(mongo_url, database=name):
            pass
    assert_helpful(raised.value)


async def test_an_unknown_srv_host_is_reported_without_the_password() -> None:
    url = f"mongodb+srv://user:{PASSWORD}@nowhere.invalid/db?serverSelectionTimeoutMS=300"
    with pytest.raises(SessionStoreError) as raised:
        async with BeanieSessionStore.connect(url):
            pass
    assert_silent(raised.value)


async def test_a_wrong_password_is_reported_without_it(mongo_url: str) -> None:
    # A server without access control checks the passwords it is given all the same.
    url = mongo_url.replace("mongodb://", f"mongodb://user:{PASSWORD}@")
    with pytest.raises(AccessDeniedError, match=r"127\.0\.0\.1:\d+ denied") as raised:
        async with BeanieSessionStore.connect(url, database="denied"):
            pass
    assert_silent(raised.value)
    assert_helpful(raised.value)


async def test_bad_arguments_of_connect_are_refused_before_a_connection(closed_port: int) -> None:
    url = f"mongodb://127.0.0.1:{closed_port}/db?serverSelectionTimeoutMS=60000"
    for arguments, kind in (
        ({"tenant": ""}, InvalidKeyError),
        ({"metadata": []}, InvalidMetadataError),
        ({"entries": NeedsRegion}, InvalidModelError),
    ):
        connecting = BeanieSessionStore.connect(url, **arguments)
        with pytest.raises(kind):
            await asyncio.wait_for(connecting.__aenter__(), WATCHDOG_SECONDS)


# Not the schema it needs


@pytest.fixture
async def bare_database(mongo_url: str, database_name: str) -> AsyncIterator[Database]:
    """A database on which no migration ran, with Beanie initialised on it all the same."""
    async with connected(mongo_url) as client:
        database = client[database_name]
        await init_beanie(database=database, document_models=DOCUMENT_MODELS, skip_indexes=True)
        yield database


@EVERY_METHOD
async def test_a_database_without_indexes_is_refused(bare_database: Database, call: Call) -> None:
    with pytest.raises(SchemaOutdatedError, match="upgrade_schema") as raised:
        await call(BeanieSessionStore(), KEY)
    assert "nothing was read or written" in str(raised.value)
    assert_helpful(raised.value)
    assert await bare_database.list_collection_names() == []
    # What it names helps.
    await upgrade_schema(bare_database)
    await call(BeanieSessionStore(), KEY)


@pytest.mark.parametrize(
    ("collection", "index"),
    [
        ("claude_transcript_entries", "transcript_order"),
        ("claude_transcript_entries", "transcript_uuid"),
        ("claude_transcript_summaries", "session"),
        ("claude_transcript_chunks", "chunk_order"),
    ],
)
async def test_what_the_refusal_of_a_lost_index_names_brings_it_back(
    mongo_url: str, database: Database, collection: str, index: str
) -> None:
    await database[collection].drop_index(index)
    async with connected(mongo_url) as client:
        models = {"document_models": DOCUMENT_MODELS, "skip_indexes": True}
        again = client[database.name]
        await init_beanie(database=again, **models)
        with pytest.raises(SchemaOutdatedError, match=f"{collection} .*'{index}'") as raised:
            await BeanieSessionStore().load(KEY)
        assert "await upgrade_schema(database)" in str(raised.value)
        await upgrade_schema(again)
        assert await BeanieSessionStore().load(KEY) is None


async def test_an_index_that_is_not_unique_does_not_count(
    mongo_url: str, database: Database
) -> None:
    entries = database["claude_transcript_entries"]
    await entries.drop_index("transcript_order")
    keys = ["tenant", "project_key", "session_id", "subpath", "seq"]
    await entries.create_index(keys, name="transcript_order")
    async with connected(mongo_url) as client:
        await init_beanie(
            database=client[database.name], document_models=DOCUMENT_MODELS, skip_indexes=True
        )
        with pytest.raises(SchemaOutdatedError, match="transcript_order"):
            await BeanieSessionStore().load(KEY)


async def test_a_unique_index_on_every_entry_does_not_stand_for_the_partial_one(
    mongo_url: str, database: Database
) -> None:
    # It would refuse the second entry without a uuid.
    entries = database["claude_transcript_entries"]
    await entries.drop_index("transcript_uuid")
    keys = ["tenant", "project_key", "session_id", "subpath", "uuid"]
    await entries.create_index(keys, name="transcript_uuid", unique=True)
    async with connected(mongo_url) as client:
        await init_beanie(
            database=client[database.name], document_models=DOCUMENT_MODELS, skip_indexes=True
        )
        work = BeanieSessionStore().append(KEY, [{"n": 1}, {"n": 2}])
        # Without the refusal the append would go on for ever.
        with pytest.raises(SchemaOutdatedError, match="transcript_uuid"):
            await asyncio.wait_for(work, WATCHDOG_SECONDS)


@pytest.fixture
async def newer_database(mongo_url: str, database: Database) -> AsyncIterator[Database]:
    """A database that a newer release migrated, seen by a process that comes to it now."""
    log = database["claude_transcript_migrations"]
    newer = {
        "_id": "claude_transcript_entries/29990101000000_future",
        "entries": "claude_transcript_entries",
        "script": "29990101000000_future",
        "applied_at": datetime(2999, 1, 1, tzinfo=timezone.utc),
    }
    await log.insert_one(newer)
    async with connected(mongo_url) as client:
        await bound(client[database.name])
        yield client[database.name]
    await log.delete_one({"_id": newer["_id"]})


@EVERY_METHOD
async def test_a_schema_of_a_newer_release_is_refused(newer_database: Database, call: Call) -> None:
    with pytest.raises(SchemaTooNewError, match="29990101000000_future") as raised:
        await call(BeanieSessionStore(), KEY)
    assert "pip install -U beanie-session-store" in str(raised.value)
    assert await newer_database["claude_transcript_entries"].count_documents({}) == 0


@pytest.mark.parametrize("upgrade", [True, False])
async def test_connect_refuses_a_schema_of_a_newer_release(
    newer_database: Database, mongo_url: str, upgrade: bool
) -> None:
    with pytest.raises(SchemaTooNewError):
        async with BeanieSessionStore.connect(
            mongo_url, database=newer_database.name, upgrade=upgrade
        ):
            pass


async def test_upgrade_refuses_a_schema_of_a_newer_release(newer_database: Database) -> None:
    with pytest.raises(SchemaTooNewError):
        await upgrade_schema(newer_database)


async def test_connect_without_upgrade_leaves_an_empty_database_empty(
    mongo_url: str, database_name: str
) -> None:
    with pytest.raises(SchemaOutdatedError, match="upgrade_schema"):
        async with BeanieSessionStore.connect(mongo_url, database=database_name, upgrade=False):
            pass
    async with connected(mongo_url) as client:
        assert await client[database_name].list_collection_names() == []
    # With an upgrade in between it is taken.
    async with BeanieSessionStore.connect(mongo_url, database=database_name) as store:
        await store.append(KEY, [{"n": 1}])
    async with BeanieSessionStore.connect(
        mongo_url, database=database_name, upgrade=False
    ) as store:
        assert await store.load(KEY) == [{"n": 1}]


# What the server refuses


async def test_a_refusal_of_the_server_says_why_and_repeats_no_entry(
    database: Database, store: BeanieSessionStore
) -> None:
    await store.append(KEY, [{"n": 1}])
    # A rule of the operator's own that the entry breaks.
    await database.command(
        "collMod", "claude_transcript_entries", validator={"entry.secret": {"$exists": False}}
    )
    secret = "the text of the transcript"
    with pytest.raises(SessionStoreError) as raised:
        await store.append(KEY, [{"secret": secret}])
    assert "Document failed validation" in str(raised.value)
    assert secret not in str(raised.value)
    # An entry may be of any size, and a log is no place for it.
    assert secret not in "".join(traceback.format_exception(raised.value))
    assert await store.load(KEY) == [{"n": 1}]
