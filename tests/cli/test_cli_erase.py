"""``session-store erase``: asks, erases, gives a receipt, and holds it against the database."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from support.command import SessionStoreCommand
from support.entries import KEY, SUBAGENT, turn

from beanie_session_store import BeanieSessionStore, SessionErasedError, TranscriptEntry
from beanie_session_store.app.database.driver import Database

MINE = {**KEY, "session_id": "mine\x1b[2J"}
HELD = {**KEY, "session_id": "held"}
FORK = {**KEY, "session_id": "fork"}


@pytest.fixture
async def command(mongo_url: str, database: Database) -> SessionStoreCommand:
    return SessionStoreCommand(mongo_url, database.name)


@pytest.fixture
async def filled(store: BeanieSessionStore) -> BeanieSessionStore:
    await store.append(KEY, turn(1))
    mine = BeanieSessionStore(metadata={"user_id": "u1"})
    await mine.append(MINE, turn(5))
    await mine.append({**SUBAGENT, "session_id": "subagent-only"}, turn(6))
    await mine.append(HELD, turn(7))
    await mine.hold(HELD)
    copied = [{**each, "forkedFrom": {"sessionId": MINE["session_id"]}} for each in turn(1)]
    await store.append(FORK, copied)
    await BeanieSessionStore(tenant="acme", metadata={"user_id": "u1"}).append(KEY, turn(1))
    return mine


async def left() -> set[tuple[str, str]]:
    entries = await TranscriptEntry.find({}).to_list()
    return {(each.tenant, each.session_id) for each in entries}


OTHERS = {("default", name) for name in ("session", "held", "fork")} | {("acme", "session")}


async def test_it_shows_asks_erases_and_gives_a_receipt_to_verify(
    filled: BeanieSessionStore, command: SessionStoreCommand, tmp_path: Path
) -> None:
    before = await left()
    looked = await command("erase", "--metadata", "user_id=u1", "--dry-run")
    assert (looked.code, looked.output) == (0, "2 sessions of 12 entries would be erased\n")
    assert "session 'held' of project 'project' is held and stays\n" in looked.errors
    assert "session 'fork' of project 'project' was forked from one of them" in looked.errors
    asked = await command("erase", "--metadata", "user_id=u1")
    assert asked.code == 2
    assert "nobody to ask" in asked.errors
    assert await left() == before
    path = tmp_path / "receipt.json"
    arguments = ("erase", "--metadata", "user_id=u1", "--by", "ops", "--receipt", str(path))
    done = await command(*arguments, "--yes")
    assert done.code == 0, done.errors
    assert "\x1b" not in done.output + done.errors
    assert await left() == OTHERS
    receipt = json.loads(path.read_text())
    assert receipt == done.json
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert receipt["counts"]["sessions"] == 2
    assert receipt["counts"]["entries"] == 12
    assert (receipt["by"], receipt["held"], receipt["forked"]) == (["ops"], [HELD], [FORK])
    with pytest.raises(SessionErasedError):
        await filled.append(MINE, turn(8))
    verified = await command("erase", "--verify", str(path))
    assert (verified.code, verified.output) == (0, "nothing is there of 2 erased sessions\n")
    assert (await command("erase", "--verify", str(path), "--tenant", "acme")).code == 2
    again = await command(*arguments, "--yes")
    assert (again.code, json.loads(path.read_text())) == (2, receipt)
    assert "is there already; nothing was erased" in again.errors


async def test_what_came_back_is_told(
    filled: BeanieSessionStore, command: SessionStoreCommand, database: Database, tmp_path: Path
) -> None:
    path = tmp_path / "receipt.json"
    done = await command(
        "erase", "--metadata", "user_id=u1", "--forks", "--yes", "--receipt", str(path)
    )
    assert done.json["counts"]["sessions"] == 3
    assert done.json["by"]
    await filled.append({**KEY, "session_id": "since"}, turn(1))
    await database["claude_transcript_entries"].insert_one(
        {
            "tenant": "default",
            "project_key": "project",
            "session_id": "fork",
            "subpath": "",
            "seq": 1,
        }
    )
    verified = await command("--json", "erase", "--verify", str(path))
    assert verified.code == 1
    assert verified.json == {
        "holds": False,
        "sessions": 3,
        "remnants": [
            {
                "project_key": "project",
                "session_id": "fork",
                "documents": {"claude_transcript_entries": 1},
            }
        ],
        "since": [{"project_key": "project", "session_id": "since"}],
    }
    changed = json.loads(path.read_text())
    changed["sessions"] = []
    path.write_text(json.dumps(changed))
    assert "or not as it was given" in (await command("erase", "--verify", str(path))).errors
    path.write_text("no JSON")
    assert (await command("erase", "--verify", str(path))).code == 2


async def test_a_whole_tenant_is_named_twice(
    filled: BeanieSessionStore, command: SessionStoreCommand
) -> None:
    before = await left()
    assert (await command("erase", "--whole-tenant", "--yes")).code == 2
    assert await left() == before
    done = await command("--tenant", "acme", "erase", "--whole-tenant", "--yes")
    assert done.code == 0
    assert done.json["subject"] is None
    assert await left() == before - {("acme", "session")}


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--metadata", "user_id=u1", "--whole-tenant"),
        ("--metadata", "user_id"),
        ("--metadata", "user_id="),
        ("--metadata", "user_id=null"),
        ("--metadata", ""),
        ("--metadata", "user_id=u1", "--keep", "forever"),
        ("--metadata", "user_id=u1", "--keep", "0d"),
        ("--metadata", "user_id=u1", "--keep", "soon"),
        ("--metadata", "user_id=u1", "--by", ""),
        ("--verify", "nowhere.json"),
        ("--verify", __file__, "--metadata", "user_id=u1"),
        ("session",),
    ],
    ids=repr,
)
async def test_what_says_nothing_or_two_things_is_misuse(
    filled: BeanieSessionStore, command: SessionStoreCommand, arguments: tuple[str, ...]
) -> None:
    before = await left()
    done = await command("--tenant", "default", "erase", *arguments, "--yes")
    assert (done.code, done.output) == (2, "")
    assert await left() == before
