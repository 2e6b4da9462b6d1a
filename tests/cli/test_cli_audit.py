"""``session-store audit``: what was recorded, and whether it is as it was written."""

from __future__ import annotations

import json

import pytest
from support.command import SessionStoreCommand
from support.entries import KEY, turn

from beanie_session_store import BeanieSessionStore
from beanie_session_store.app.database.driver import Database


@pytest.fixture
async def command(mongo_url: str, database: Database) -> SessionStoreCommand:
    return SessionStoreCommand(mongo_url, database.name)


async def test_what_commands_do_is_recorded_shown_and_verified(
    store: BeanieSessionStore, database: Database, command: SessionStoreCommand
) -> None:
    await store.append(KEY, turn(1))
    nothing = await command("audit")
    assert (nothing.code, nothing.output[:20]) == (0, "Nothing is recorded.")
    held = await command("--actor", "ann\x1b[2J", "retention", "hold", "session")
    assert held.code == 0, held.errors
    done = await command("--actor", "ann", "erase", "--metadata", "user_id=none", "--yes")
    assert done.code == 0, done.errors
    assert done.json["by"] == ["ann"]
    shown = await command("audit")
    assert "\x1b" not in shown.output
    assert [each.split()[0] for each in shown.output.splitlines()] == ["1", "2", "3"]
    assert "hold project/session" in shown.output
    assert "by=metadata.user_id" in shown.output
    as_json = await command("--json", "audit", "--since", "1h")
    rows = [json.loads(each) for each in as_json.output.splitlines()]
    assert [(row["seq"], row["action"]) for row in rows] == [
        (1, "hold"),
        (2, "erase"),
        (3, "erased"),
    ]
    verified = await command("--json", "audit", "--verify")
    assert (verified.code, verified.json["records"], verified.json["faults"]) == (0, 3, [])
    head = verified.json["head"]
    assert head == f"3:{rows[2]['sha256']}"
    audit = database["claude_transcript_audit"]
    await audit.delete_one({"_id": {"tenant": "default", "seq": 3}})
    assert (await command("audit", "--verify")).code == 0
    lost = await command("audit", "--verify", "--head", head)
    assert (lost.code, "record 3: the head that was kept is gone" in lost.errors) == (1, True)
    await audit.update_one({"_id": {"tenant": "default", "seq": 1}}, {"$set": {"actor": "x"}})
    harmed = await command("audit", "--verify")
    assert (harmed.code, harmed.errors) == (1, "record 1: it was changed\n")
    assert (await command("audit", "--all-tenants", "--verify")).output == "nothing is recorded\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("audit", "--head", "1:00"),
        ("audit", "--verify", "--head", "1:00"),
        ("audit", "--verify", "--since", "1h"),
        ("audit", "--since", "whenever"),
        ("--actor", " ", "audit"),
        ("--actor", "a" * 300, "retention", "hold", "session"),
    ],
)
async def test_mistakes_are_told(
    command: SessionStoreCommand, store: BeanieSessionStore, arguments: tuple[str, ...]
) -> None:
    await store.append(KEY, turn(1))
    found = await command(*arguments)
    assert found.code == 2, (found.output, found.errors)
    assert len(found.errors.splitlines()) >= 1
