"""All sessions of a user are found and removed, whatever state they are in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from support.entries import turn
from support.server import without_expiry

from beanie_session_store import (
    BeanieSessionStore,
    InvalidQueryError,
    SessionSummary,
    TranscriptEntry,
)
from beanie_session_store.app.database.driver import Database, collection_of
from beanie_session_store.app.writing import deletion

MINE = {"user_id": "u1"}
RECORDS = "claude_transcript_adoptions"


def key(session: str, subpath: str = "", project: str = "project") -> dict[str, str]:
    found = {"project_key": project, "session_id": session}
    return {**found, "subpath": subpath} if subpath else found


@pytest.fixture
async def sessions_of_two(database: Database) -> AsyncIterator[dict[str, BeanieSessionStore]]:
    """Sessions of the user u1 in every state, and others that only look like it."""
    mine = BeanieSessionStore(metadata=MINE)
    await mine.append(key("plain"), turn(1))
    await mine.append(key("elsewhere", project="other"), turn(2))
    await mine.append(key("only-subagent", "subagents/agent-a1"), turn(3))
    await mine.append(key("without-totals"), turn(4))
    await collection_of(SessionSummary).update_many(
        {"session_id": "without-totals"}, {"$unset": {"totals": ""}}
    )
    async with without_expiry(database):
        await mine.append(key("expired"), turn(5))
        past = datetime.now(timezone.utc) - timedelta(minutes=1)
        await collection_of(SessionSummary).update_many(
            {"session_id": "expired"}, {"$set": {"expires_at": past}}
        )
        packed = BeanieSessionStore(metadata={**MINE, "n": 2**70})
        await packed.append(key("packed"), turn(6))
        listed = BeanieSessionStore(metadata={"user_id": ["u1", "u2"], "n": 2**70})
        await listed.append(key("packed-list"), turn(7))
        row = await SessionSummary.find_one({"session_id": "packed"})
        assert row is not None
        assert row.packed_metadata is not None
        others = {"user_id": "u10"}, {"user_id": "u2", "n": 2**70}, {"n": 2**70}, None
        for number, metadata in enumerate(others):
            store = BeanieSessionStore(metadata=metadata)
            await store.append(key(f"other-{number}"), turn(10 + number))
        await BeanieSessionStore(tenant="acme", metadata=MINE).append(key("plain"), turn(20))
        record = {"tenant": "default", "project_key": "project", "source": "s", "version": 1}
        for session in ("plain", "other-0"):
            await database[RECORDS].insert_one({**record, "session_id": session})
        yield {"mine": mine}


async def left() -> set[str]:
    return {f"{each.tenant}/{each.session_id}" async for each in SessionSummary.find_all()}


OTHERS = {"default/other-0", "default/other-1", "default/other-2", "default/other-3", "acme/plain"}


async def test_all_sessions_of_a_user_go_and_no_others(
    sessions_of_two: dict[str, BeanieSessionStore], database: Database
) -> None:
    store = BeanieSessionStore()
    before = await left()
    looked = await store.delete_sessions(metadata=MINE, dry_run=True)
    assert (looked.found, looked.deleted) == (7, 0)
    assert await left() == before
    seen: list[Any] = []
    done = await store.delete_sessions(metadata=MINE, on_progress=seen.append)
    assert (done.found, done.deleted, done.held, done.failed) == (7, 7, (), ())
    assert seen[-1].deleted == 7
    assert await left() == OTHERS
    assert await TranscriptEntry.find_all().count() == 5 * 6
    records = [row["session_id"] async for row in database[RECORDS].find()]
    assert records == ["other-0"]
    assert (await store.delete_sessions(metadata=MINE)).found == 0


async def test_holds_prevail_and_are_reported(
    sessions_of_two: dict[str, BeanieSessionStore],
) -> None:
    store = sessions_of_two["mine"]
    await store.hold(key("plain"))
    looked = await store.delete_sessions(metadata=MINE, dry_run=True)
    assert [each.session_id for each in looked.held] == ["plain"]
    done = await store.delete_sessions(metadata=MINE)
    assert (done.found, done.deleted) == (7, 6)
    assert [each.session_id for each in done.held] == ["plain"]
    assert await left() == {*OTHERS, "default/plain"}
    assert len(await store.load(key("plain")) or []) == 6
    await store.release(key("plain"))
    assert (await store.delete_sessions(metadata=MINE)).deleted == 1


async def test_a_hold_that_comes_while_sessions_are_removed_prevails(
    sessions_of_two: dict[str, BeanieSessionStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = sessions_of_two["mine"]
    real = deletion._mark

    async def held_first(connection: Any, session: Any, row: Any, *more: Any) -> bool:
        if session.session_id == "plain" and row.held_at is None:
            await BeanieSessionStore().hold(key("plain"))
        return await real(connection, session, row, *more)

    monkeypatch.setattr(deletion, "_mark", held_first)
    done = await store.delete_sessions(metadata=MINE)
    assert [each.session_id for each in done.held] == ["plain"]
    assert len(await store.load(key("plain")) or []) == 6


async def test_a_removal_that_was_cut_off_goes_on(
    sessions_of_two: dict[str, BeanieSessionStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = sessions_of_two["mine"]
    real = deletion._mark

    async def fails(connection: Any, session: Any, row: Any, *more: Any) -> bool:
        if session.session_id == "packed":
            raise asyncio.CancelledError
        return await real(connection, session, row, *more)

    monkeypatch.setattr(deletion, "_mark", fails)
    with pytest.raises(asyncio.CancelledError):
        await store.delete_sessions(metadata=MINE)
    assert "default/packed" in await left()
    monkeypatch.setattr(deletion, "_mark", real)
    await store.delete_sessions(metadata=MINE)
    assert await left() == OTHERS


async def test_nothing_is_removed_without_a_condition(
    sessions_of_two: dict[str, BeanieSessionStore],
) -> None:
    store, before = BeanieSessionStore(), await left()
    for conditions in ((), ({},)):
        with pytest.raises(InvalidQueryError, match="nothing was deleted"):
            await store.delete_sessions(*conditions)
    with pytest.raises(InvalidQueryError, match="nothing was deleted"):
        await store.delete_sessions(metadata={})
    for bad in ({"user_id": {"$ne": None}}, {"a.b": 1}, {"$where": "1"}):
        with pytest.raises(InvalidQueryError):
            await store.delete_sessions(metadata=bad)
    assert await left() == before


async def test_criteria_cannot_reach_another_tenant(
    sessions_of_two: dict[str, BeanieSessionStore],
) -> None:
    done = await BeanieSessionStore(tenant="acme").delete_sessions(
        {"$or": [{"tenant": "default"}, {"tenant": "acme"}]}
    )
    assert done.deleted == 1
    assert len(await left()) == 11
