"""Who erased, exported, held and read is recorded first, in one chain that tells of harm."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from faults.processes import forking
from pymongo.errors import AutoReconnect
from support.entries import KEY, SUBAGENT, turn
from support.pages import pages_of
from support.watchdog import WATCHDOG_SECONDS

from beanie_session_store import (
    EVERY,
    AuditUnavailableError,
    BeanieSessionStore,
    InvalidActorError,
    InvalidQueryError,
    audit_records,
    clear_retention,
    copy_sessions,
    export_transcripts,
    set_retention,
    verify_audit,
)
from beanie_session_store.app.audit import records
from beanie_session_store.app.database.driver import Database

AUDIT = "claude_transcript_audit"
MINE = {"user_id": "u1-canary"}


@pytest.fixture
def audited(database: Database) -> BeanieSessionStore:
    return BeanieSessionStore(metadata=MINE, audit=True, actor="ann@acme")


async def done(database: Database, **which: Any) -> list[tuple[str, str]]:
    """Who did what, in order."""
    return [(each.actor, each.action) async for each in audit_records(database, **which)]


async def filled(store: BeanieSessionStore, many: int = 5) -> None:
    """A session, and records of it."""
    await store.append(KEY, turn(1))
    for n in range(many):
        await (store.release if n % 2 else store.hold)(KEY)


@pytest.mark.usefixtures("quick_policies")
async def test_each_action_is_recorded_with_who_and_on_what(
    audited: BeanieSessionStore, database: Database, tmp_path: Path
) -> None:
    began = datetime.now(timezone.utc) - timedelta(minutes=5)
    await audited.append(KEY, turn(1))
    await audited.append(SUBAGENT, turn(2))
    await audited.load(KEY)
    await audited.hold(KEY)
    await audited.release(KEY)
    await export_transcripts(audited, tmp_path / "all")
    await copy_sessions(audited, BeanieSessionStore(tenant="elsewhere"))
    await audited.delete(SUBAGENT)
    await audited.delete_sessions(metadata=MINE, dry_run=True)
    await audited.delete_sessions(tag="none")
    async with audited.lease(KEY, owner="host") as leased:
        await leased.delete(KEY)
    await audited.append(KEY, turn(1))
    await audited.erase(metadata=MINE, dry_run=True)
    receipt = await audited.erase(metadata=MINE)
    assert receipt.by == ("ann@acme",)
    await set_retention(database, timedelta(days=30), tenant="default", actor="ops")
    await clear_retention(database, tenant="default", actor="ops")
    await set_retention(database, timedelta(days=90), actor="ops")
    await clear_retention(database)
    found = [each async for each in audit_records(database)]
    assert [(each.actor, each.action, each.session_id) for each in found] == [
        ("ann@acme", "hold", "session"),
        ("ann@acme", "release", "session"),
        ("ann@acme", "export", "session"),
        ("ann@acme", "copy", "session"),
        ("ann@acme", "delete", "session"),
        ("ann@acme", "delete sessions", None),
        ("ann@acme", "sessions deleted", None),
        ("ann@acme", "delete", "session"),
        ("ann@acme", "erase", None),
        ("ann@acme", "erased", None),
        ("ops", "set retention", None),
        ("ops", "clear retention", None),
    ]
    assert [each.seq for each in found] == list(range(1, 13))
    assert found[4].subpath == SUBAGENT["subpath"]
    assert found[5].details == {"by": ["tag"]}
    assert found[8].details == {"by": ["metadata.user_id"], "forks": False}
    assert found[9].details == {"erasure": receipt.erasure, "sessions": 1, "held": 0}
    assert found[10].details == {"project_key": "*", "keep_seconds": 30 * 86400}
    assert all(began < each.at < began + timedelta(minutes=10) for each in found)
    assert await done(database, tenant=EVERY) == [("ops", "set retention")]
    assert await done(database, tenant="elsewhere") == []
    assert await done(database, since=found[10].at) == [
        (each.actor, each.action) for each in found if each.at >= found[10].at
    ]
    # Nothing of whom it was about.
    rows = await database[AUDIT].find().to_list(None)
    assert "canary" not in repr(rows)
    assert (await verify_audit(database)).holds


async def test_what_the_pages_show_is_recorded_by_who_looks(
    audited: BeanieSessionStore, database: Database
) -> None:
    await audited.append(KEY, turn(1))
    async with pages_of(audited, actor="bob") as client:
        assert (await client.get("/")).status_code == 200
        assert (await client.get("/s/project/session")).status_code == 200
        assert (await client.get("/s/project/session/export.jsonl")).status_code == 200
        assert (await client.get("/s/project/nosuch")).status_code == 404
    async with pages_of(audited, contents=False, actor="figures") as client:
        assert (await client.get("/")).status_code == 200
    async with pages_of(audited) as client:
        assert (await client.get("/s/project/session")).status_code == 200
    found = [each async for each in audit_records(database)]
    assert [(each.actor, each.action, each.session_id) for each in found] == [
        ("bob", "read", None),
        ("bob", "read", "session"),
        ("bob", "export", "session"),
        ("bob", "read", "nosuch"),
        ("ann@acme", "read", "session"),
    ]
    assert found[1].details["page"] == "/s/{project}/{session}"


async def test_without_an_audit_nothing_is_recorded(
    store: BeanieSessionStore, database: Database, tmp_path: Path
) -> None:
    await filled(store)
    await export_transcripts(store, tmp_path / "all")
    async with pages_of(store, actor="bob") as client:
        assert (await client.get("/s/project/session")).status_code == 200
    await store.recorded("read", KEY)
    await store.erase(EVERY)
    assert AUDIT not in await database.list_collection_names() or not await done(database)
    assert await verify_audit(database) == type(await verify_audit(database))(0, None)


async def refuse_records(database: Database) -> None:
    """Let the server take no record any more."""
    if AUDIT not in await database.list_collection_names():
        await database.create_collection(AUDIT)
    await database.command("collMod", AUDIT, validator={"never": True})


async def take_records(database: Database) -> None:
    await database.command("collMod", AUDIT, validator={})


async def test_what_cannot_be_recorded_is_not_done(
    audited: BeanieSessionStore, database: Database, tmp_path: Path
) -> None:
    await audited.append(KEY, turn(1))
    await audited.append(SUBAGENT, turn(1))
    before = await everything(database)
    await refuse_records(database)
    month = timedelta(days=30)
    target = tmp_path / "out"
    refused: list[Callable[[], Awaitable[Any]]] = [
        lambda: audited.hold(KEY),
        lambda: audited.release(KEY),
        lambda: audited.delete(KEY),
        lambda: audited.delete(SUBAGENT),
        lambda: audited.delete_sessions(metadata=MINE),
        lambda: audited.erase(metadata=MINE),
        lambda: audited.erase(EVERY),
        lambda: set_retention(database, month, actor="ops"),
        lambda: clear_retention(database, actor="ops"),
        lambda: export_transcripts(audited, target),
        lambda: export_transcripts(audited, tmp_path / "out.tar.gz", archive=True),
        lambda: audited.recorded("look", KEY),
    ]
    for action in refused:
        with pytest.raises(AuditUnavailableError, match="it was not done"):
            await action()
    report = None
    with pytest.raises(AuditUnavailableError):
        report = await copy_sessions(audited, BeanieSessionStore(tenant="elsewhere"))
    assert report is None
    async with pages_of(audited, actor="bob") as client:
        page = await client.get("/s/project/session")
    assert page.status_code == 503
    assert "prompt 1" not in page.text
    assert await everything(database) == before
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    # What is not recorded goes on, and so does the rest, once it can be.
    await audited.append(KEY, turn(2))
    assert await audited.load(KEY)
    await take_records(database)
    await audited.delete(KEY)
    assert await done(database) == [("ann@acme", "delete")]


async def everything(database: Database) -> dict[str, list[Any]]:
    names = await database.list_collection_names()
    found = {name: await database[name].find().to_list(None) for name in sorted(names)}
    return {name: rows for name, rows in found.items() if rows}


Harm = Callable[[Any], Awaitable[Any]]


def at(seq: int, tenant: str = "default") -> dict[str, Any]:
    return {"_id": {"tenant": tenant, "seq": seq}}


async def _swapped(audit: Any) -> None:
    second, third = [await audit.find_one(at(seq)) for seq in (2, 3)]
    for row, seq in ((second, 3), (third, 2)):
        await audit.replace_one(at(seq), {**row, "_id": at(seq)["_id"]})


async def _moved(audit: Any) -> None:
    row = await audit.find_one(at(3))
    await audit.delete_one(at(3))
    await audit.insert_one({**row, "_id": at(9)["_id"]})


async def _hashed_anew(audit: Any) -> None:
    row = {**await audit.find_one(at(3)), "actor": "mallory"}
    await audit.replace_one(at(3), {**row, "sha256": records.hash_of(row)})


async def _put_between(audit: Any) -> None:
    row = await audit.find_one(at(3))
    await audit.insert_one({**row, "_id": {**at(3)["_id"], "extra": 1}})


HARMS: dict[str, tuple[Harm, int, str]] = {
    "another actor": (lambda a: a.update_one(at(3), {"$set": {"actor": "x"}}), 3, "changed"),
    "another time": (lambda a: a.update_one(at(1), {"$set": {"at": "then"}}), 1, "changed"),
    "a field more": (lambda a: a.update_one(at(2), {"$set": {"why": 1}}), 2, "changed"),
    "a field less": (lambda a: a.update_one(at(2), {"$unset": {"details": 1}}), 2, "changed"),
    "another type": (lambda a: a.update_one(at(2), {"$set": {"version": 1.0}}), 2, "changed"),
    "no hash": (lambda a: a.update_one(at(5), {"$unset": {"sha256": 1}}), 5, "changed"),
    "nothing left of it": (lambda a: a.replace_one(at(4), {}), 4, "changed"),
    "swapped": (_swapped, 2, "changed"),
    "moved": (_moved, 4, "before it, 3 is missing"),
    "hashed anew": (_hashed_anew, 4, "does not follow"),
    "put between": (_put_between, 3, "changed"),
    "the first gone": (lambda a: a.delete_one(at(1)), 2, "before it, 1 is missing"),
    "a gap": (lambda a: a.delete_many({"_id": {"$in": [at(2)["_id"], at(3)["_id"]]}}), 4, "2 to 3"),
}


@pytest.mark.parametrize("harm", HARMS)
async def test_harm_is_told(audited: BeanieSessionStore, database: Database, harm: str) -> None:
    await filled(audited)
    assert (await verify_audit(database)).holds
    do, seq, reason = HARMS[harm]
    await do(database[AUDIT])
    check = await verify_audit(database)
    assert not check.holds
    assert check.faults[0].seq == seq
    assert reason in check.faults[0].reason
    # It is told for ever, and others go on.
    await audited.hold(KEY)
    assert not (await verify_audit(database)).holds
    assert [each async for each in audit_records(database)]


async def test_a_head_that_was_kept_tells_what_was_lost_at_the_end_or_made_anew(
    audited: BeanieSessionStore, database: Database
) -> None:
    await filled(audited)
    head = (await verify_audit(database)).head
    assert head is not None
    await audited.hold(KEY)
    assert (await verify_audit(database, head=head)).holds
    await database[AUDIT].delete_many({"_id": {"$gte": at(5)["_id"]}})
    assert (await verify_audit(database)).holds
    (fault,) = (await verify_audit(database, head=head)).faults
    assert (fault.seq, "is gone" in fault.reason) == (5, True)
    await audited.release(KEY)
    assert (await verify_audit(database)).holds
    (fault,) = (await verify_audit(database, head=head)).faults
    assert "made anew" in fault.reason
    for odd in ("", "5", f"x:{'0' * 64}", "5:00", 7):
        with pytest.raises(InvalidQueryError, match="head must be"):
            await verify_audit(database, head=odd)  # type: ignore[arg-type]
    with pytest.raises(InvalidQueryError, match="time zone"):
        await done(database, since=datetime(2026, 1, 1))


async def test_tenants_have_chains_of_their_own(database: Database) -> None:
    # One is the beginning of the other, and one has what a query could take for an operator.
    for tenant in ("a", "ab", "$a", "b"):
        store = BeanieSessionStore(tenant=tenant, audit=True, actor=f"of {tenant}")
        await filled(store, 3)
    for tenant in ("a", "ab", "$a", "b"):
        check = await verify_audit(database, tenant=tenant)
        assert (check.holds, check.records) == (True, 3)
        assert {who for who, _ in await done(database, tenant=tenant)} == {f"of {tenant}"}


_EACH = 20


def _record_on(url: str, database: str, number: int) -> None:
    async def work() -> None:
        async with BeanieSessionStore.connect(
            url, database=database, upgrade=False, audit=True, actor=f"process {number}"
        ) as store:
            halves = [range(0, _EACH, 2), range(1, _EACH, 2)]

            async def some(half: range) -> None:
                for n in half:
                    await store.recorded("look", KEY, n=n)

            await asyncio.gather(*map(some, halves))

    asyncio.run(work())


async def test_processes_that_record_at_once_make_one_chain(
    database: Database, mongo_url: str
) -> None:
    processes = [
        forking().Process(target=_record_on, args=(mongo_url, database.name, number))
        for number in range(3)
    ]
    for process in processes:
        process.start()
    for process in processes:
        await asyncio.to_thread(process.join, WATCHDOG_SECONDS)
    assert [process.exitcode for process in processes] == [0] * 3
    found = [each async for each in audit_records(database)]
    assert [each.seq for each in found] == list(range(1, 3 * _EACH + 1))
    assert {(each.actor, each.details["n"]) for each in found} == {
        (f"process {number}", n) for number in range(3) for n in range(_EACH)
    }
    assert (await verify_audit(database)).holds


async def test_a_record_whose_answer_was_lost_is_there_once(
    audited: BeanieSessionStore, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await filled(audited, 1)
    collection_class = type(database["any"])
    insert = collection_class.insert_one
    lost = [True, False]

    async def insert_and_lose_the_answer(self: Any, row: Any, **options: Any) -> Any:
        # Before it came to the server, and after.
        if lost and self.name == AUDIT:
            if lost.pop(0):
                await insert(self, row, **options)
            raise AutoReconnect("gone")
        return await insert(self, row, **options)

    monkeypatch.setattr(collection_class, "insert_one", insert_and_lose_the_answer)
    await audited.release(KEY)
    await audited.hold(KEY)
    assert not lost
    assert [action for _, action in await done(database)] == ["hold", "release", "hold"]
    assert (await verify_audit(database)).holds


@pytest.mark.parametrize(
    "options",
    [
        {"audit": True},
        {"actor": "ann"},
        {"audit": "yes", "actor": "ann"},
        {"audit": 1, "actor": "ann"},
        {"audit": True, "actor": ""},
        {"audit": True, "actor": "  "},
        {"audit": True, "actor": "a\0b"},
        {"audit": True, "actor": "\ud83d"},
        {"audit": True, "actor": "a" * 257},
        {"audit": True, "actor": 7},
        {"audit": False, "actor": "ann"},
    ],
)
def test_an_audit_needs_a_name(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidActorError):
        BeanieSessionStore(**options)


async def test_odd_names_are_recorded_as_they_are(database: Database) -> None:
    actor = "Zoë 🙂\n$where \x1b[2J"
    store = BeanieSessionStore(audit=True, actor=actor)
    await store.recorded(
        "look", {**KEY, "session_id": "$ne.\x7f"}, page="half \ud83d of it", n=2**40
    )
    (row,) = [each async for each in audit_records(database)]
    assert (row.actor, row.session_id) == (actor, "$ne.\x7f")
    assert row.details == {"page": "half \\ud83d of it", "n": 2**40}
    assert (await verify_audit(database)).holds


async def test_a_server_without_transactions_keeps_an_audit_too(
    standalone_database: Database,
) -> None:
    store = BeanieSessionStore(audit=True, actor="ann")
    await asyncio.gather(*(store.recorded("look", n=n) for n in range(10)))
    check = await verify_audit(standalone_database)
    assert (check.holds, check.records) == (True, 10)
