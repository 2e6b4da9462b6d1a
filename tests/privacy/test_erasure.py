"""What was erased is gone from every collection and stays gone; a receipt says what it was."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import bson
import pytest
from support.entries import message, turn
from support.server import without_expiry

from beanie_session_store import (
    EVERY,
    BeanieSessionStore,
    ErasureReceipt,
    InvalidQueryError,
    InvalidReceiptError,
    InvalidRetentionError,
    NewSession,
    Removal,
    SessionErasedError,
    SessionSummary,
    UnknownSessionError,
    diagnose,
    sweep_sessions,
)
from beanie_session_store.app.database.driver import Database, collection_of
from beanie_session_store.app.reading import load
from beanie_session_store.app.storage.codec import MAX_VALUE_BYTES
from beanie_session_store.app.writing import deletion, remains

MINE = {"user_id": "u1"}
THEIRS = turn(1)
CANARY = "canary-7f3a"
SUMMARIES = "claude_transcript_summaries"
ERASURES = "claude_transcript_erasures"


def key(session: str, subpath: str = "", project: str = "project") -> dict[str, str]:
    found = {"project_key": project, "session_id": session}
    return {**found, "subpath": subpath} if subpath else found


def said(number: int, **fields: Any) -> list[dict[str, Any]]:
    """A turn that holds the canary wherever a person's words may be."""
    canaries = {"gitBranch": CANARY, "cwd": f"/home/{CANARY}"}
    return [
        message(f"{CANARY} {number}", **canaries, **fields),
        *turn(number),
        {"type": "custom-title", "customTitle": CANARY, "sessionId": "s"},
        {"type": "tag", "tag": CANARY, "sessionId": "s"},
    ]


async def found_in(database: Database, text: str) -> dict[str, int]:
    """In which collections a text stands anywhere in a document, and in how many."""
    found: dict[str, int] = {}
    for name in await database.list_collection_names():
        async for row in database[name].find():
            if text.encode() in bson.encode(row):
                found[name] = found.get(name, 0) + 1
    return found


async def documents(database: Database, sessions: set[str]) -> dict[str, int]:
    """How many documents each collection has of some sessions, counted one by one."""
    counts: dict[str, int] = {}
    for name in await database.list_collection_names():
        async for row in database[name].find():
            if row.get("session_id") in sessions:
                counts[name] = counts.get(name, 0) + 1
    return counts


@pytest.fixture
async def filled(database: Database) -> BeanieSessionStore:
    """Sessions of u1, and others that must stay."""
    mine = BeanieSessionStore(metadata={**MINE, "name": CANARY})
    await mine.append(key("plain"), said(1))
    await mine.append(key("plain", f"subagents/agent-{CANARY}"), said(2))
    await mine.append(key("elsewhere", project="other"), said(3))
    await mine.append(key("only-subagent", "subagents/agent-a1"), said(4))
    packed = BeanieSessionStore(metadata={**MINE, "n": 2**70, "name": CANARY})
    await packed.append(key("packed"), said(6))
    record = {"tenant": "default", "project_key": "project", "version": 1}
    for session, source in (("plain", CANARY), ("other", "s")):
        await database["claude_transcript_adoptions"].insert_one(
            {**record, "session_id": session, "source": source}
        )
    await BeanieSessionStore(metadata={"user_id": "u10"}).append(key("other"), THEIRS)
    await BeanieSessionStore(tenant="acme", metadata=MINE).append(key("plain"), THEIRS)
    return mine


OF_MINE = {"plain", "elsewhere", "only-subagent", "packed"}


@pytest.fixture
async def with_an_expired_one(
    filled: BeanieSessionStore, database: Database
) -> AsyncIterator[BeanieSessionStore]:
    """The same, and one that is gone for readers already."""
    async with without_expiry(database):
        await filled.append(key("expired"), said(5))
        past = datetime.now(timezone.utc) - timedelta(minutes=1)
        await collection_of(SessionSummary).update_many(
            {"session_id": "expired"}, {"$set": {"expires_at": past}}
        )
        yield filled


