"""A session is named by the beginning of its id, and only where that is one session."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest
from support.entries import message
from support.server import profiled

from beanie_session_store import (
    AmbiguousSessionError,
    BeanieSessionStore,
    InvalidKeyError,
    SessionSummary,
    UnknownSessionError,
)
from beanie_session_store.app.database.driver import Database, collection_of


async def made(store: BeanieSessionStore, *names: str) -> None:
    for name in names:
        project, _, session = name.rpartition("/")
        key: Any = {"project_key": project, "session_id": session}
        await store.append(key, [message()])


async def test_the_beginning_of_an_id_is_enough(store: BeanieSessionStore) -> None:
    await made(store, "a/6645", "b/71-x", "b/72")
    await made(BeanieSessionStore(tenant="other"), "a/6646", "a/8")
    for name, session_id in (("6", "6645"), ("664", "6645"), ("71", "71-x"), ("71-x", "71-x")):
        assert (await store.session_named(name)).session_id == session_id


async def test_a_whole_id_is_never_ambiguous(store: BeanieSessionStore) -> None:
    await made(store, "a/run", "a/run-2", "b/run-3")
    found = await store.session_named("run")
    assert found.key() == {"project_key": "a", "session_id": "run"}


async def test_several_are_named_and_the_project_can_tell_them_apart(
    store: BeanieSessionStore,
) -> None:
    await made(store, "a/one", "b/one", *(f"c/run-{number}" for number in range(7)))
    with pytest.raises(AmbiguousSessionError, match=r"one \(project a\), one \(project b\)\. Name"):
        await store.session_named("one")
    assert (await store.session_named("on", "b")).project_key == "b"
    with pytest.raises(AmbiguousSessionError, match=r"run-3 \(project c\), and more\. Give more"):
        await store.session_named("run")


@pytest.mark.parametrize("name", ["nobody", "a.*", "^a", "A"])
async def test_what_no_id_begins_with_is_unknown(store: BeanieSessionStore, name: str) -> None:
    await made(store, "p/abc")
    with pytest.raises(UnknownSessionError, match="begins so"):
        await store.session_named(name)


async def test_an_expired_session_is_unknown(store: BeanieSessionStore) -> None:
    await made(store, "p/abc")
    past = datetime(2026, 1, 1, tzinfo=timezone.utc)
    await collection_of(SessionSummary).update_one(
        {"session_id": "abc"}, {"$set": {"expires_at": past}}
    )
    with pytest.raises(UnknownSessionError):
        await store.session_named("abc")


@pytest.mark.parametrize("name", ["", "a\0", "\ud800", {"$ne": None}])
async def test_what_is_no_name_is_refused(store: BeanieSessionStore, name: Any) -> None:
    with pytest.raises(InvalidKeyError):
        await store.session_named(name)


async def test_a_name_is_looked_up_in_an_index(
    store: BeanieSessionStore, database: Database
) -> None:
    await made(store, *(f"{project}/{i:03}" for project in "abc" for i in range(50)), "b/x1")
    operations: list[dict[str, Any]] = []
    async with profiled(database, operations):
        await store.session_named("x")
    finds = [op for op in operations if "summaries" in op["ns"]]
    assert sum(op["docsExamined"] for op in finds) == 1
    # A place or two in the index for each project. Whether the one that is found is sorted is up
    # to the planner, to which that is all the same.
    assert sum(op["keysExamined"] for op in finds) <= 16
