"""Whatever is given to a public method, it answers or says what is wrong in words of ours."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from beanie import init_beanie
from bson import Decimal128, ObjectId, Regex
from bson.errors import InvalidDocument
from hypothesis import given, settings
from hypothesis import strategies as st
from support.entries import KEY, turn
from support.server import connected

from beanie_session_store import (
    DOCUMENT_MODELS,
    BeanieSessionStore,
    EmbeddedMongo,
    InvalidMetadataError,
    InvalidQueryError,
    NewSession,
    SessionStoreError,
    SessionSummary,
    SlowQueryError,
    TransferError,
    adopt,
    clear_retention,
    copy_sessions,
    downgrade_schema,
    enable_search,
    export_transcripts,
    import_transcripts,
    set_retention,
    upgrade_schema,
    verify_sessions,
)
from beanie_session_store.app.database import failures
from beanie_session_store.app.database.driver import Database

LONG = 40_000
HUGE = 20 * 1024 * 1024
TEXTS = st.one_of(
    st.text(max_size=8),
    st.text(st.characters(codec=None), max_size=4),
    st.sampled_from(
        [
            *("", " ", "\0", "*", "$ne", "a.b", "(a+)+$", "((((", "\\", "\ud83d", "a\udfff", "day"),
            *(
                "x" * LONG,
                "é" * LONG,
                "metadata.",
                "metadata.$x",
                "metadata.a.b",
                "metadata.\ud83d",
            ),
            *(
                "metadata." + "x" * LONG,
                "mongodb://",
                "/dev/null/x",
                "\u202e",
                "\x1b[2J",
                "~nobody",
            ),
        ]
    ),
)
NUMBERS = st.one_of(
    st.integers(),
    st.floats(),
    st.sampled_from([2**31, 2**53, 2**63 - 1, 2**63, -(2**63) - 1, 2**70, True, False]),
    # Without a representation, so the strategy must not show them.
    st.just(None).map(lambda _: 10**5000),
)
EDGES = [
    datetime.min,
    datetime.max,
    datetime.min.replace(tzinfo=timezone(timedelta(hours=14))),
    datetime.max.replace(tzinfo=timezone(timedelta(hours=-14))),
    datetime.min.replace(tzinfo=timezone.utc),
    datetime.max.replace(tzinfo=timezone.utc),
    datetime(1970, 1, 1, tzinfo=timezone.utc),
    date.min,
    date.max,
    date(1970, 1, 1),
    timedelta.min,
    timedelta.max,
    timedelta(0),
    timedelta(seconds=0.5),
]


class Nasty:
    is_shown = False
    """Whether it is a failing test that asks."""

    def __repr__(self) -> str:
        if self.is_shown:
            return "Nasty()"
        raise RuntimeError("no representation")


ODD = st.sampled_from(
    [
        *(None, (), [], {}, set(), {1, 2}, frozenset(), b"", b"x", bytearray(b"x"), object, Nasty),
        *(range(3), 1j, Decimal("NaN"), Fraction(1, 3), ObjectId("0" * 24), ...),
        *(Decimal128("NaN"), Regex("("), re.compile("(a+)+$"), Path("x"), Path("/dev/null")),
        *(lambda: None, math, EDGES, {"$ne": None}, {"$where": "1"}, {1: 2}, {"a": {1}}, [[[[]]]]),
        *(NewSession("p", "s", None, {}), NewSession("p", "s", 2**70, {"": [{}]})),
        *(NewSession(None, 1, "x", []), NewSession("p", "s", 1, {"": [1]})),  # type: ignore[arg-type]
    ]
) | st.just(None).map(lambda _: Nasty())
SCALARS = st.one_of(TEXTS, NUMBERS, st.sampled_from(EDGES), ODD)
ANYTHING = st.one_of(
    SCALARS,
    st.recursive(
        SCALARS,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.dictionaries(st.one_of(TEXTS, NUMBERS), inner, max_size=3),
            st.tuples(inner),
        ),
        max_leaves=4,
    ),
)
DICTS = st.dictionaries(TEXTS, ANYTHING, max_size=2)
KEYS = st.one_of(
    ANYTHING,
    st.fixed_dictionaries(
        {"project_key": ANYTHING, "session_id": ANYTHING}, optional={"subpath": ANYTHING}
    ),
    st.just(KEY),
)

Call = Callable[..., Awaitable[Any]]


async def all_of(found: AsyncIterator[Any]) -> list[Any]:
    return [each async for each in found]


async def first_of(found: AsyncIterator[Any]) -> None:
    # It goes on for ever.
    with suppress(asyncio.TimeoutError, StopAsyncIteration):
        await asyncio.wait_for(anext(found), 0.02)
    await found.aclose()  # type: ignore[attr-defined]


async def replayed(store: BeanieSessionStore, key: Any, values: Any) -> None:
    replay = await store.replay(key, mtime=values[0], metadata=values[1])
    await replay.add(values[2], values[3])


async def held(store: BeanieSessionStore, key: Any, values: Any) -> None:
    owner, ttl, wait, on_lost = values
    async with store.lease(key, owner=owner, ttl=ttl, wait=wait, on_lost=on_lost) as leased:
        await leased.append(key, [])


async def told_metadata(store: BeanieSessionStore, values: Any) -> None:
    replay = await store.replay({**KEY, "session_id": "other"})  # type: ignore[typeddict-item]
    await replay.add_metadata(*values)


FILTER = st.fixed_dictionaries(
    {},
    optional={
        name: st.one_of(ANYTHING, DICTS)
        for name in ("project_key", "tag", "branch", "metadata", "since", "until")
    },
)
CRITERIA = st.lists(st.one_of(DICTS, ANYTHING), max_size=1)
FOUR = st.tuples(ANYTHING, ANYTHING, ANYTHING, ANYTHING)

METHODS: dict[str, tuple[st.SearchStrategy[Any], Call]] = {
    "append": (st.tuples(KEYS, ANYTHING), lambda s, a: s.append(*a)),
    "append entries": (st.lists(DICTS, max_size=2), lambda s, a: s.append(KEY, a)),
    "load": (KEYS, lambda s, a: s.load(a)),
    "stream": (st.tuples(KEYS, ANYTHING), lambda s, a: all_of(s.stream(*a))),
    "watch": (st.tuples(KEYS, ANYTHING), lambda s, a: first_of(s.watch(*a))),
    "transcript": (KEYS, lambda s, a: s.transcript(a)),
    "agent_metadata": (KEYS, lambda s, a: s.agent_metadata(a)),
    "summary": (KEYS, lambda s, a: s.summary(a)),
    "delete": (KEYS.filter(lambda key: key is not KEY), lambda s, a: s.delete(a)),
    "hold": (KEYS, lambda s, a: s.hold(a)),
    "release": (KEYS, lambda s, a: s.release(a)),
    "verify": (KEYS, lambda s, a: s.verify(a)),
    "repair": (KEYS, lambda s, a: s.repair(a)),
    "lease": (st.tuples(KEYS, FOUR), lambda s, a: held(s, *a)),
    "lease owner": (
        TEXTS,
        lambda s, a: held(s, KEY, (a, timedelta(seconds=30), timedelta.max, print)),
    ),
    "lease_of": (KEYS, lambda s, a: s.lease_of(a)),
    "break_lease": (KEYS, lambda s, a: s.break_lease(a)),
    "list_subkeys": (KEYS, lambda s, a: s.list_subkeys(a)),
    "list_sessions": (ANYTHING, lambda s, a: s.list_sessions(a)),
    "list_session_summaries": (ANYTHING, lambda s, a: s.list_session_summaries(a)),
    "all_sessions": (
        st.tuples(ANYTHING, ANYTHING),
        lambda s, a: all_of(s.all_sessions(*a)),
    ),
    "session_named": (st.tuples(ANYTHING, ANYTHING), lambda s, a: s.session_named(*a)),
    "replay": (st.tuples(KEYS, FOUR), lambda s, a: replayed(s, *a)),
    "add_metadata": (st.tuples(ANYTHING, ANYTHING), told_metadata),
    "insert_sessions": (
        st.one_of(
            ANYTHING,
            st.builds(NewSession, ANYTHING, ANYTHING, ANYTHING, ANYTHING).map(lambda each: [each]),
            st.builds(
                NewSession, st.just("p"), TEXTS, NUMBERS, st.dictionaries(TEXTS, ANYTHING)
            ).map(lambda each: [each]),
        ),
        lambda s, a: s.insert_sessions(a),
    ),
    "sessions": (
        st.tuples(CRITERIA, FILTER, ANYTHING, ANYTHING, ANYTHING),
        lambda s, a: s.sessions(*a[0], **a[1], title=a[2], limit=a[3], after=a[4]),
    ),
    "sessions by metadata": (DICTS, lambda s, a: s.sessions(metadata=a)),
    "sessions by criterion": (DICTS, lambda s, a: s.sessions(a)),
    "sessions by title": (TEXTS, lambda s, a: s.sessions(title=a)),
    "sessions since": (st.sampled_from(EDGES), lambda s, a: s.sessions(since=a, until=a)),
    "usage": (
        st.tuples(CRITERIA, FILTER, ANYTHING),
        lambda s, a: s.usage(*a[0], **a[1], by=a[2]),
    ),
    "usage by": (st.one_of(TEXTS, st.lists(TEXTS)), lambda s, a: s.usage(by=a)),
    "usage since": (st.sampled_from(EDGES), lambda s, a: s.usage(since=a, until=a)),
    "tools": (st.tuples(CRITERIA, FILTER), lambda s, a: s.tools(*a[0], **a[1])),
    "tools by metadata": (DICTS, lambda s, a: s.tools(metadata=a)),
    "search": (
        st.tuples(ANYTHING, ANYTHING, ANYTHING),
        lambda s, a: s.search(a[0], project_key=a[1], limit=a[2]),
    ),
    "search for": (TEXTS, lambda s, a: s.search(a)),
}


@pytest.fixture(scope="module")
def database_of_all(mongo_url: str) -> Any:
    """The name of a database with a session in it, and a text index."""

    async def prepare() -> None:
        async with BeanieSessionStore.connect(mongo_url, database=NAME) as store:
            async with connected(mongo_url) as client:
                await enable_search(client[NAME])
            await store.append(KEY, turn(1))

    asyncio.run(prepare())
    return NAME


NAME = "test_any_argument"


def attempted(mongo_url: str, method: Call, strategy: st.SearchStrategy[Any], tries: int) -> None:
    """Every example in one event loop, for the driver binds its client to one."""
    loop = asyncio.new_event_loop()

    def run(work: Callable[[], Awaitable[Any]]) -> Any:
        async def made() -> Any:
            return await work()

        return loop.run_until_complete(made())

    opened = connected(mongo_url)
    client = run(opened.__aenter__)
    store = BeanieSessionStore()

    @settings(max_examples=tries, database=None)
    @given(strategy)
    def attempt(values: Any) -> None:
        try:
            run(lambda: method(store, values))
        except SessionStoreError:
            pass
        except BaseException:
            Nasty.is_shown = True
            raise

    Nasty.is_shown = False
    try:
        run(lambda: init_beanie(database=client[NAME], document_models=DOCUMENT_MODELS))
        attempt()
    finally:
        run(lambda: opened.__aexit__(None, None, None))
        loop.close()


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("tries", [10, pytest.param(100, marks=pytest.mark.soak)])
def test_a_method_of_the_store(mongo_url: str, database_of_all: str, name: str, tries: int) -> None:
    strategy, method = METHODS[name]
    attempted(mongo_url, method, strategy, tries)


FUNCTIONS: dict[str, tuple[st.SearchStrategy[Any], Call]] = {
    "set_retention": (
        st.tuples(ANYTHING, ANYTHING, ANYTHING).filter(lambda a: a[0] is not None),
        lambda s, a: set_retention(_database(), a[0], tenant=a[1], project_key=a[2]),
    ),
    "clear_retention": (
        st.tuples(ANYTHING, st.sampled_from(["*", "", None, 1])),
        lambda s, a: clear_retention(_database(), tenant=a[0], project_key=a[1]),
    ),
    "verify_sessions": (
        ANYTHING,
        lambda s, a: verify_sessions(s, s.all_sessions(), workers=a),
    ),
    "import_transcripts": (
        st.tuples(st.one_of(ANYTHING, TEXTS).filter(lambda a: a != "."), ANYTHING),
        lambda s, a: import_transcripts(s, a[0], workers=a[1]),
    ),
    "copy_sessions": (
        st.tuples(ANYTHING, ANYTHING, ANYTHING),
        lambda s, a: copy_sessions(s, s, projects=a[0], session_id=a[1], workers=a[2]),
    ),
    "adopt": (
        st.tuples(ANYTHING, ANYTHING, ANYTHING, ANYTHING, ANYTHING),
        lambda s, a: adopt(
            _database(),
            tenant=a[0],
            source=a[1],
            projects=a[2],
            metadata=a[3],
            workers=a[4],
            dry_run=True,
        ),
    ),
    "upgrade_schema": (ANYTHING, lambda s, a: upgrade_schema(_database(), to=a, dry_run=True)),
    "downgrade_schema": (
        st.tuples(ANYTHING, ANYTHING),
        lambda s, a: downgrade_schema(_database(), steps=a[0], to=a[1], dry_run=True),
    ),
}


def _database() -> Database:
    settings: Any = SessionSummary.get_settings()
    collection = getattr(settings, "pymongo_collection", None)
    return (collection if collection is not None else settings.motor_collection).database


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function(
    mongo_url: str, database_of_all: str, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # A path that is none of ours may be there.
    monkeypatch.chdir(tmp_path)
    for module in ("storage.expiry", "retention.policies"):
        monkeypatch.setattr(f"beanie_session_store.app.{module}.CACHE_SECONDS", 0.0)
    strategy, function = FUNCTIONS[name]

    async def call(store: BeanieSessionStore, values: Any) -> None:
        # The file system's own refusals are documented.
        with suppress(OSError):
            await function(store, values)

    attempted(mongo_url, call, strategy, 25)


def test_an_export(mongo_url: str, database_of_all: str, tmp_path: Path) -> None:
    options = st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(("project_key", "session_id", "format", "workers"), ANYTHING),
    )
    # A target that is a text would be made.
    targets = ANYTHING.filter(lambda a: not isinstance(a, (str, Path))) | TEXTS.map(
        lambda text: f"{tmp_path}/{text}"
    )

    async def call(store: BeanieSessionStore, values: Any) -> None:
        with suppress(OSError):
            await export_transcripts(store, values[0], **values[1])

    attempted(mongo_url, call, st.tuples(targets, options), 60)


@pytest.mark.parametrize("name", ["half an emoji \ud83d", "zero \0"])
async def test_a_path_that_no_file_can_have(
    store: BeanieSessionStore, tmp_path: Path, name: str
) -> None:
    await store.append({"project_key": "p", "session_id": "s"}, [{"type": "user", "uuid": "1"}])
    for given_as in (f"{tmp_path}/{name}", tmp_path / name):
        with pytest.raises(TransferError, match="must be a path"):
            await export_transcripts(store, given_as)
        with pytest.raises(TransferError, match="must be a path"):
            await import_transcripts(store, given_as)
        for place in ("directory", "mongod"):
            with pytest.raises(ValueError, match="must be a path"):
                EmbeddedMongo(**{place: given_as})
    assert not list(tmp_path.iterdir())


@given(ANYTHING, st.one_of(ANYTHING, DICTS))
def test_the_constructor(tenant: Any, metadata: Any) -> None:
    with suppress(SessionStoreError):
        BeanieSessionStore(tenant=tenant, metadata=metadata)
    with suppress(SessionStoreError):
        BeanieSessionStore(metadata=metadata)
    with suppress(SessionStoreError):
        BeanieSessionStore(entries=tenant, summaries=metadata)


SERVER_OPTIONS = ("members", "directory", "mongod", "replica_set", "set_parameters")


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(SERVER_OPTIONS, ANYTHING)))
def test_the_options_of_a_server(options: dict[str, Any]) -> None:
    with suppress(ValueError):
        EmbeddedMongo(**options)


# The samples of which each was a raw error once


BAD_CONDITIONS: dict[str, dict[str, Any]] = {
    "an integer beyond 64 bits": {"metadata": {"user_id": 2**70}},
    "half an emoji": {"metadata": {"user_id": "\ud83d"}},
    "half an emoji in a name": {"metadata": {"\ud83d": 1}},
    "a name of 40,000 characters": {"metadata": {"x" * LONG: 1}},
    "a title of 40,000 characters": {"title": "x" * LONG},
    "a title of 20 MB": {"title": "x" * HUGE},
    "a tag of 20 MB": {"tag": "x" * HUGE},
    "a value of 20 MB": {"metadata": {"a": "x" * HUGE}},
    "the calendar's begin": {"since": EDGES[2]},
    "the calendar's end": {"until": EDGES[3]},
    "an integer without a representation": {"limit": 10**5000},
    "no cursor": {"after": "x"},
}
BAD_CRITERIA: dict[str, Any] = {
    "a set": {"tag": {"$in": {"a", "b"}}},
    "an integer beyond 64 bits": {"totals.turns": 2**70},
    "half an emoji": {"tag": "\ud83d"},
    "half an emoji in a name": {"\ud83d": 1},
    "an object": {"tag": Nasty()},
    "a name that is none": {1: 2},
    "20 MB": {"tag": "x" * HUGE},
    "what holds itself": (lambda loop: loop.update(a=loop) or loop)({}),
}


@pytest.mark.parametrize("name", BAD_CONDITIONS)
async def test_a_condition_that_cannot_be_put_is_refused_before_the_database(name: str) -> None:
    # Nothing is initialised here, so that a question would be another error.
    condition = BAD_CONDITIONS[name]
    with pytest.raises(InvalidQueryError, match="nothing was read"):
        await BeanieSessionStore().sessions(**condition)
    if not condition.keys() & {"title", "since", "until", "limit", "after"}:
        for method in ("usage", "tools"):
            with pytest.raises(InvalidQueryError, match="nothing was read"):
                await getattr(BeanieSessionStore(), method)(**condition)


@pytest.mark.parametrize("name", BAD_CRITERIA)
@pytest.mark.parametrize("method", ["sessions", "usage", "tools"])
async def test_so_is_a_criterion(name: str, method: str) -> None:
    with pytest.raises(InvalidQueryError, match="nothing was read"):
        await getattr(BeanieSessionStore(), method)(BAD_CRITERIA[name])


def len_of(value: object) -> str:
    # Some have no other name.
    return f"{type(value).__name__} of {len(value)}" if isinstance(value, str) else "int"


@pytest.mark.parametrize(
    "by", ["metadata.\ud83d", "metadata." + "x" * LONG, "\ud83d", 10**5000], ids=len_of
)
async def test_so_is_a_group(by: Any) -> None:
    with pytest.raises(InvalidQueryError, match="nothing was read"):
        await BeanieSessionStore().usage(by=by)


@pytest.mark.parametrize("text", ["x" * HUGE, "\ud83d", "", 10**5000], ids=len_of)
async def test_so_is_a_text_to_search_for(text: Any) -> None:
    with pytest.raises(InvalidQueryError, match="nothing was read"):
        await BeanieSessionStore().search(text)


def test_metadata_of_a_store_is_refused_or_kept() -> None:
    for metadata in ({"a": 2**70}, {"a": "\ud83d"}):
        # JSON, which is packed.
        assert BeanieSessionStore(metadata=metadata).metadata == metadata
    with pytest.raises(InvalidMetadataError):
        BeanieSessionStore(metadata={"a": "x" * HUGE})


async def test_the_longest_title_is_looked_for(store: BeanieSessionStore) -> None:
    for title in ("(" * 8192, "é" * 4096, "x" * 8192):
        assert (await store.sessions(title=title)).sessions == []


async def test_a_query_on_free_text_is_ended_in_time(
    store: BeanieSessionStore, database: Database
) -> None:
    await enable_search(database)
    for number in range(3):
        await store.append({"project_key": "p", "session_id": f"s{number}"}, turn(number))
    fail: Any = {"configureFailPoint": "maxTimeAlwaysTimeOut"}
    admin = database.client.admin
    await admin.command({**fail, "mode": "alwaysOn"})
    try:
        for free in (
            lambda: store.sessions(title="(a+)+$"),
            lambda: store.sessions({"title": {"$regex": "^(a+)+$"}}),
            lambda: store.usage({"tag": "x"}),
            lambda: store.tools({"tag": "x"}),
            lambda: store.search("prompt"),
        ):
            with pytest.raises(SlowQueryError, match="longer than it may; nothing was changed"):
                await free()
        # What indexes answer has no limit.
        assert len((await store.sessions(project_key="p")).sessions) == 3
    finally:
        await admin.command({**fail, "mode": "off"})


async def test_what_the_driver_cannot_put_is_never_its_own_error(
    store: BeanieSessionStore, database: Database
) -> None:
    """The last net, under all the checks."""
    refused = pytest.raises(SessionStoreError, match="cannot put it into a document")
    with refused, failures.reported(database.client, "try"):
        raise InvalidDocument("too large")
