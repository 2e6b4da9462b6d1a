"""``session-store retention`` as its users call it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from beanie.executors.migrate import MigrationSettings, run_migrate
from support.entries import KEY, turn

from beanie_session_store import BeanieSessionStore, SessionSummary, retention_policies
from beanie_session_store.app.driver import Database

MAIN = "from beanie_session_store.app.cli.root import main; main()"


@pytest.fixture
def command(mongo_url: str, database: Database):
    async def run(*arguments: str, fails: bool = False) -> str:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", MAIN, *arguments),
            env={
                **os.environ,
                "SESSION_STORE_MONGODB_URL": mongo_url,
                "SESSION_STORE_DATABASE": database.name,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        output, errors = (part.decode() for part in await process.communicate())
        assert "Traceback" not in errors, errors
        assert (process.returncode != 0) == fails, errors
        return errors if fails else output

    return run


async def test_set_show_hold_and_release(command, store: BeanieSessionStore) -> None:
    assert "for ever" in await command("retention", "show")
    await store.append(KEY, turn(1))
    await command("retention", "set", "30d", "--tenant", "default")
    (row,) = json.loads(await command("--json", "retention", "show"))
    assert (row["tenant"], row["project_key"], row["keep_seconds"]) == ("default", "*", 2592000)
    assert "30d" in await command("retention", "show")
    summary = await SessionSummary.find_one({})
    assert summary is not None
    assert summary.expires_at is not None
    assert "is held" in await command("retention", "hold", "session", "--project", "project")
    assert (await SessionSummary.find_one({"held_at": {"$exists": True}})) is not None
    await command("retention", "release", "session", "--project", "project")
    assert (await SessionSummary.find_one({"held_at": {"$exists": True}})) is None


async def test_a_tenant_named_for_all_commands_is_the_only_one_whose_policy_is_set(
    command, monkeypatch: pytest.MonkeyPatch
) -> None:
    await command("retention", "set", "30d")
    await command("--tenant", "acme", "retention", "set", "60d")
    monkeypatch.setenv("SESSION_STORE_TENANT", "globex")
    await command("retention", "set", "90d")
    await command("retention", "set", "31d", "--tenant", "*")
    rows = json.loads(await command("--json", "retention", "show"))
    kept = {row["tenant"]: row["keep_seconds"] // 86400 for row in rows}
    assert kept == {"*": 31, "acme": 60, "globex": 90}


async def test_a_beginning_of_its_id_names_the_session_to_hold(
    command, store: BeanieSessionStore
) -> None:
    for name in ("session-1", "session-2"):
        await store.append({**KEY, "session_id": name}, turn(1))
    assert "session-1 is held" in await command("retention", "hold", "session-1")
    errors = await command("retention", "release", "sess", fails=True)
    assert "Give more of the id" in errors


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("retention", "set", "30 days"), "no time"),
        (("retention", "hold", "nobody", "--project", "p"), "There is no session nobody"),
        (("retention", "migration", "--keep", "soon", "."), "no time"),
    ],
)
async def test_a_mistake_gives_one_clear_line(
    command, arguments: tuple[str, ...], said: str
) -> None:
    errors = await command(*arguments, fails=True)
    assert said in errors
    assert len(errors.strip().splitlines()) == 1


async def test_the_written_migration_runs_forward_and_backward_in_beanies_own_runner(
    command,
    database: Database,
    mongo_url: str,
    tmp_path: Path,
    store: BeanieSessionStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in ("expiry", "retention"):
        monkeypatch.setattr(f"beanie_session_store.app.{module}.CACHE_SECONDS", 0.2)
    await store.append(KEY, turn(1))
    await command("retention", "set", "30d")
    written = await command("retention", "migration", "--keep", "90d", str(tmp_path))
    (script,) = tmp_path.glob("*.py")
    assert str(script) in written
    for direction, days in (("FORWARD", 90), ("BACKWARD", 30)):
        settings = MigrationSettings(
            connection_uri=mongo_url,
            database_name=database.name,
            path=str(tmp_path),
            direction=direction,
            distance=1,
            use_transaction=False,
        )
        await run_migrate(settings)
        (policy,) = await retention_policies(database)
        assert policy["keep_seconds"] == days * 86400
        summary = await SessionSummary.find_one({})
        assert summary is not None
        assert summary.expires_at is not None
        left = summary.expires_at.replace(tzinfo=timezone.utc) - datetime.now(timezone.utc)
        assert timedelta(days=days) < left < timedelta(days=days * 1.1)


async def test_a_migration_of_a_first_policy_is_reversed_by_removing_it(
    command, database: Database, tmp_path: Path
) -> None:
    await command("retention", "migration", "--keep", "1w", str(tmp_path), "--tenant", "acme")
    (script,) = tmp_path.glob("*.py")
    source = script.read_text()
    assert "clear_retention(database" in source
    assert "TENANT = 'acme'" in source
    compile(source, str(script), "exec")
