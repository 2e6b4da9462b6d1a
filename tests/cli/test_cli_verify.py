"""``session-store verify`` and ``verify_sessions``: every summary says what is stored."""

from __future__ import annotations

from typing import Any

import pytest
from support.command import SessionStoreCommand
from support.entries import KEY, message, turn
from support.server import connected

from beanie_session_store import (
    BeanieSessionStore,
    SessionSummary,
    TranscriptEntry,
    TransferError,
    UnsoundSession,
    verify_sessions,
)
from beanie_session_store.app.database.driver import Database, collection_of

HOSTILE = "\x1b[2J\u202etitle"


@pytest.fixture
async def command(mongo_url: str, database: Database) -> SessionStoreCommand:
    return SessionStoreCommand(mongo_url, database.name)


@pytest.fixture
async def filled(store: BeanieSessionStore) -> BeanieSessionStore:
    for number in range(6):
        for batch in (turn(1), turn(2)):
            await store.append({**KEY, "session_id": f"s{number}"}, batch)
    await store.append({**KEY, "session_id": "s1", "subpath": "subagents/agent-a"}, turn(3))
    other: Any = BeanieSessionStore(tenant="other")
    await other.append({**KEY, "session_id": "s9"}, turn(1))
    return store


async def spoil(session_id: str, **values: Any) -> None:
    """Change a summary behind the store's back."""
    await collection_of(SessionSummary).update_one({"session_id": session_id}, {"$set": values})


async def test_all_sessions_of_the_tenant_are_verified(
    filled: BeanieSessionStore, command: SessionStoreCommand
) -> None:
    await spoil("s9", title="wrong")
    done = await command("verify")
    assert (done.code, done.errors) == (0, "")
    assert done.output == ("6 sessions (78 entries) looked at: 0 unsound, 0 repaired, 0 failed\n")


async def test_what_is_unsound_is_named_and_repaired(
    filled: BeanieSessionStore, command: SessionStoreCommand
) -> None:
    await spoil("s2", **{"totals.turns": 9, "title": HOSTILE, "data": {"custom_title": "x" * 50}})
    found = await command("verify")
    assert found.code == 1
    line, summary = found.output.splitlines()
    assert line == (
        "s2 of project: data differs; totals.turns says 9, stored is 4; "
        "title says '\\x1b[2J\\u202etitle', stored is None"
    )
    assert summary == "6 sessions (78 entries) looked at: 1 unsound, 0 repaired, 0 failed"

    as_json = await command("--json", "verify")
    assert (as_json.code, as_json.json["unsound"], as_json.json["is_sound"]) == (1, 1, False)
    (problem,) = as_json.json["problems"]
    assert (problem["session_id"], problem["is_repaired"]) == ("s2", False)
    assert {"field": "totals.turns", "stored": 9, "expected": 4} in problem["differences"]

    repaired = await command("verify", "--repair", "--workers", "1")
    assert repaired.code == 0
    assert repaired.output.splitlines()[0] == f"{line} (repaired)"
    assert (await command("verify")).code == 0
    assert (await filled.verify({**KEY, "session_id": "s2"})).is_sound


async def test_sessions_are_chosen_by_name_or_project(
    filled: BeanieSessionStore, command: SessionStoreCommand
) -> None:
    await filled.append({"project_key": "another", "session_id": "t"}, turn(1))
    for arguments, count in ((["s1", "s2"], 2), (["--project", "another"], 1), (["t"], 1)):
        assert (await command("--json", "verify", *arguments)).json["sessions"] == count


async def test_nothing_is_repaired_where_a_name_is_wrong(
    filled: BeanieSessionStore, command: SessionStoreCommand
) -> None:
    await spoil("s1", title="wrong")
    for name in ("nobody", "s"):
        done = await command("verify", "--repair", "s1", name)
        assert (done.code, done.output, done.errors.count("\n")) == (1, "", 1)
        assert name in done.errors
    assert not (await filled.verify({**KEY, "session_id": "s1"})).is_sound


async def test_a_damaged_session_is_named_and_does_not_end_the_rest(
    filled: BeanieSessionStore, command: SessionStoreCommand
) -> None:
    await filled.append({**KEY, "session_id": "s3"}, [message("half an emoji \ud83d")])
    await collection_of(TranscriptEntry).update_one(
        {"packed": {"$exists": True}}, {"$set": {"packed": b"no packed entry"}}
    )
    done = await command("verify", "--repair")
    assert done.code == 1
    problem, summary = done.output.splitlines()
    assert problem.startswith("s3 of project: ")
    assert "entry 13 of session s3" in problem
    assert summary.startswith("6 sessions (66 entries)")
    assert summary.endswith("0 unsound, 0 repaired, 1 failed")


async def test_sessions_can_be_verified_from_python(
    filled: BeanieSessionStore, database: Database
) -> None:
    await spoil("s4", title="wrong")
    problems: list[UnsoundSession] = []
    progress: list[int] = []
    report = await verify_sessions(
        filled,
        filled.all_sessions(),
        repair=True,
        workers=2,
        on_progress=lambda report: progress.append(report.sessions),
        on_problem=problems.append,
    )
    assert report.is_sound
    assert (report.sessions, report.entries, report.repaired) == (6, 78, 1)
    assert progress == [1, 2, 3, 4, 5, 6]
    assert report.problems == problems
    assert [each.listing.session_id for each in problems] == ["s4"]
    for workers in (0, True, "2", 1.5):
        with pytest.raises(TransferError, match="workers must be"):
            await verify_sessions(filled, filled.all_sessions(), workers=workers)  # type: ignore


async def test_sessions_deleted_meanwhile_are_no_failure(filled: BeanieSessionStore) -> None:
    listed = [listing async for listing in filled.all_sessions()]
    await filled.delete(listed[0].key())

    async def gone():
        for listing in listed:
            yield listing

    report = await verify_sessions(filled, gone())
    assert (report.sessions, report.is_sound) == (5, True)


async def test_a_standalone_server_is_verified_too(
    standalone_url: str, standalone_database: Database
) -> None:
    await BeanieSessionStore().append(KEY, turn(1))
    async with connected(standalone_url):
        done = await SessionStoreCommand(standalone_url, standalone_database.name)("verify")
    assert done.code == 0
