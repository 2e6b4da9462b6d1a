"""What changes while an erasure runs: it takes what is the subject's by then, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from support.entries import turn
from support.server import without_expiry

from beanie_session_store import (
    BeanieSessionStore,
    SessionErasedError,
    SessionSummary,
    StoreOwnedError,
)
from beanie_session_store.app.database.driver import Database
from beanie_session_store.app.retention import erasure, matching
from beanie_session_store.app.storage.codec import MAX_VALUE_BYTES

MINE = {"user_id": "u1"}
THEIRS = {"user_id": "u2"}


def key(session: str, project: str = "project") -> dict[str, str]:
    return {"project_key": project, "session_id": session}


def before_each(
    monkeypatch: pytest.MonkeyPatch, doing: dict[str, Callable[[], Awaitable[Any]]]
) -> None:
    """Do something to each of some sessions once it was found, and before it is erased."""
    real = erasure.delete_session

    async def later(connection: Any, session: Any, **given: Any) -> bool:
        if session.session_id in doing:
            await doing.pop(session.session_id)()
        return await real(connection, session, **given)

    monkeypatch.setattr(erasure, "delete_session", later)


@pytest.mark.parametrize("more", [{}, {"n": 2**70}], ids=["plain", "packed"])
async def test_what_is_somebody_elses_by_then_stays(
    store: BeanieSessionStore, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any]
) -> None:
    mine = BeanieSessionStore(metadata={**MINE, **more})
    for name in ("given", "kept", "named", "nobodys"):
        await mine.append(key(name), turn(1))
    before_each(
        monkeypatch,
        {
            "given": lambda: store.set_metadata(key("given"), {**THEIRS, **more}),
            "named": lambda: store.set_metadata(key("named"), {**MINE, **more, "name": "new"}),
            "nobodys": lambda: store.set_metadata(key("nobodys"), None),
        },
    )
    receipt = await store.erase(metadata=MINE)
    assert receipt.sessions == (key("kept"), key("named"))
    assert receipt.is_whole
    assert [bool(await store.load(key(name))) for name in ("given", "nobodys")] == [True, True]
    assert (await store.verify_erasure(receipt)).holds


async def test_metadata_that_changes_under_the_transaction_is_looked_at_again(
    store: BeanieSessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = BeanieSessionStore(metadata=MINE)
    for name in ("given", "named"):
        await mine.append(key(name), turn(1))
    real = erasure.matching_now
    changes = {"given": THEIRS, "named": {**MINE, "name": "new"}}

    async def changed_after(connection: Any, session: Any, wanted: Any) -> Any:
        found = await real(connection, session, wanted)
        if session.session_id in changes:
            await store.set_metadata(key(session.session_id), changes.pop(session.session_id))
        return found

    monkeypatch.setattr(erasure, "matching_now", changed_after)
    receipt = await store.erase(metadata=MINE)
    assert receipt.sessions == (key("named"),)
    assert await store.load(key("given"))


async def test_what_is_begun_anew_or_named_behind_it_is_taken_too(
    store: BeanieSessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matching, "_PAGE", 2)
    mine = BeanieSessionStore(metadata=MINE)
    for name in ("a", "b", "d", "e"):
        await (store if name == "a" else mine).append(key(name), turn(1))

    async def anew() -> None:
        await store.delete(key("b"))
        await mine.append(key("b"), turn(2))

    async def more() -> None:
        await store.set_metadata(key("a"), MINE)
        await mine.append(key("c"), turn(2))

    before_each(monkeypatch, {"b": anew, "e": more})
    receipt = await store.erase(metadata=MINE)
    assert receipt.sessions == tuple(map(key, "abcde"))
    assert receipt.is_whole
    assert [session async for session in store.all_sessions()] == []
    assert (await store.verify_erasure(receipt)).since == ()


async def test_a_service_that_makes_new_ones_does_not_keep_it_for_ever(
    store: BeanieSessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = BeanieSessionStore(metadata=MINE)
    await mine.append(key("s"), turn(1))
    real = erasure.delete_session
    made = 0

    async def makes_one(connection: Any, session: Any, **given: Any) -> bool:
        nonlocal made
        made += 1
        await mine.append(key(f"a{made}"), turn(1))
        return await real(connection, session, **given)

    monkeypatch.setattr(erasure, "delete_session", makes_one)
    receipt = await asyncio.wait_for(store.erase(metadata=MINE), 60)
    check = await store.verify_erasure(receipt)
    assert check.holds
    assert check.since


async def test_tombstones_are_counted_from_when_their_session_is_gone(
    store: BeanieSessionStore, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the erasure takes; and the receipt is of all, whatever has gone meanwhile."""
    monkeypatch.setattr(erasure, "AT_ONCE", 1)
    summaries = database["claude_transcript_summaries"]
    mine = BeanieSessionStore(metadata=MINE)
    for name in ("a", "b"):
        await mine.append(key(name), turn(1))
    kept = timedelta(milliseconds=200)

    async def wait_and_take_the_first() -> None:
        await asyncio.sleep(2 * kept.total_seconds())
        # As MongoDB does at its date.
        await summaries.delete_one({"session_id": "a", "erasure": {"$exists": True}})

    before_each(monkeypatch, {"b": wait_and_take_the_first})
    async with without_expiry(database):
        receipt = await store.erase(metadata=MINE, tombstones=kept)
        assert receipt.sessions == (key("a"), key("b"))
        assert receipt.is_whole
        assert receipt.counts
        assert receipt.counts["sessions"] == 2
        tombstone = await summaries.find_one({"session_id": "b"})
        assert tombstone is not None
        assert tombstone["erased_until"] >= tombstone["created_at"] + kept
        assert receipt.until
        (record,) = await database["claude_transcript_erasures"].find().to_list(None)
        assert record["expires_at"] - record["until"] == timedelta(days=1)
        assert record["until"] == tombstone["erased_until"]