async def test_nothing_of_a_subject_is_left_in_any_collection(
    with_an_expired_one: BeanieSessionStore, database: Database
) -> None:
    store, mine = BeanieSessionStore(), {*OF_MINE, "expired"}
    theirs = await BeanieSessionStore(tenant="acme").load(key("plain"))
    before = await documents(database, mine)
    acme = 1 + 6
    looked = await store.erase(metadata=MINE, dry_run=True)
    assert await documents(database, mine) == before
    assert (looked.erasure, looked.ended_at) == (None, None)
    seen: list[Removal] = []
    receipt = await store.erase(metadata=MINE, by="ops", on_progress=seen.append)
    assert {each["session_id"] for each in receipt.sessions} == mine
    assert looked.sessions == receipt.sessions
    assert (
        receipt.counts
        == looked.counts
        == {
            "sessions": 5,
            "entries": before["claude_transcript_entries"] - (acme - 1),
            "chunks": 0,
            "adoption_records": 1,
        }
    )
    assert (receipt.by, receipt.tenant, receipt.subject) == (("ops",), "default", MINE)
    assert receipt.is_whole
    assert (seen[-1].found, seen[-1].deleted) == (5, 5)
    assert await found_in(database, CANARY) == {}
    # Only the tombstones, and what is another tenant's under the same key.
    left = {SUMMARIES: 5 + 1, "claude_transcript_entries": acme - 1}
    assert await documents(database, mine) == left
    assert await BeanieSessionStore(tenant="acme").load(key("plain")) == theirs
    assert await store.load(key("other")) == THEIRS
    assert (await store.verify_erasure(receipt)).holds


async def test_a_tombstone_holds_the_key_and_how_long(
    filled: BeanieSessionStore, database: Database
) -> None:
    before = datetime.now(timezone.utc)
    receipt = await filled.erase(metadata=MINE, tombstones=timedelta(hours=2))
    assert receipt.until is not None
    assert timedelta(hours=1, minutes=59) < receipt.until - before < timedelta(hours=2, minutes=1)
    rows = database[SUMMARIES].find({"tenant": "default", "erased_until": {"$exists": True}})
    async for row in rows:
        assert row.pop("created_at") >= before.replace(tzinfo=None) - timedelta(seconds=5)
        assert row.pop("erased_until").replace(tzinfo=timezone.utc) <= receipt.until
        names = {"_id", "tenant", "project_key", "session_id", "erasure"}
        assert {*row} - names == {"next_seq", "first_seq", "expires_at"}
        assert (row["next_seq"], row["first_seq"], row["expires_at"]) == (1, 1, 0)
    (record,) = await database[ERASURES].find().to_list(None)
    assert "u1" not in repr({**record, "_id": 0, "subject": 0})
    assert len(record["subject"]) == 64
    # Nobody takes it for something that is still to be done.
    assert (await sweep_sessions(database)).swept == 0
    (finding,) = [f for f in (await diagnose(database)).findings if f.check == "retention"]
    assert finding.verdict == "good"
    assert len(await database[SUMMARIES].find({"erasure": record["_id"]}).to_list(None)) == 4


async def through_append(store: BeanieSessionStore) -> None:
    await store.append(key("plain"), turn(9))


async def through_a_subagent(store: BeanieSessionStore) -> None:
    await store.append(key("plain", "subagents/agent-new"), turn(9))


async def through_a_new_store(_: BeanieSessionStore) -> None:
    await BeanieSessionStore(metadata=MINE).append(key("plain"), turn(9))


async def through_a_replay(store: BeanieSessionStore) -> None:
    await (await store.replay(key("plain"))).add(turn(9))


async def through_the_same_again(store: BeanieSessionStore) -> None:
    await store.append(key("plain"), said(1))


@pytest.mark.parametrize(
    "way",
    [
        through_append,
        through_a_subagent,
        through_a_new_store,
        through_a_replay,
        through_the_same_again,
    ],
)
async def test_nobody_brings_an_erased_session_back(
    filled: BeanieSessionStore, database: Database, way: Callable[[BeanieSessionStore], Any]
) -> None:
    receipt = await BeanieSessionStore().erase(metadata=MINE)
    for _ in range(2):
        with pytest.raises(SessionErasedError, match="was erased; nothing was stored"):
            await way(filled)
    with pytest.raises(UnknownSessionError):
        await filled.repair(key("plain"), bring_back=True)
    with pytest.raises(UnknownSessionError):
        await filled.hold(key("plain"))
    assert await filled.load(key("plain")) is None
    await filled.delete(key("plain"))
    with pytest.raises(SessionErasedError):
        await way(filled)
    assert (await filled.verify_erasure(receipt)).holds
    assert await found_in(database, CANARY) == {}
    # Another session of the same person is no erased one.
    await filled.append(key("new"), turn(1))
    since = (await filled.verify_erasure(receipt)).since
    assert since == (key("new"),)


