"""``session-store keys``: made once, used by every command, and asked before one is destroyed."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.command import SessionStoreCommand
from support.entries import KEY, message, turn

from beanie_session_store import BeanieSessionStore
from beanie_session_store.app.database.driver import Database
from beanie_session_store.encryption import Encryption, LocalKeys


@pytest.fixture
def command(mongo_url: str, database: Database) -> SessionStoreCommand:
    return SessionStoreCommand(mongo_url, database.name)


async def test_a_file_is_made_once_and_for_its_owner(
    command: SessionStoreCommand, tmp_path: Path
) -> None:
    file = tmp_path / "keys"
    made = await command("keys", "new", str(file))
    assert (made.code, made.output) == (0, f"made {file}\n")
    assert file.stat().st_mode & 0o777 == 0o600
    before = file.read_text()
    again = await command("keys", "new", str(file))
    assert again.code == 2
    assert "it was left as it is" in again.errors
    assert file.read_text() == before
    added = await command("--json", "keys", "new", "--add", str(file))
    assert added.json == {"file": str(file), "added": True}
    assert file.read_text().startswith(before)
    missing = await command("keys", "new", str(tmp_path / "no" / "keys"))
    assert missing.code == 1
    assert "cannot be written" in missing.errors


async def test_commands_read_seal_rotate_and_destroy_with_it(
    command: SessionStoreCommand, store: BeanieSessionStore, database: Database, tmp_path: Path
) -> None:
    file = tmp_path / "keys"
    keys = LocalKeys.generate(file)
    plain = BeanieSessionStore(metadata={"user_id": "u1"})
    await plain.append({**KEY, "session_id": "plain"}, [message("Fix the login")])
    encryption = Encryption(keys, subject="user_id")
    sealing = BeanieSessionStore(metadata={"user_id": "u1"}, encryption=encryption)
    await sealing.append(KEY, [message("Mend the logout"), *turn(1)])
    given = {"SESSION_STORE_KEYS": str(file), "SESSION_STORE_KEYS_SUBJECT": "user_id"}
    assert "Mend the logout" not in (await command("sessions")).output
    assert "Mend the logout" in (await command("sessions", **given)).output
    without = await command("show", "session")
    assert without.code == 1
    assert "--keys FILE" in without.errors
    assert "Mend the logout" in (await command("--keys", str(file), "show", "session")).output
    sealed = await command("keys", "seal", **given)
    assert sealed.output == "2 sessions, 1 entries encrypted, 0 failed\n"
    assert (await command("verify", **given)).code == 0
    keys.add()
    rotated = (await command("--json", "keys", "rotate", **given)).json
    assert (rotated["keys"], rotated["rewrapped"]) == (1, 1)
    status = await command("keys", "status", **given)
    assert status.output == (f"1 key in use, 0 destroyed\n1 key wrapped by {rotated['current']}\n")
    asked = await command("keys", "destroy", "u1", **given)
    assert asked.code == 2
    assert "--yes" in asked.errors
    assert (await command("keys", "destroy", "u1", "--yes", **given)).output == "destroyed\n"
    again = await command("keys", "destroy", "u1", "--yes", **given)
    assert again.output == "there was no such key\n"
    gone = await command("show", "session", **given)
    assert gone.code == 1
    assert "nobody can read it any more" in gone.errors


@pytest.mark.parametrize("what", ["status", "rotate", "seal"])
async def test_without_keys_a_command_for_them_says_what_to_give(
    command: SessionStoreCommand, what: str
) -> None:
    refused = await command("keys", what)
    assert refused.code == 2
    assert "SESSION_STORE_KEYS" in refused.errors


async def test_what_is_no_file_of_keys_is_refused(
    command: SessionStoreCommand, tmp_path: Path
) -> None:
    file = tmp_path / "keys"
    for given in (["--keys", str(file)], ["--keys-subject", "user_id"]):
        refused = await command(*given, "sessions")
        assert refused.code == 2
        assert len(refused.errors.splitlines()) == 1
    file.write_text("no keys")
    file.chmod(0o600)
    assert "is no file of keys" in (await command("--keys", str(file), "sessions")).errors
    LocalKeys.generate(tmp_path / "open").add()
    (tmp_path / "open").chmod(0o644)
    refused = await command("--keys", str(tmp_path / "open"), "sessions")
    assert "chmod 600" in refused.errors
