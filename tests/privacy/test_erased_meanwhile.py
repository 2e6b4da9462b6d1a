"""Whoever works on an erased session meets its tombstone: leases, shared commits, imports."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from support.entries import message, turn

from beanie_session_store import (
    BeanieSessionStore,
    ErasureReceipt,
    LeaseLostError,
    SessionErasedError,
    adopt,
    copy_sessions,
    export_transcripts,
    import_transcripts,
)
from beanie_session_store.app.database.driver import Database
from beanie_session_store.app.retention import matching

MINE = {"user_id": "u1"}


def key(session: str) -> dict[str, str]:
    return {"project_key": "-project", "session_id": session}


async def test_a_lease_brings_nothing_back(store: BeanieSessionStore, database: Database) -> None:
    mine = BeanieSessionStore(metadata=MINE)
    await mine.append(key("s"), turn(1))
    async with mine.lease(key("s"), owner="agent") as leased:
        await leased.append(key("s"), turn(2))
        receipt = await store.erase(metadata=MINE)
        # It has lost the session, and hears of that first.
        with pytest.raises(LeaseLostError):
            await leased.append(key("s"), turn(3))
    with pytest.raises(SessionErasedError):
        await mine.append(key("s"), turn(3))
    async with mine.lease(key("s"), owner="another") as leased:
        with pytest.raises(SessionErasedError):
            await leased.append(key("s"), turn(3))
        await store.break_lease(key("s"))
    with pytest.raises(SessionErasedError):
        await mine.append(key("s"), turn(3))
    assert (await store.verify_erasure(receipt)).holds
    (row,) = await database["claude_transcript_summaries"].find().to_list(None)
    assert "lease" not in row


async def test_appends_that_share_a_commit_cost_no_other(store: BeanieSessionStore) -> None:
    mine, others = BeanieSessionStore(metadata=MINE), BeanieSessionStore()
    sessions = [(mine, key(f"mine-{n}")) for n in range(8)]
    sessions += [(others, key(f"theirs-{n}")) for n in range(8)]
    await asyncio.gather(*(writer.append(each, turn(1)) for writer, each in sessions))
    receipt = await store.erase(metadata=MINE)
    # All of them go on from what they remember.
    done = await asyncio.gather(
        *(writer.append(each, [message("more")]) for writer, each in sessions),
        return_exceptions=True,
    )
    assert [type(each) for each in done] == [SessionErasedError] * 8 + [type(None)] * 8
    for _, each in sessions[8:]:
        assert len(await store.load(each) or []) == 7
    assert (await store.verify_erasure(receipt)).holds


async def test_an_erasure_beside_writers_leaves_none_of_them_anything(
    store: BeanieSessionStore, database: Database
) -> None:
    mine = [BeanieSessionStore(metadata=MINE) for _ in range(4)]

    async def write(number: int, writer: BeanieSessionStore) -> int:
        """Append until it is refused, and return how often it was not."""
        stored = 0
        while True:
            try:
                await writer.append(key(f"s{number % 2}"), [message(f"{number}-{stored}")])
            except SessionErasedError:
                return stored
            stored += 1

    for number in range(2):
        await mine[number].append(key(f"s{number}"), turn(1))
    writers = [asyncio.create_task(write(*each)) for each in enumerate(mine)]
    await asyncio.sleep(0.05)
    receipt = await erased_at_last(store)
    stored = await asyncio.gather(*writers)
    # What was acknowledged was counted, and nothing came behind it.
    assert receipt.counts
    assert receipt.counts["entries"] == 2 * len(turn(1)) + sum(stored)
    assert await database["claude_transcript_entries"].count_documents({}) == 0
    assert (await store.verify_erasure(receipt)).holds


async def erased_at_last(store: BeanieSessionStore) -> ErasureReceipt:
    """The receipt of an erasure that is asked for until writers leave nothing of it undone."""
    for _ in range(20):
        receipt = await store.erase(metadata=MINE)
        if not receipt.failed:
            return receipt
    pytest.fail(f"writers kept it from {receipt.failed}")


async def test_beside_eight_steady_writers_all_of_a_subject_goes_and_nothing_of_others(
    store: BeanieSessionStore, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is there at the end is counted by the driver alone, session by session."""
    # Some pages of those that are looked for, and in between what stays.
    monkeypatch.setattr(matching, "_PAGE", 10)
    theirs = [key(f"s-{n:03}-mine") for n in range(25)]
    stays = [key(f"s-{n:03}-stays") for n in range(16)]
    expected: Counter[str] = Counter()
    for metadata, keys in ((MINE, theirs), ({"user_id": "u2"}, stays)):
        writer = BeanieSessionStore(metadata=metadata)
        await asyncio.gather(*(writer.append(each, turn(1)) for each in keys))
        expected.update({each["session_id"]: len(turn(1)) for each in keys})
    is_over = asyncio.Event()

    async def write(number: int) -> None:
        """Write to sessions of both, and begin new ones of who stays."""
        mine, other = (BeanieSessionStore(metadata={"user_id": u}) for u in ("u1", "u2"))
        round_ = 0
        while not is_over.is_set():
            round_ += 1
            one = theirs[(number * 3 + round_) % len(theirs)]
            try:
                await mine.append(one, [message("mine")])
                expected[one["session_id"]] += 1
            except SessionErasedError:
                pass
            # So many new ones that they are among all, not so many that a slow machine lists no
            # end of them.
            for session in (stays[(number * 5 + round_) % 16], key(f"new-{number}-{round_ % 8}")):
                await other.append(session, [message("other")])
                expected[session["session_id"]] += 1
            await asyncio.sleep(0.02)

    async def list_on() -> None:
        while not is_over.is_set():
            assert [each async for each in store.all_sessions()]
            await asyncio.sleep(0.02)

    running = [asyncio.create_task(each) for each in (*map(write, range(8)), list_on())]
    receipt = await erased_at_last(store)
    is_over.set()
    await asyncio.gather(*running)
    assert receipt.is_whole
    assert [each["session_id"] for each in receipt.sessions] == [
        each["session_id"] for each in theirs
    ]
    erased = {each["session_id"] for each in theirs}
    counted = Counter(
        [
            row["session_id"]
            for row in await database["claude_transcript_entries"].find().to_list(None)
        ]
    )
    assert counted == Counter({name: n for name, n in expected.items() if name not in erased})
    assert receipt.counts
    assert receipt.counts["entries"] == sum(expected[name] for name in erased)
    summaries = await database["claude_transcript_summaries"].find().to_list(None)
    assert {row["session_id"] for row in summaries if "erased_until" in row} == erased
    living = {row["session_id"] for row in summaries if "erased_until" not in row}
    assert living == set(expected) - erased
    assert (await store.verify_erasure(receipt)).holds


