"""``session-store schema``: what it prints, what it exits with, and what it asks first."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient
from support.command import invoked
from typer.testing import Result

import beanie_session_store
from beanie_session_store import BeanieSessionStore

PACKAGED = Path(beanie_session_store.__file__).parent / "migrations"
NAMES = [path.stem for path in sorted(PACKAGED.glob("2*.py"))]

Call = Callable[..., Result]


@pytest.fixture
def call(mongo_url: str, database_name: str) -> Call:
    def invoke(*arguments: str, **options: Any) -> Result:
        base = ["--url", mongo_url, "--database", database_name]
        return invoked([*base, *arguments], **options)

    return invoke


def names_in(mongo_url: str, database: str) -> set[str]:
    with MongoClient(mongo_url) as client:
        return set(client[database].list_collection_names())


def test_upgrade_runs_the_migrations_and_status_tells_deploy_scripts(call: Call) -> None:
    before = call("schema", "status")
    assert before.exit_code == 3
    assert f"pending  {NAMES[0]}" in before.stdout
    upgraded = call("schema", "upgrade")
    assert upgraded.exit_code == 0
    assert upgraded.stdout.splitlines() == [f"ran {name}" for name in NAMES]
    assert "building index transcript_order on claude_transcript_entries" in upgraded.stderr
    after = call("schema", "status")
    assert after.exit_code == 0
    assert f"applied  {NAMES[0]}  2" in after.stdout
    assert after.stdout.endswith("up to date\n")
    again = call("schema", "upgrade")
    assert again.stdout == "nothing to run: the schema is up to date\n"


def test_upgrade_goes_as_far_as_it_is_told(call: Call) -> None:
    assert call("schema", "upgrade", "--to", NAMES[0][:14]).stdout == f"ran {NAMES[0]}\n"
    assert call("schema", "status").exit_code == 3
    wrong = call("schema", "upgrade", "--to", "nonsense")
    assert wrong.exit_code == 2
    assert wrong.stderr.startswith("error: No migration begins with 'nonsense'. Known are ")


def test_a_dry_run_lists_and_changes_nothing(
    call: Call, mongo_url: str, database_name: str
) -> None:
    dry = call("schema", "upgrade", "--dry-run")
    assert dry.stdout.splitlines() == [f"would run {name}" for name in NAMES]
    assert names_in(mongo_url, database_name) == set()
    call("schema", "upgrade")
    dry = call("schema", "downgrade", "--dry-run")
    assert dry.stdout == f"would undo {NAMES[-1]}\n"
    assert call("schema", "status").exit_code == 0


def test_downgrade_without_anybody_to_ask_is_refused(call: Call) -> None:
    call("schema", "upgrade")
    refused = call("schema", "downgrade")
    assert refused.exit_code == 2
    assert "give --yes" in refused.stderr
    assert call("schema", "status").exit_code == 0
    assert call("schema", "downgrade", "--yes").stdout == f"undid {NAMES[-1]}\n"
    assert call("schema", "status").exit_code == 3
    assert call("schema", "downgrade", "--yes", "--steps", "9").exit_code == 0
    assert call("schema", "downgrade").stdout == "nothing to undo\n"


@pytest.mark.parametrize(("answer", "is_undone"), [("n", False), ("y", True)])
def test_downgrade_shows_what_it_removes_and_asks(
    call: Call, mongo_url: str, database_name: str, answer: str, is_undone: bool
) -> None:
    call("schema", "upgrade")
    terminal, theirs = pty.openpty()
    process = subprocess.Popen(
        [*command(), "--url", mongo_url, "--database", database_name, "schema", "downgrade"],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.write(terminal, f"{answer}\n".encode())
    _, errors = process.communicate()
    os.close(terminal)
    os.close(theirs)
    assert f"{NAMES[-1]}: leave cache writes" in errors
    assert "Undo these?" in errors
    assert process.returncode == (0 if is_undone else 1)
    assert call("schema", "status").exit_code == (3 if is_undone else 0)


def test_downgrade_takes_a_number_or_a_name(call: Call) -> None:
    call("schema", "upgrade")
    both = call("schema", "downgrade", "--yes", "--steps", "1", "--to", NAMES[0])
    assert both.exit_code == 2
    assert call("schema", "downgrade", "--yes", "--steps", "0").exit_code == 2
    undone = call("schema", "downgrade", "--yes", "--to", NAMES[0])
    assert undone.stdout.splitlines() == [f"undid {name}" for name in NAMES[:0:-1]]


def test_history_shows_every_run(call: Call) -> None:
    assert call("schema", "history").stdout == "no migration ran yet\n"
    call("schema", "upgrade", "--to", NAMES[0])
    call("schema", "downgrade", "--yes")
    lines = call("schema", "history").stdout.splitlines()
    assert len(lines) == 2
    assert f"forward   {NAMES[0]}" in lines[0]
    assert f"backward  {NAMES[0]}" in lines[1]
    assert f"downgrade_schema on {os.uname().nodename}, process {os.getpid()}" in lines[1]


def test_json_is_for_scripts(call: Call) -> None:
    assert json.loads(call("--json", "schema", "upgrade").stdout)["scripts"] == NAMES
    status = json.loads(call("--json", "schema", "status").stdout)
    assert status["is_current"] is True
    assert [script["name"] for script in status["scripts"]] == NAMES
    history = json.loads(call("--json", "schema", "history").stdout)
    assert [run["pid"] for run in history] == [os.getpid()] * len(NAMES)


def test_copy_fills_a_folder_once(call: Call, tmp_path: Path) -> None:
    copied = call("schema", "copy", str(tmp_path))
    assert copied.exit_code == 0
    assert len(copied.stdout.splitlines()) == len(NAMES) == len(list(tmp_path.iterdir()))
    assert call("schema", "copy", str(tmp_path)).stdout.startswith("nothing to copy")
    assert call("schema", "copy", str(tmp_path / "missing")).exit_code == 2


def test_status_of_a_newer_schema_says_what_to_install(
    call: Call, mongo_url: str, database_name: str
) -> None:
    call("schema", "upgrade")
    with MongoClient(mongo_url) as client:
        log = client[database_name]["claude_transcript_migrations"]
        record = log.find_one({"script": NAMES[0]}) or {}
        log.insert_one({**record, "_id": "newer", "script": "29990101000000_future"})
    status = call("schema", "status")
    assert status.exit_code == 1
    assert "unknown  29990101000000_future" in status.stdout
    assert "pip install -U beanie-session-store" in status.stderr
    for arguments in (["upgrade"], ["downgrade", "--yes"]):
        refused = call("schema", *arguments)
        assert refused.exit_code == 1
        assert refused.stderr.startswith("error: Database ")
        assert refused.stderr.count("\n") == 1


def test_a_server_that_is_away_is_one_line() -> None:
    away = "mongodb://user:geheim@127.0.0.1:9/db?serverSelectionTimeoutMS=100"
    result = subprocess.run(
        [*command(), "--url", away, "schema", "status"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert result.stderr.startswith("error: Could not look at the schema: no usable MongoDB")
    assert result.stderr.count("\n") == 1
    assert "geheim" not in result.stderr


def test_misuse_exits_with_two(monkeypatch: pytest.MonkeyPatch, call: Call) -> None:
    monkeypatch.delenv("SESSION_STORE_MONGODB_URL", raising=False)
    for arguments in (
        ["schema", "status"],
        ["--url", "nonsense", "schema", "status"],
        ["--url", "mongodb://127.0.0.1:9", "schema", "status"],
        ["--url", "mongodb://127.0.0.1:9/db", "--entries", "os:path", "schema", "status"],
        ["--url", "mongodb://127.0.0.1:9/db", "--entries", "absent.module", "schema", "status"],
        ["schema", "absent"],
    ):
        result = invoked(arguments)
        assert result.exit_code == 2, arguments
        assert "Traceback" not in result.output


def test_document_classes_of_a_teams_own_are_named(
    call: Call, mongo_url: str, database_name: str, tmp_path: Path, monkeypatch: Any
) -> None:
    (tmp_path / "acme_models.py").write_text(
        "from beanie_session_store import SessionSummary, TranscriptEntry\n"
        "class Entry(TranscriptEntry):\n"
        "    class Settings(TranscriptEntry.Settings):\n"
        "        name = 'acme_entries'\n"
        "class Summary(SessionSummary):\n"
        "    class Settings(SessionSummary.Settings):\n"
        "        name = 'acme_sessions'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    own = ["--entries", "acme_models:Entry", "--summaries", "acme_models:Summary"]
    assert call(*own, "schema", "upgrade").exit_code == 0
    assert {"acme_entries", "acme_sessions"} <= names_in(mongo_url, database_name)
    assert call(*own, "schema", "status").exit_code == 0
    assert call("schema", "status").exit_code == 3


@pytest.mark.parametrize("name", ["upgrade", "downgrade", "status", "history", "copy"])
def test_every_help_has_an_example(call: Call, name: str) -> None:
    assert f"schema {name}" in call("schema", name, "--help").stdout.partition("Example:")[2]


def test_without_typer_it_says_what_to_install() -> None:
    blocked = "import sys; sys.modules['typer'] = None; "
    blocked += "from beanie_session_store.app.cli.root import main"
    process = subprocess.run(
        [sys.executable, "-c", blocked], capture_output=True, text=True, check=False
    )
    assert process.returncode == 1
    assert process.stderr == (
        "session-store needs typer, which is not installed: "
        "pip install 'beanie-session-store[cli]'\n"
    )


def test_the_package_does_not_load_its_command_line() -> None:
    loaded = "import sys, beanie_session_store; print('typer' in sys.modules)"
    process = subprocess.run(
        [sys.executable, "-c", loaded], capture_output=True, text=True, check=True
    )
    assert process.stdout == "False\n"


def test_the_installed_command_and_the_library_agree(mongo_url: str, database_name: str) -> None:
    async def upgrade() -> None:
        async with BeanieSessionStore.connect(mongo_url, database=database_name):
            pass

    asyncio.run(upgrade())
    process = subprocess.run(
        [*command(), "schema", "status"],
        env={
            **os.environ,
            "SESSION_STORE_MONGODB_URL": mongo_url,
            "SESSION_STORE_DATABASE": database_name,
        },
        check=False,
    )
    assert process.returncode == 0


def command() -> list[str]:
    return [str(Path(sys.executable).parent / "session-store")]
