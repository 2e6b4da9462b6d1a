"""What came in past the store, by a bare driver or an older release, is healed or named."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import secrets
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any

import pytest
from bson import Decimal128, Regex
from bson.int64 import Int64
from support.command import SessionStoreCommand
from support.entries import KEY, message, turn
from support.server import Commands, connected, without_expiry

from beanie_session_store import (
    BeanieSessionStore,
    EntryChunk,
    SessionStoreError,
    SessionSummary,
    Sweeping,
    TranscriptEntry,
    TransferError,
    UnknownSessionError,
    UnsoundSessionError,
    diagnose,
    set_retention,
    sweep_sessions,
    verify_sessions,
)
from beanie_session_store.app.database.driver import Database, collection_of
from beanie_session_store.app.health import database_checks
from beanie_session_store.app.retention.ending_sessions import ending_sessions

SUBAGENT: Any = {**KEY, "subpath": "subagents/agent-a"}
OWNER = {"tenant": "default", **KEY}


def summaries() -> Any:
    return collection_of(SessionSummary)


def entries() -> Any:
    return collection_of(TranscriptEntry)


async def put(value: Any) -> None:
    await summaries().update_one(OWNER, {"$set": {"next_seq": value}})


async def remove() -> None:
    await summaries().update_one(OWNER, {"$unset": {"next_seq": ""}})


async def put_back(store: BeanieSessionStore) -> None:
    """As a stale document of an earlier release was saved: all of it, and nulls."""
    fields = SessionSummary.model_fields
    before = STALE[0]
    full = {name: before.get(name) for name in fields if name != "id"}
    full |= {"first_seq": 1, "removed": [], "remains": False}
    await summaries().replace_one(OWNER, full)


STALE: list[dict[str, Any]] = []

BROKEN: dict[str, Callable[[BeanieSessionStore], Awaitable[Any]]] = {
    "a stale document": put_back,
    "lower": lambda _: put(3),
    "lowest": lambda _: put(1),
    "zero": lambda _: put(0),
    "negative": lambda _: put(-5),
    "a string": lambda _: put("7"),
    "a float": lambda _: put(3.0),
    "no number": lambda _: put(float("nan")),
    "a decimal": lambda _: put(Decimal128("3")),
    "a boolean": lambda _: put(True),
    "a list": lambda _: put([7]),
    "a pattern": lambda _: put(Regex("7")),
    "nothing": lambda _: put(None),
    "not there": lambda _: remove(),
    "the last of all": lambda _: put(Int64(2**63 - 1)),
    "no summary": lambda _: summaries().delete_one(OWNER),
}


async def filled(store: BeanieSessionStore) -> list[Any]:
    """A session whose subagent wrote between the lines of the main transcript."""
    main = [message("one"), message("two"), message("three"), message("four")]
    await store.append(KEY, main[:2])
    STALE[:] = [await summaries().find_one(OWNER)]
    await store.append(SUBAGENT, [message("deep"), message("deeper")])
    await store.append(KEY, main[2:])
    return main


async def assert_whole(store: BeanieSessionStore, main: list[Any]) -> None:
    assert await store.load(KEY) == main
    assert len(await store.load(SUBAGENT) or []) == 2
    assert not (await store.verify(KEY)).differences
    seqs = [row["seq"] async for row in entries().find(OWNER)]
    assert len(seqs) == len(set(seqs)) == len(main) + 2
    (listed,) = await store.list_session_summaries("project")
    assert listed["session_id"] == "session"
    assert len((await store.sessions()).sessions) == 1


@pytest.mark.parametrize("writer", ["the same store", "another store"])
@pytest.mark.parametrize("name", BROKEN)
async def test_an_append_heals_a_summary_that_something_else_broke(
    store: BeanieSessionStore, name: str, writer: str
) -> None:
    main = await filled(store)
    await BROKEN[name](store)
    again = store if writer == "the same store" else BeanieSessionStore()
    for text in ("five", "six"):
        main.append(message(text))
        await again.append(KEY, main[-1:])
    await assert_whole(store, main)


@pytest.mark.parametrize("name", BROKEN)
async def test_on_a_standalone_server_nothing_that_was_stored_is_taken_back(
    standalone_database: Database, name: str
) -> None:
    store = BeanieSessionStore()
    main = await filled(store)
    await BROKEN[name](store)
    main.append(message("five"))
    await BeanieSessionStore().append(KEY, main[-1:])
    await assert_whole(store, main)


@pytest.mark.parametrize("name", BROKEN)
async def test_what_is_broken_is_found_and_repaired(store: BeanieSessionStore, name: str) -> None:
    main = await filled(store)
    await BROKEN[name](store)
    found = await store.verify(KEY)
    assert {each.field for each in found.differences} & {"next_seq", "summary"}
    repaired = await store.repair(KEY)
    assert repr(repaired.differences) == repr(found.differences)
    assert (await store.verify(KEY)).is_sound
    await assert_whole(store, main)


@pytest.mark.parametrize("name", BROKEN)
async def test_a_session_and_its_subagents_are_deleted_whatever_the_summary_says(
    store: BeanieSessionStore, name: str
) -> None:
    main = await filled(store)
    await BROKEN[name](store)
    if name != "no summary":
        await store.delete(SUBAGENT)
        assert await store.load(SUBAGENT) is None
        assert await store.load(KEY) == main
        await BROKEN[name](store)
    # It counts for a large one, which is swept in the background, where it says that it is.
    await store.delete(KEY, wait=True)
    assert await store.load(KEY) is None
    assert await entries().count_documents(OWNER) == 0
    assert await summaries().count_documents(OWNER) == 0


async def test_many_who_come_at_once_to_what_is_broken_lose_nothing(
    store: BeanieSessionStore,
) -> None:
    for name in ("a stale document", "no summary", "a string"):
        await store.delete(KEY)
        main = await filled(store)
        await BROKEN[name](store)
        stores = [BeanieSessionStore() for _ in range(4)]
        more = [message(str(number)) for number in range(4)]
        await asyncio.gather(*(each.append(KEY, [m]) for each, m in zip(stores, more, strict=True)))
        stored = await store.load(KEY) or []
        assert stored[:4] == main
        assert sorted(map(str, stored[4:])) == sorted(map(str, more))
        assert (await store.verify(KEY)).is_sound


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_comes_in_past_it_nothing_is_lost_doubled_or_misplaced(
    store: BeanieSessionStore, seed: int
) -> None:
    chance = random.Random(seed)
    stores = [store, BeanieSessionStore(), BeanieSessionStore()]
    expected: dict[str, list[Any]] = {"": await filled(store), "subagents/agent-b": []}
    for step in range(40):
        if chance.random() < 0.3:
            await BROKEN[chance.choice(list(BROKEN))](store)
        if chance.random() < 0.1:
            await chance.choice(stores).repair(KEY)
        subpath = chance.choice(list(expected))
        key: Any = {**KEY, "subpath": subpath} if subpath else KEY
        batch: list[Any] = [message(f"{step}/{number}") for number in range(chance.randint(1, 3))]
        again = expected[subpath][-1:] if chance.random() < 0.2 else []
        # Now and then with what is stored already.
        await chance.choice(stores).append(key, again + batch)
        expected[subpath] += batch
    for subpath, entries_ in expected.items():
        assert await store.load({**KEY, "subpath": subpath} if subpath else KEY) == entries_
    assert (await store.verify(KEY)).is_sound


async def test_chunks_of_another_entry_are_not_written_over(
    standalone_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("beanie_session_store.app.storage.codec.MAX_VALUE_BYTES", 2000)
    monkeypatch.setattr("beanie_session_store.app.storage.codec.CHUNK_BYTES", 1000)
    big = message(secrets.token_hex(4000))
    bigger = message(secrets.token_hex(6000))
    store = BeanieSessionStore()
    await store.append(KEY, [message("one")])
    await store.append(KEY, [big])
    assert await collection_of(EntryChunk).count_documents({}) > 0
    for seq in (1, 2):
        await put(seq)
        await BeanieSessionStore().append(KEY, [bigger, message("more")])
        await BeanieSessionStore().append(KEY, [message("even more")])
    loaded = await store.load(KEY) or []
    assert loaded[1:3] == [big, bigger]
    assert len(loaded) == 7
    assert (await store.verify(KEY)).is_sound


async def test_what_an_earlier_save_left_is_looked_at_once(
    store: BeanieSessionStore, mongo_url: str, database: Database
) -> None:
    await filled(store)
    nulls = dict.fromkeys(("packed_data", "data_chunks", "tag", "expires_at", "held_at"), None)
    await summaries().update_one(OWNER, {"$set": nulls})
    await BeanieSessionStore().append(KEY, [message("five")])
    row = await summaries().find_one(OWNER)
    assert None not in row.values()
    commands = Commands()
    async with connected(mongo_url, event_listeners=[commands]) as client:
        other = BeanieSessionStore.on(client[database.name])
        await other.append({**KEY, "session_id": "warm"}, [message("up")])
        commands.sent.clear()
        await other.append(KEY, [message("six")])
        # The state, and a transaction: nobody who is well pays for those who are not.
        assert commands.names == ["aggregate", "update", "insert", "commitTransaction"]
        commands.sent.clear()
        await other.append(KEY, [message("seven")])
        assert commands.names == ["update", "insert", "commitTransaction"]


async def test_a_summary_that_is_broken_over_and_over_is_named(
    store: BeanieSessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await filled(store)

    async def no_repair(*_: Any, **__: Any) -> None:
        await put("broken")

    await put("broken")
    monkeypatch.setattr("beanie_session_store.app.writing.sound_state.mend", no_repair)
    with pytest.raises(UnsoundSessionError, match=r"nothing was stored.*verify --repair"):
        await BeanieSessionStore().append(KEY, [message("five")])


async def test_a_replay_of_what_lost_its_summary_adds_nothing(store: BeanieSessionStore) -> None:
    batch: list[Any] = [{"type": "mode", "n": number} for number in range(3)]
    await store.append(KEY, batch)
    for name in ("no summary", "a string"):
        await BROKEN[name](store)
        replay = await store.replay(KEY)
        assert await replay.add(batch) == 0
        assert await store.load(KEY) == batch
        assert (await store.repair(KEY)) is not None


# Entries without a summary


async def test_a_summary_is_made_anew_as_it_was(store: BeanieSessionStore) -> None:
    for number in range(3):
        await store.append(KEY, turn(number))
    await store.append(SUBAGENT, turn(5))
    await store.append(KEY, [{"type": "custom-title", "customTitle": "Mine", "uuid": "t"}])
    before = await summaries().find_one(OWNER)
    listed = await store.list_session_summaries("project")
    usage = await store.usage()
    await summaries().delete_one(OWNER)
    assert await store.list_sessions("project") == []
    assert [each.key() async for each in store.lost_sessions()] == [KEY]
    (difference,) = (await store.repair(KEY)).differences
    assert (difference.field, difference.stored) == ("summary", None)
    after = await summaries().find_one(OWNER)
    same = set(before) - {"_id", "next_seq", "mtime", "totals", "created_at"}
    assert {name: before[name] for name in same} == {name: after.get(name) for name in same}
    assert abs(after["mtime"] - before["mtime"]) < 60_000
    assert [each | {"mtime": 0} for each in await store.list_session_summaries("project")] == [
        each | {"mtime": 0} for each in listed
    ]
    assert await store.usage() == usage
    assert [each async for each in store.lost_sessions()] == []
    await store.append(KEY, turn(7))
    assert (await store.verify(KEY)).is_sound


async def test_all_of_a_tenant_that_lack_one_are_found_and_repaired(
    store: BeanieSessionStore, mongo_url: str, database: Database
) -> None:
    command = SessionStoreCommand(mongo_url, database.name)
    for number in range(4):
        await store.append({**KEY, "session_id": f"s{number}"}, turn(number))
    await BeanieSessionStore(tenant="other").append({**KEY, "session_id": "s9"}, turn(1))
    await summaries().delete_many({"session_id": {"$in": ["s1", "s2", "s9"]}})
    found = await command("verify")
    # Several are looked at at once.
    assert (found.code, sorted(found.output.splitlines())) == (
        1,
        [
            "4 sessions (24 entries) looked at: 2 unsound, 0 repaired, 0 failed",
            "s1 of project: its summary is gone",
            "s2 of project: its summary is gone",
        ],
    )
    diagnosis = await diagnose(database)
    finding = diagnosis.of("summaries")
    assert finding is not None
    assert finding.verdict == "warning"
    assert finding.found.startswith("3 of 5 sessions have entries but no summary")
    assert "verify --repair" in (finding.advice or "")
    one = await command("verify", "--repair", "s2", "--project", "project")
    assert (one.code, one.output.splitlines()[0]) == (
        0,
        "s2 of project: its summary is gone (repaired)",
    )
    report = await verify_sessions(store, repair=True)
    assert (report.sessions, report.repaired, report.is_sound) == (4, 1, True)
    assert len(await store.list_sessions("project")) == 4
    assert (await command("--tenant", "other", "verify", "--repair")).code == 0
    finding = (await diagnose(database)).of("summaries")
    assert finding is not None
    assert (finding.verdict, finding.found) == (
        "good",
        "5 sessions with entries: none lacks its summary",
    )


async def test_an_examination_looks_at_so_many_sessions_at_most(
    store: BeanieSessionStore, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        await store.append({**KEY, "session_id": f"s{number}"}, [message("hello")])
    await summaries().delete_many({"session_id": {"$in": ["s1", "s4"]}})
    monkeypatch.setattr(database_checks, "_MANY", 3)
    finding = (await diagnose(database)).of("summaries")
    assert finding is not None
    assert finding.found.startswith("1 of the first 3 sessions has entries but no summary")


async def expired(store: BeanieSessionStore) -> None:
    """Leave what MongoDB leaves of an expired session."""
    date = datetime.now(timezone.utc) + timedelta(days=1)
    await entries().update_many(OWNER, {"$set": {"expires_at": date}})
    await summaries().delete_one(OWNER)


async def test_what_may_have_expired_does_not_come_back_by_itself(
    store: BeanieSessionStore, mongo_url: str, database: Database
) -> None:
    main = await filled(store)
    await expired(store)
    for work in (store.verify, store.repair):
        with pytest.raises(UnknownSessionError):
            await work(KEY)
    assert [each async for each in store.lost_sessions()] == []
    assert [each.session_id async for each in store.lost_sessions(with_expired=True)] == ["session"]
    report = await verify_sessions(store, repair=True)
    assert (report.sessions, report.is_sound) == (0, True)
    finding = (await diagnose(database)).of("summaries")
    assert finding is not None
    assert finding.verdict == "good"
    # Only where that is said of this one.
    command = SessionStoreCommand(mongo_url, database.name)
    for arguments in (("--bring-back",), ("--repair", "--bring-back"), ("--bring-back", "session")):
        refused = await command("verify", *arguments)
        assert (refused.code, "--bring-back is for" in refused.errors) == (2, True)
    with pytest.raises(TransferError, match="bring_back"):
        await verify_sessions(store, repair=True, bring_back=True)
    done = await command("verify", "--repair", "--bring-back", "session")
    assert done.code == 0, done.errors
    await assert_whole(store, main)
    assert await entries().count_documents({"expires_at": {"$exists": True}}) == 0


async def test_an_append_to_what_may_have_expired_begins_anew(store: BeanieSessionStore) -> None:
    await filled(store)
    await expired(store)
    await store.append(KEY, [message("anew")])
    assert len(await store.load(KEY) or []) == 1


async def test_what_is_brought_back_falls_under_the_policy_of_today(
    store: BeanieSessionStore, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("storage.expiry", "retention.policies"):
        monkeypatch.setattr(f"beanie_session_store.app.{module}.CACHE_SECONDS", 0.05)
    main = await filled(store)
    await expired(store)
    await entries().update_many(
        OWNER, {"$set": {"created_at": datetime.now(timezone.utc) - timedelta(days=90)}}
    )
    await set_retention(database, timedelta(days=30))
    await store.repair(KEY, bring_back=True)
    row = await summaries().find_one(OWNER)
    left = row["expires_at"].replace(tzinfo=timezone.utc) - datetime.now(timezone.utc)
    assert timedelta(days=29) < left < timedelta(days=33.1)
    assert await entries().count_documents({"expires_at": {"$lt": row["expires_at"]}}) == 0
    await assert_whole(store, main)


async def at_positions(subpath: str, *seqs: int) -> None:
    """Move the entries of a transcript to these positions."""
    found = entries().find({**OWNER, "subpath": subpath}).sort("seq", -1)
    rows = await found.to_list(None)
    for row, seq in zip(rows, sorted(seqs, reverse=True), strict=True):
        await entries().update_one({"_id": row["_id"]}, {"$set": {"seq": Int64(seq)}})


async def test_what_may_have_been_deleted_takes_a_decision(
    store: BeanieSessionStore, mongo_url: str, database: Database
) -> None:
    main = await filled(store)
    # As what is left of a large subagent that was deleted.
    await at_positions("subagents/agent-a", 1500, 1501)
    await summaries().delete_one(OWNER)
    assert (await store.verify(KEY)).differences
    with pytest.raises(UnsoundSessionError, match=r"cannot be told.*--bring-back"):
        await store.repair(KEY)
    with pytest.raises(SessionStoreError, match=r"cannot be told.*--bring-back"):
        await store.append(KEY, [message("five")])
    command = SessionStoreCommand(mongo_url, database.name)
    done = await command("verify", "--repair")
    assert done.code == 1
    assert "cannot be told" in done.output
    assert await summaries().count_documents({}) == 0
    assert (await sweep_sessions(database)).swept == 0
    assert await entries().count_documents(OWNER) == 6
    await store.repair(KEY, bring_back=True)
    await assert_whole(store, main)


async def test_a_deleted_session_never_comes_back(
    store: BeanieSessionStore, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await filled(store)
    await at_positions("", 1, 2, 1002, 1003)
    await summaries().update_one(OWNER, {"$set": {"next_seq": Int64(1004)}})
    # Nobody sweeps it for now.
    monkeypatch.setattr("beanie_session_store.app.writing.deletion.AT_ONCE", 0)
    monkeypatch.setattr("beanie_session_store.app.writing.deletion.go_on", lambda *_: None)
    await store.delete(KEY)
    assert await entries().count_documents({**OWNER, "seq": {"$gt": 1}}) == 2
    # The first one is kept for those who append beside a sweep.
    assert await entries().count_documents({**OWNER, "expires_at": {"$type": "date"}}) == 1
    for bring_back in (False, True):
        with pytest.raises(UnknownSessionError):
            await store.repair(KEY, bring_back=bring_back)
    report = await verify_sessions(store, repair=True)
    assert (report.sessions, report.is_sound) == (0, True)
    # Even if the mark is lost as well.
    await summaries().delete_one(OWNER)
    with pytest.raises(UnsoundSessionError):
        await store.repair(KEY)
    assert await store.load(KEY) is None


async def test_a_sweep_leaves_alone_what_can_be_repaired(
    store: BeanieSessionStore, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    await filled(store)
    await summaries().delete_one(OWNER)
    other: Any = {**KEY, "session_id": "other"}
    await store.append(other, [message("hello")])
    await entries().update_many(
        {"session_id": "other"}, {"$set": {"expires_at": datetime.now(timezone.utc) + timedelta(1)}}
    )
    await summaries().delete_one({"session_id": "other"})
    assert (await sweep_sessions(database)).swept == 1
    assert "verify --repair" in caplog.text
    assert await entries().count_documents(OWNER) == 6
    assert await entries().count_documents({"session_id": "other"}) == 0
    await store.delete(KEY)
    assert await entries().count_documents({}) == 0


async def test_a_repair_that_was_cut_off_is_finished_by_whoever_comes(
    store: BeanieSessionStore,
) -> None:
    main = await filled(store)
    row = await summaries().find_one(OWNER)
    await summaries().delete_one(OWNER)
    # What a repair puts there first.
    kept = ("_id", "tenant", "project_key", "session_id", "created_at", "active_at")
    await summaries().insert_one({name: row[name] for name in kept})
    assert await store.list_sessions("project") == []
    assert await store.list_session_summaries("project") == []
    main.append(message("five"))
    await BeanieSessionStore().append(KEY, main[-1:])
    await assert_whole(store, main)


async def test_a_session_of_a_subagent_alone_is_made_anew(store: BeanieSessionStore) -> None:
    await store.append(SUBAGENT, [message("deep")])
    await summaries().delete_one(OWNER)
    await store.repair(KEY)
    assert (await store.verify(KEY)).is_sound
    assert await store.list_sessions("project") == []
    assert [each.mtime async for each in store.all_sessions()] == [None]


FOREIGN: list[dict[str, Any]] = [
    {"odd": 1},
    {"odd": 2, "tenant": 5, "project_key": "project", "session_id": "session"},
    {"odd": 3, "tenant": "default"},
    {"odd": 4, "tenant": "default", "project_key": "project"},
    {"odd": 5, "tenant": "default", "project_key": 5, "session_id": {"a": 1}},
    {"odd": 6, "tenant": ["default"], "project_key": "project", "session_id": "session"},
]


async def test_what_is_of_no_session_is_let_alone(
    store: BeanieSessionStore, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends no walk over the sessions either, before all of them are met."""
    monkeypatch.setattr("beanie_session_store.app.retention.policies.CACHE_SECONDS", 0)
    monkeypatch.setattr("beanie_session_store.app.retention.policies._SESSIONS_AT_ONCE", 2)
    monkeypatch.setattr("beanie_session_store.app.writing.housekeeping._PAGE", 2)
    monkeypatch.setattr("beanie_session_store.app.retention.matching._PAGE", 2)
    names = [f"s{number}" for number in range(3)]
    for name in names:
        await store.append({**KEY, "session_id": name}, [message(name)])
    gone = {"expires_at": datetime.now(timezone.utc) - timedelta(1)}
    for collection in (summaries(), entries()):
        await collection.insert_many([dict(each) for each in FOREIGN])
    await summaries().delete_one({"session_id": "s2"})
    lost = [each.session_id async for each in store.lost_sessions()]
    assert lost == ["s2"]
    found = {each.check: each for each in (await diagnose(database)).findings}["summaries"]
    assert "1 of 3" in found.found
    await store.repair({**KEY, "session_id": "s2"})
    assert [each.session_id async for each in store.all_sessions()] == names
    assert (await store.session_named("s1")).session_id == "s1"

    # It is as old as can be, and so would expire at once.
    assert await ending_sessions(database, timedelta(1)) == 0
    assert (await set_retention(database, timedelta(1))).sessions == 3
    await summaries().update_many({"session_id": "s0"}, {"$set": gone})
    async with without_expiry(database):
        await summaries().update_many({"odd": {"$exists": True}}, {"$set": gone})
        assert await sweep_sessions(database) == Sweeping(1, ())
        await summaries().update_many({"odd": {"$exists": True}}, {"$set": {"expires_at": 0}})
        assert (await sweep_sessions(database)).failed == ()
        removal = await store.delete_sessions(project_key="project")
        assert removal.deleted == 2
        for collection in (summaries(), entries()):
            assert await collection.count_documents({}) == len(FOREIGN)