async def test_what_comes_from_elsewhere_is_left_out_and_told(
    store: BeanieSessionStore, database: Database, tmp_path: Path
) -> None:
    mine = BeanieSessionStore(metadata=MINE)
    for name in ("erased-1", "erased-2"):
        await mine.append(key(name), turn(1))
    await store.append(key("kept"), turn(1))
    await export_transcripts(store, tmp_path / "before")
    elsewhere = BeanieSessionStore(tenant="elsewhere")
    await copy_sessions(store, elsewhere)
    await _as_another_adapter(database, "erased-1")
    receipt = await store.erase(metadata=MINE)
    await store.delete(key("kept"))
    problems: list[Any] = []
    report = await import_transcripts(store, tmp_path / "before", on_problem=problems.append)
    assert (report.changed, report.failed) == (1, 2)
    assert all("was erased" in str(each) for each in problems)
    report = await copy_sessions(elsewhere, store)
    assert report.failed == 2
    adopted = await adopt(database, tenant="default", source="pull-request-1014")
    assert adopted.problem_count == 1
    assert "was erased" in adopted.problems[0].reason
    assert (await store.verify_erasure(receipt)).holds
    listed = [each.session_id async for each in store.all_sessions()]
    assert listed == ["kept"]


async def _as_another_adapter(database: Database, session: str) -> None:
    rows = [{**key(session), "entry": entry, "mtime": 1_700_000_000_000} for entry in turn(1)]
    await database["sdk_sessions"].insert_many(rows)


async def test_a_server_without_transactions_keeps_tombstones_too(
    standalone_database: Database,
) -> None:
    mine = BeanieSessionStore(metadata=MINE)
    await mine.append(key("s"), turn(1))
    receipt = await BeanieSessionStore().erase(metadata=MINE)
    assert receipt.counts
    assert (receipt.counts["sessions"], receipt.counts["entries"]) == (1, len(turn(1)))
    with pytest.raises(SessionErasedError):
        await mine.append(key("s"), turn(2))
    assert (await mine.verify_erasure(receipt)).holds
    assert await standalone_database["claude_transcript_entries"].count_documents({}) == 0
