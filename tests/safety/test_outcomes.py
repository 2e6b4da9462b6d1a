"""A failure says what holds in spite of it, and what does not."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from support.entries import KEY, SUBAGENT, turn
from support.server import failing

from beanie_session_store import (
    AccessDeniedError,
    BeanieSessionStore,
    EntryChunk,
    SessionSummary,
    TranscriptEntry,
    UnreachableError,
    set_retention,
    sweep_sessions,
)
from beanie_session_store.app.database.driver import Database, collection_of

REFUSED = {"errorCode": 13}
CUT = {"closeConnection": True}


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("reading.load", "writing.deletion"):
        monkeypatch.setattr(f"beanie_session_store.app.{module}.MARKED", 8)
    monkeypatch.setattr("beanie_session_store.app.retention.policies.CACHE_SECONDS", 0.1)


async def large_session(store: BeanieSessionStore) -> None:
    await store.append(KEY, [each for number in range(6) for each in turn(number)])
    await store.append(SUBAGENT, [each for number in range(6, 12) for each in turn(number)])


async def is_held() -> bool:
    row = await SessionSummary.find_one()
    return row is not None and row.held_at is not None


async def test_a_session_that_is_deleted_and_not_swept_is_said_to_be_deleted(
    store: BeanieSessionStore, database: Database
) -> None:
    await large_session(store)
    # The first two are those of the transaction that marks it.
    async with failing(database, "delete", {"skip": 2}, **REFUSED):
        with pytest.raises(AccessDeniedError, match="it is deleted, and what is left"):
            await store.delete(KEY)
    assert await store.load(KEY) is None
    assert await store.list_sessions("project") == []
    assert await TranscriptEntry.find_all().count()
    await sweep_sessions(database)
    for model in (TranscriptEntry, SessionSummary, EntryChunk):
        assert not await model.find_all().count()


async def test_a_subagent_that_is_deleted_and_not_swept_is_said_to_be_deleted(
    store: BeanieSessionStore, database: Database
) -> None:
    await large_session(store)
    async with failing(database, "delete", {"skip": 1}, **REFUSED):
        with pytest.raises(AccessDeniedError, match="it is deleted, and what is left"):
            await store.delete(SUBAGENT, wait=True)
    assert await store.load(SUBAGENT) is None
    assert len(await store.load(KEY) or []) == 36
    await store.delete(SUBAGENT, wait=True)
    await sweep_sessions(database)
    assert await TranscriptEntry.find_all().count() == 36


async def test_a_delete_that_was_refused_at_once_changed_nothing(
    store: BeanieSessionStore, database: Database
) -> None:
    await large_session(store)
    async with failing(database, "delete", {"times": 1}, **REFUSED):
        with pytest.raises(AccessDeniedError, match="nothing was changed"):
            await store.delete(KEY)
    assert len(await store.load(KEY) or []) == 36


@pytest.mark.parametrize("change", ["hold", "release"])
async def test_a_hold_is_said_to_hold_where_entries_could_not_be_dated(
    store: BeanieSessionStore, database: Database, change: str
) -> None:
    await set_retention(database, timedelta(days=1))
    await large_session(store)
    if change == "release":
        await store.hold(KEY)
    said = "it is held, and" if change == "hold" else "it is released, and"
    # The first is that of the summary.
    async with failing(database, "update", {"skip": 1}, **REFUSED):
        with pytest.raises(AccessDeniedError, match=said):
            await getattr(store, change)(KEY)
    assert await is_held() == (change == "hold")


async def test_a_policy_is_said_to_be_in_force_where_sessions_could_not_be_dated(
    store: BeanieSessionStore, database: Database
) -> None:
    await large_session(store)
    async with failing(database, "update", {"skip": 1}, **REFUSED):
        with pytest.raises(AccessDeniedError, match="the policy is in force"):
            await set_retention(database, timedelta(days=1))
    assert await collection_of(SessionSummary).count_documents({"expires_at": None}) == 1
    await set_retention(database, timedelta(days=1))
    assert await collection_of(SessionSummary).count_documents({"expires_at": None}) == 0


@pytest.mark.parametrize(
    "change",
    [
        lambda store: store.hold(KEY),
        lambda store: store.release(KEY),
        lambda store: store.set_metadata(KEY, {"user_id": "u1"}),
    ],
    ids=["hold", "release", "set_metadata"],
)
async def test_of_a_write_that_was_not_answered_nothing_is_claimed(
    store: BeanieSessionStore,
    database: Database,
    change: Callable[[BeanieSessionStore], Awaitable[Any]],
) -> None:
    await large_session(store)
    # The driver sends it twice.
    async with failing(database, "update", {"times": 2}, **CUT):
        with pytest.raises(UnreachableError, match="whether it was done is not known"):
            await change(store)
    await change(store)
