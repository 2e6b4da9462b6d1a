"""At run time the public types hold what they promise to a checker."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from datetime import datetime, timedelta, timezone
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from pydantic import BaseModel
from support.entries import KEY, SUBAGENT, message

import beanie_session_store
from beanie_session_store import (
    DOCUMENT_MODELS,
    AssistantEntry,
    BeanieSessionStore,
    InvalidKeyError,
    InvalidQueryError,
    SessionSummary,
    SessionTotals,
    ToolRow,
    UsageRow,
    UserEntry,
    enable_search,
    parse_entry,
    session_key,
)
from beanie_session_store.app.database.driver import Database, collection_of
from beanie_session_store.encryption import Encryption, LocalKeys
from beanie_session_store.models.mapped import Mapped


class Noted(SessionSummary):
    note: str = ""

    class Settings(SessionSummary.Settings):
        name = "noted_summaries"


@pytest.mark.parametrize("change", [{"$unset": {"totals": ""}}, {"$set": {"totals": None}}])
async def test_totals_are_there_for_every_reader(
    store: BeanieSessionStore, change: dict[str, Any]
) -> None:
    await store.append(KEY, [message("hello")])
    before = await store.summary(KEY)
    assert before is not None
    assert before.totals.is_counted
    assert before.totals.turns == 1

    await collection_of(SessionSummary).update_one({}, change)
    by_store = await store.summary(KEY)
    by_beanie = await SessionSummary.find_one(SessionSummary.session_id == KEY["session_id"])
    by_page = (await store.sessions()).sessions[0]
    for summary in (by_store, by_beanie, by_page):
        assert summary is not None
        assert summary.totals == SessionTotals()
        assert not summary.totals.is_counted
        assert (summary.totals.turns, summary.totals.cost_usd) == (0, None)
    # Nothing is written by who only reads, and what counts anew finds it uncounted.
    assert not ((await collection_of(SessionSummary).find_one()) or {}).get("totals")
    await store.repair(KEY)
    again = await store.summary(KEY)
    assert again is not None
    assert again.totals.is_counted
    assert again.totals.model_copy(update={"next_seq": before.totals.next_seq}) == before.totals


async def test_totals_of_two_documents_are_not_one(store: BeanieSessionStore) -> None:
    await store.append(KEY, [message("hello")])
    await collection_of(SessionSummary).update_one({}, {"$unset": {"totals": ""}})
    one, other = await store.summary(KEY), await store.summary(KEY)
    assert one is not None
    assert other is not None
    one.totals.usage.append(UsageRow(day="", model="opus"))
    assert other.totals.usage == SessionTotals().usage == []


def test_a_stored_field_is_a_value_and_a_path_to_checkers() -> None:
    classes: list[type[BaseModel]] = [*DOCUMENT_MODELS, SessionTotals, UsageRow, ToolRow]
    plain = [
        f"{model.__name__}.{name}"
        for model in classes
        for name, annotation in inspect.get_annotations(model).items()
        if not name.startswith("_") and not str(annotation).startswith("Mapped[")
    ]
    assert plain == []
    assert Mapped[int] is int


async def test_every_field_compares_and_sorts(store: BeanieSessionStore) -> None:
    now = datetime.now(timezone.utc)
    await store.append(KEY, [message("hello", gitBranch="main")])
    await store.append(session_key("demo", "s2"), [message("one"), message("two")])
    turns = SessionSummary.totals.turns
    found = await SessionSummary.find(turns >= 1).sort(-turns).to_list()
    assert [each.totals.turns for each in found] == [2, 1]

    async def ids(*criteria: Any) -> set[str]:
        return {each.session_id for each in (await store.sessions(*criteria)).sessions}

    both = {KEY["session_id"], "s2"}
    assert await ids(SessionSummary.active_at > now - timedelta(hours=1)) == both
    assert await ids(SessionSummary.expires_at > now) == set()
    assert await ids(SessionSummary.expires_at == None) == both  # noqa: E711
    assert await ids(SessionSummary.totals.cost_usd > 0) == set()
    assert await ids(SessionSummary.totals.usage.model == "opus") == set()
    assert await ids(SessionSummary.branch == "main", turns < 2) == {KEY["session_id"]}
    await store.set_metadata(session_key("demo", "s2"), {"user_id": "u1"})
    assert await ids(SessionSummary.metadata["user_id"] == "u1") == {"s2"}
    assert await ids(SessionSummary.metadata.user_id == "u1") == {"s2"}


QUERIES: dict[str, Callable[[BeanieSessionStore, Any], Awaitable[Any]]] = {
    "sessions": lambda store, criterion: store.sessions(criterion),
    "usage": lambda store, criterion: store.usage(criterion),
    "tools": lambda store, criterion: store.tools(criterion),
    "delete_sessions": lambda store, criterion: store.delete_sessions(criterion),
}


@pytest.mark.parametrize("method", QUERIES)
@pytest.mark.parametrize("criterion", [True, False, None, 1, "tag", [("tag", "x")], 3 > 2])
async def test_what_is_a_condition_to_a_checker_alone_is_refused(
    method: str, criterion: Any, store: BeanieSessionStore
) -> None:
    await store.append(KEY, [message("hello")])
    with pytest.raises(InvalidQueryError, match="criterion"):
        await QUERIES[method](store, criterion)
    assert await store.load(KEY) is not None


async def test_a_store_gives_its_own_class(database: Database) -> None:
    async with aclosing(own_store(database)) as stores:
        store = await anext(stores)
        await store.append(KEY, [message("hello")])
        assert type(await store.summary(KEY)) is Noted
        assert [type(each) for each in (await store.sessions()).sessions] == [Noted]
    # What is written in annotations works at run time too.
    assert BeanieSessionStore[Noted](summaries=Noted).tenant == "default"
    assert isinstance(BeanieSessionStore(), BeanieSessionStore)


async def own_store(database: Database) -> Any:
    from beanie_session_store import upgrade_schema

    await upgrade_schema(database, summaries=Noted)
    yield BeanieSessionStore.on(database, summaries=Noted)


def test_a_key_is_made_of_names() -> None:
    assert session_key("-srv", "s1") == {"project_key": "-srv", "session_id": "s1"}
    made = session_key("-srv", "s1", subpath="subagents/agent-a1")
    assert made == {**session_key("-srv", "s1"), "subpath": "subagents/agent-a1"}


@pytest.mark.parametrize(
    "bad", ["", "*", "a\0", "\ud800", "x" * 1025, None, 1, {"$ne": None}, b"s"]
)
@pytest.mark.parametrize("field", ["project_key", "session_id", "subpath"])
def test_a_key_of_other_things_is_refused(field: str, bad: Any) -> None:
    if field == "subpath" and bad in (None, "*"):
        assert session_key("-srv", "s1", subpath=bad).get("subpath") == bad
        return
    names = {"project_key": "-srv", "session_id": "s1", field: bad}
    with pytest.raises(InvalidKeyError, match=field):
        session_key(**names)


# By the method's name, what it is given besides a key.
BESIDES: dict[str, tuple[Any, ...]] = {"append": ([message("hello")],), "set_metadata": ({},)}
NAMED: dict[str, dict[str, Any]] = {"lease": {"owner": "host-7"}}
# What is not stored under the key, and what takes none but those of agents.
NOT_KEYED = {"recorded", "checkout"}
KEYED = [
    name
    for name, method in inspect.getmembers(BeanieSessionStore, inspect.isfunction)
    if not name.startswith("_")
    and name not in NOT_KEYED
    and "key" in inspect.signature(method).parameters
]


@pytest.mark.parametrize("name", KEYED)
@pytest.mark.parametrize("has_subpath", [False, True])
async def test_every_method_takes_any_mapping_as_a_key(
    name: str, has_subpath: bool, store: BeanieSessionStore, tmp_path: Path
) -> None:
    if name == "seal":
        keys = LocalKeys.generate(tmp_path / "keys")
        store = BeanieSessionStore(encryption=Encryption(keys))
    await store.append(KEY, [message("hello")])
    await store.append(SUBAGENT, [message("hello")])
    await call(store, name, MappingProxyType({**(SUBAGENT if has_subpath else KEY)}))
    with pytest.raises(InvalidKeyError, match="session_id"):
        await call(store, name, MappingProxyType({"project_key": "-srv", "session_id": 1}))


async def call(store: BeanieSessionStore, name: str, key: Any) -> None:
    """Call a method to its end, or to the first entry that it gives."""
    called = getattr(store, name)(key, *BESIDES.get(name, ()), **NAMED.get(name, {}))
    if isinstance(called, AbstractAsyncContextManager):
        async with called as given:
            assert given
    elif inspect.isasyncgen(called):
        async with aclosing(called) as entries:
            assert (await anext(entries)).seq > 0
    elif isinstance(called, AbstractAsyncContextManager):
        async with called:
            pass
    elif inspect.isawaitable(called):
        await called


def test_methods_that_take_keys_are_found() -> None:
    assert {"append", "load", "stream", "watch", "hold", "delete", "list_subkeys"} < {*KEYED}


async def test_a_hit_is_of_one_of_the_kinds_that_are_searched(
    store: BeanieSessionStore, database: Database
) -> None:
    await enable_search(database)
    said = {"role": "assistant", "content": "a needle"}
    odd = {"type": "user", "uuid": "o", "isMeta": True, "message": {"content": ["needle", 3]}}
    await store.append(KEY, [message("needle"), {"type": "assistant", "message": said}, odd])
    await store.append(KEY, [{"type": "summary", "summary": "needle"}])
    hits = await store.search("needle")
    assert {type(hit.parsed) for hit in hits} <= {UserEntry, AssistantEntry}
    assert {"needle", "a needle"} <= {hit.parsed.text for hit in hits}
    for content in (None, 3, "x", [], [3], {"a": 1}):
        for kind, view in (("user", UserEntry), ("assistant", AssistantEntry)):
            entry = {"type": kind, "message": {"content": content}}
            assert type(parse_entry(entry)) is view
            assert isinstance(parse_entry(entry).text, str)


def own_members(kind: type) -> dict[str, Any]:
    """What a class has, also from those that it inherits and that do the work of the package."""
    # Not from Documents, whose methods are Beanie's.
    inherited = "beanie_session_store.app."
    ours = [each for each in kind.__mro__ if each is kind or each.__module__.startswith(inherited)]
    return {name: value for each in reversed(ours) for name, value in vars(each).items()}


def public_returns() -> dict[str, Any]:
    """What every public function, method and property says that it returns."""
    found: dict[str, Any] = {}
    for name in beanie_session_store.__all__:
        value = getattr(beanie_session_store, name)
        if inspect.isfunction(value):
            found[name] = value.__annotations__.get("return")
        elif inspect.isclass(value):
            for member, defined in own_members(value).items():
                if isinstance(defined, property):
                    defined = defined.fget
                elif isinstance(defined, cached_property):
                    defined = defined.func
                elif isinstance(defined, (classmethod, staticmethod)):
                    defined = defined.__func__
                if inspect.isfunction(defined) and not member.startswith("_"):
                    annotations = inspect.unwrap(defined).__annotations__
                    found[f"{name}.{member}"] = annotations.get("return")
    return found


def test_nothing_public_returns_just_anything() -> None:
    returned = public_returns()
    assert len(returned) > 100
    assert returned["BeanieSessionStore.sessions"] == "SessionPage[S_co]"
    loose = {name for name, annotation in returned.items() if annotation in (None, "Any", Any)}
    # Whatever JSON a tool or a block holds, and the default of any field.
    assert loose == {"ToolCall.structured_output", "UnknownBlock.type", "mapped"}