async def test_new_sessions_at_once_leave_erased_ones_out(filled: BeanieSessionStore) -> None:
    await filled.erase(metadata=MINE)
    made = [NewSession("project", name, None, {"": turn(1)}) for name in ("n1", "plain", "n2")]
    assert await filled.insert_sessions(made) == [6, None, 6]


async def test_after_its_time_the_key_is_free_again(
    filled: BeanieSessionStore, database: Database
) -> None:
    async with without_expiry(database):
        receipt = await filled.erase(metadata=MINE, tombstones=timedelta(milliseconds=1))
        assert await database[SUMMARIES].count_documents({"erased_until": {"$exists": True}}) == 4
        anew = turn(3)
        await filled.append(key("plain"), anew)
        assert await BeanieSessionStore().load(key("plain")) == anew
        assert await BeanieSessionStore().verify(key("plain"))
        check = await filled.verify_erasure(receipt)
        assert not check.holds
        (remnant,) = check.remnants
        assert remnant.documents == {"claude_transcript_entries": 6, SUMMARIES: 1}
        assert "session 'plain' of project 'project': 6 in" in str(remnant)


async def test_mongodb_takes_tombstones_and_records_at_their_date(
    store: BeanieSessionStore, database: Database
) -> None:
    await BeanieSessionStore(metadata=MINE).append(key("plain"), turn(1))
    await store.erase(metadata=MINE)
    names = {"transcript_tombstone": SUMMARIES, "erasure_expiry": ERASURES}
    for name, collection in names.items():
        index = (await database[collection].index_information())[name]
        assert index["expireAfterSeconds"] == 0
    assert (await database[SUMMARIES].index_information())["transcript_tombstone"]["sparse"]


async def test_holds_prevail_and_are_listed(filled: BeanieSessionStore) -> None:
    await filled.hold(key("plain"))
    assert (await filled.erase(metadata=MINE, dry_run=True)).held == (key("plain"),)
    receipt = await filled.erase(metadata=MINE)
    assert receipt.held == (key("plain"),)
    assert (len(receipt.sessions), receipt.is_whole) == (3, False)
    assert await filled.load(key("plain"))
    check = await filled.verify_erasure(receipt)
    assert (check.holds, check.since) == (True, ())
    await filled.release(key("plain"))
    last = await filled.erase(metadata=MINE)
    assert [each["session_id"] for each in last.sessions] == ["plain"]
    assert last.erasure != receipt.erasure