async def test_forks_of_a_held_fork_are_found(store: BeanieSessionStore) -> None:
    def forked(source: str) -> list[dict[str, Any]]:
        return [
            {**each, "uuid": f"{each['uuid']}-{source}", "forkedFrom": {"sessionId": source}}
            for each in turn(1)
            if "uuid" in each
        ]

    mine = BeanieSessionStore(metadata=MINE)
    await mine.append(key("source"), turn(1))
    await mine.append(key("fork"), forked("source"))
    await mine.hold(key("fork"))
    await BeanieSessionStore(metadata=THEIRS).append(key("theirs"), forked("fork"))
    receipt = await store.erase(metadata=MINE)
    assert (receipt.held, receipt.forked) == ((key("fork"),), (key("theirs"),))


async def test_two_at_once_leave_nothing_and_say_so_together(store: BeanieSessionStore) -> None:
    mine = BeanieSessionStore(metadata=MINE)
    for number in range(12):
        await mine.append(key(f"s{number:02}"), turn(number))
    await mine.append(key("large"), [{"type": "x", "text": "x" * (MAX_VALUE_BYTES + 1)}])
    both = await asyncio.gather(
        store.erase(metadata=MINE), BeanieSessionStore().erase(metadata=dict(MINE))
    )
    if any(receipt.failed for receipt in both):
        both = [*both, await store.erase(metadata=MINE)]
    found = [each["session_id"] for receipt in both for each in receipt.sessions]
    assert {*found} == {"large", *(f"s{number:02}" for number in range(12))}
    by_erasure = {receipt.erasure: receipt for receipt in both}
    counted = [(receipt.counts or {}).get("sessions", 0) for receipt in by_erasure.values()]
    assert sum(counted) == 13
    for receipt in both:
        assert (await store.verify_erasure(receipt)).holds
    with pytest.raises(SessionErasedError):
        await mine.append(key("large"), turn(1))


async def by_set(summary: SessionSummary) -> None:
    await summary.set({"metadata": {"name": "canary"}})


async def by_update(summary: SessionSummary) -> None:
    await summary.update({"$set": {"metadata": {"name": "canary"}}})


async def by_save(summary: SessionSummary) -> None:
    summary.metadata = {"name": "canary"}
    await summary.save()


async def by_replace(summary: SessionSummary) -> None:
    await summary.replace()


async def by_query(summary: SessionSummary) -> None:
    query = SessionSummary.find({"session_id": summary.session_id})
    await query.set({"metadata": {"name": "canary"}})


async def by_all(_: SessionSummary) -> None:
    await SessionSummary.find_all().set({"metadata": {"name": "canary"}})


@pytest.mark.parametrize("write", [by_set, by_update, by_save, by_replace, by_query, by_all])
async def test_a_document_that_was_read_before_puts_nothing_on_a_tombstone(
    store: BeanieSessionStore,
    database: Database,
    write: Callable[[SessionSummary], Awaitable[None]],
) -> None:
    mine = BeanieSessionStore(metadata=MINE)
    await mine.append(key("s"), turn(1))
    await mine.append(key("living"), turn(1))
    summary = await SessionSummary.find_one({"session_id": "s"})
    living = await SessionSummary.find_one({"session_id": "living"})
    assert summary
    assert living
    await store.hold(key("living"))
    receipt = await store.erase(metadata=MINE)
    is_told = write not in (by_query, by_all)
    with pytest.raises(StoreOwnedError) if is_told else contextlib.nullcontext():
        await write(summary)
    summaries = database["claude_transcript_summaries"]
    tombstone = await summaries.find_one({"session_id": "s"})
    assert tombstone is not None
    assert "metadata" not in tombstone
    assert (await store.verify_erasure(receipt)).holds
    await write(living)
    stays = await summaries.find_one({"session_id": "living"})
    assert stays is not None
    assert stays["metadata"] in ({"name": "canary"}, MINE)


async def test_what_others_wrote_on_a_tombstone_is_found(
    store: BeanieSessionStore, database: Database
) -> None:
    await BeanieSessionStore(metadata=MINE).append(key("s"), turn(1))
    receipt = await store.erase(metadata=MINE)
    async with store.lease(key("s"), owner="agent"):
        assert (await store.verify_erasure(receipt)).holds
    summaries = database["claude_transcript_summaries"]
    await summaries.update_one({"session_id": "s"}, {"$set": {"title": "canary"}})
    (remnant,) = (await store.verify_erasure(receipt)).remnants
    assert remnant.documents == {"claude_transcript_summaries": 1}