ODD: list[Any] = [
    *(True, False, "x", 5, 2.5, [5], [{}], {"$gt": 1}, Regex("a"), 2**62),
    *([{"subpath": 5, "before": "x"}], [{"subpath": "a", "before": 5.5}]),
    *([{"subpath": "a", "before": True}], [{"subpath": "a", "before": 5.0}] * 2),
    *({"to": "x"}, {"until": 5, "next_seq": "x"}, {"next_seq": math.inf, "to": None}),
]


@pytest.mark.parametrize("every", [3, pytest.param(1, marks=pytest.mark.soak)])
@pytest.mark.parametrize(
    ("number", "field"), list(enumerate(["removed", "backstop", "expires_at", "first_seq"]))
)
async def test_no_odd_value_raises_what_is_no_error_of_the_package(
    store: BeanieSessionStore, database: Database, number: int, field: str, every: int
) -> None:
    async def streamed(key: Any) -> None:
        async for _ in store.stream(key, with_subagents=True):
            pass

    # Of each field others.
    for at in range(number % every, len(ODD), every):
        value = ODD[at]
        key: Any = {**KEY, "session_id": f"s{at}"}
        subagent: Any = {**key, "subpath": SUBAGENT["subpath"]}
        await store.append(key, turn(at))
        await store.append(subagent, [message()])
        calls: list[Callable[[], Awaitable[Any]]] = [
            *(partial(read, key) for read in (store.load, streamed, store.list_subkeys)),
            *(partial(ask, key) for ask in (store.summary, store.transcript, store.verify)),
            *(store.sessions, store.usage, partial(sweep_sessions, database)),
            *(partial(BeanieSessionStore().append, each, [message()]) for each in (key, subagent)),
            *(partial(change, key) for change in (store.hold, store.release, store.repair)),
            *(partial(store.delete, each) for each in (subagent, key)),
        ]
        for call in calls:
            await summaries().update_one({"session_id": f"s{at}"}, {"$set": {field: value}})
            with contextlib.suppress(SessionStoreError):
                await call()