async def test_a_hold_that_comes_meanwhile_prevails(
    filled: BeanieSessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = deletion._mark

    async def held_first(connection: Any, session: Any, row: Any, *given: Any) -> bool:
        if session.session_id == "plain" and row.held_at is None:
            await BeanieSessionStore().hold(key("plain"))
        return await real(connection, session, row, *given)

    monkeypatch.setattr(deletion, "_mark", held_first)
    receipt = await filled.erase(metadata=MINE)
    assert receipt.held == (key("plain"),)
    assert receipt.counts
    assert receipt.counts["sessions"] == 3


def forked(entries: list[dict[str, Any]], source: str) -> list[dict[str, Any]]:
    """As the SDK forks: other uuids, and where each entry comes from."""
    return [
        {**each, "uuid": f"{each['uuid']}-{source}", "forkedFrom": {"sessionId": source}}
        for each in entries
        if "uuid" in each
    ]


async def test_forks_are_listed_or_erased_too(
    filled: BeanieSessionStore, database: Database
) -> None:
    others = BeanieSessionStore(metadata={"user_id": "u2"})
    await others.append(key("fork"), forked(said(1), "plain"))
    await others.append(key("fork-of-fork", project="other"), forked(said(1), "fork"))
    await others.append(key("held-fork"), forked(said(1), "plain"))
    await others.hold(key("held-fork"))
    await BeanieSessionStore(tenant="acme").append(key("theirs"), forked(turn(1), "plain"))
    names = {"fork", "fork-of-fork", "held-fork"}
    looked = await filled.erase(metadata=MINE, dry_run=True)
    assert {each["session_id"] for each in looked.forked} == names
    receipt = await filled.erase(metadata=MINE)
    assert {each["session_id"] for each in receipt.forked} == names
    assert not receipt.is_whole
    # Called again, it knows whose forks they are.
    receipt = await filled.erase(metadata=MINE, forks=True)
    assert {each["session_id"] for each in receipt.sessions} >= {"fork", "fork-of-fork"}
    assert (receipt.held, receipt.forked) == ((key("held-fork"),), ())
    await others.release(key("held-fork"))
    await filled.erase(metadata=MINE, forks=True)
    assert await found_in(database, CANARY) == {}
    with pytest.raises(SessionErasedError):
        await others.append(key("fork"), turn(1))
    assert await BeanieSessionStore(tenant="acme").load(key("theirs"))


async def test_a_whole_tenant_goes_and_no_other(
    filled: BeanieSessionStore, database: Database
) -> None:
    entries = await database["claude_transcript_entries"].count_documents({"tenant": "default"})
    receipt = await filled.erase(EVERY)
    assert receipt.subject is None
    assert receipt.counts
    assert receipt.counts["sessions"] == 5
    assert receipt.counts["entries"] == entries
    assert receipt.counts["adoption_records"] == 2
    for name in ("claude_transcript_entries", "claude_transcript_chunks"):
        assert await database[name].count_documents({"tenant": "default"}) == 0
    assert await BeanieSessionStore(tenant="acme").load(key("plain")) == THEIRS
    assert (await filled.verify_erasure(receipt)).holds
    with pytest.raises(InvalidReceiptError, match="of tenant 'default', not of 'acme'"):
        await BeanieSessionStore(tenant="acme").verify_erasure(receipt)


SLIPS: list[tuple[dict[str, Any], type[Exception]]] = [
    ({}, InvalidQueryError),
    ({"metadata": {}}, InvalidQueryError),
    ({"metadata": None}, InvalidQueryError),
    ({"whole": EVERY, "metadata": MINE}, InvalidQueryError),
    ({"whole": EVERY, "metadata": {}}, InvalidQueryError),
    ({"whole": "*"}, InvalidQueryError),
    ({"whole": True}, InvalidQueryError),
    ({"metadata": {"user_id": {"$ne": 1}}}, InvalidQueryError),
    ({"metadata": {"a.b": 1}}, InvalidQueryError),
    # All that nobody put a name on.
    ({"metadata": {"user_id": None}}, InvalidQueryError),
    ({"metadata": {"app": "web", "user_id": None}, "dry_run": True}, InvalidQueryError),
    ({"metadata": "u1"}, InvalidQueryError),
    ({"metadata": MINE, "forks": "no"}, InvalidQueryError),
    ({"metadata": MINE, "by": ""}, InvalidQueryError),
    ({"metadata": MINE, "by": 1}, InvalidQueryError),
    ({"metadata": MINE, "tombstones": 30}, InvalidRetentionError),
    ({"metadata": MINE, "tombstones": timedelta(0)}, InvalidRetentionError),
    ({"metadata": MINE, "tombstones": timedelta(days=9999)}, InvalidRetentionError),
]


async def test_no_slip_erases_anything(filled: BeanieSessionStore, database: Database) -> None:
    before = await documents(database, OF_MINE)
    for arguments, error in SLIPS:
        with pytest.raises(error, match="nothing was"):
            await filled.erase(**arguments)
    assert await documents(database, OF_MINE) == before
    assert await database[ERASURES].count_documents({}) == 0


async def test_the_same_call_again_gives_the_same_receipt(filled: BeanieSessionStore) -> None:
    first = await filled.erase(metadata=MINE, by="ops")
    assert await filled.erase(metadata=dict(MINE), by="another") == first
    await filled.append(key("new"), turn(1))
    later = await filled.erase(metadata=MINE)
    assert later.sessions == (key("new"),)
    nobody = await filled.erase(metadata={"user_id": "nobody"})
    assert (nobody.sessions, nobody.is_whole) == ((), True)
    assert (await filled.verify_erasure(nobody)).sessions == 0


async def test_a_receipt_is_known_by_its_digest(filled: BeanieSessionStore) -> None:
    receipt = await filled.erase(metadata=MINE)
    filed = receipt.as_json()
    assert ErasureReceipt.of_json(filed) == receipt
    assert CANARY not in str(filed)
    bad: list[Any] = [
        {**filed, "by": ["somebody"]},
        {**filed, "sessions": filed["sessions"][1:]},
        {**filed, "sessions": [{"project_key": {"$gt": ""}, "session_id": "x"}]},
        {**filed, "more": 1},
        {**filed, "erasure": "no"},
        {name: value for name, value in filed.items() if name != "sha256"},
        {},
        [],
        None,
        "receipt",
    ]
    for each in bad:
        with pytest.raises(InvalidReceiptError):
            await filled.verify_erasure(each)
    looked = await filled.erase(metadata=MINE, dry_run=True)
    with pytest.raises(InvalidReceiptError, match="dry run"):
        await filled.verify_erasure(looked)


async def test_a_large_session_is_swept_and_counted_whole(
    store: BeanieSessionStore, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (deletion, load):
        monkeypatch.setattr(module, "MARKED", 20)
    mine = BeanieSessionStore(metadata=MINE)
    await mine.append(key("s"), [message(f"{CANARY} {n}") for n in range(70)])
    await mine.append(key("s", "subagents/agent-a"), [message(f"s{n}") for n in range(45)])
    receipt = await store.erase(metadata=MINE)
    assert receipt.counts
    assert receipt.counts["entries"] == 115
    assert await found_in(database, CANARY) == {}
    assert await documents(database, {"s"}) == {SUMMARIES: 1}
    with pytest.raises(SessionErasedError):
        await mine.append(key("s"), turn(1))


async def test_pieces_of_large_values_are_counted_and_gone(
    store: BeanieSessionStore, database: Database, smaller_limits: int
) -> None:
    mine = BeanieSessionStore(metadata=MINE)
    await mine.append(
        key("s"), [message(random.randbytes(MAX_VALUE_BYTES // smaller_limits).hex())]
    )
    chunks = await database["claude_transcript_chunks"].count_documents({})
    assert chunks > 1
    receipt = await store.erase(metadata=MINE)
    assert receipt.counts
    assert (receipt.counts["entries"], receipt.counts["chunks"]) == (1, chunks)
    assert await documents(database, {"s"}) == {SUMMARIES: 1}


Work = Callable[..., Any]


class CutOffError(Exception):
    """What stands for the end of the process."""


async def test_an_erasure_that_is_cut_off_anywhere_goes_on_as_the_same_one(
    store: BeanieSessionStore, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is cut off before or behind each transaction in turn, until one run meets no cut."""
    for module in (deletion, load):
        monkeypatch.setattr(module, "MARKED", 20)
    monkeypatch.setattr(remains, "_BATCH", 20)
    monkeypatch.setattr(remains, "_SHARE", 1)
    real = deletion.transact
    left, is_late = 0, False

    async def cut(client: Any, server: Any, work: Work, attempts: Any) -> Any:
        nonlocal left
        left = now = left - 1
        if now == 0 and not is_late:
            raise CutOffError
        result = await real(client, server, work, attempts)
        if now == 0:
            raise CutOffError
        return result

    for module in (deletion, remains):
        monkeypatch.setattr(module, "transact", cut)
    cuts = 0
    is_cut = True
    while is_cut:
        cuts += 1
        is_cut = False
        for is_late in (False, True):
            subject = {"user_id": f"u{cuts}-{is_late}"}
            mine = BeanieSessionStore(metadata=subject)
            prefix = f"{cuts}-{is_late}"
            await mine.append(key(f"{prefix}-small"), said(1))
            await mine.append(key(f"{prefix}-large"), [message(CANARY) for _ in range(55)])
            left = cuts
            try:
                receipt = await store.erase(metadata=subject, by="first")
            except CutOffError:
                is_cut = True
                left = 0
                # Whoever runs meanwhile is refused, or has it whole still.
                receipt = await store.erase(metadata=subject, by="second")
            small, large = key(f"{prefix}-small"), key(f"{prefix}-large")
            assert receipt.sessions == (large, small)
            assert receipt.counts == {
                "sessions": 2,
                "entries": len(said(1)) + 55,
                "chunks": 0,
                "adoption_records": 0,
            }
            assert receipt.by in (("first",), ("first", "second"), ("second",))
            assert receipt.is_whole
            assert await found_in(database, CANARY) == {}
            for each in (small, large):
                with pytest.raises(SessionErasedError):
                    await mine.append(each, turn(1))
    # Two sessions, and a few batches of the large one.
    assert cuts > 4
