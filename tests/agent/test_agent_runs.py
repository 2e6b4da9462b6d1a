"""Runs of the real agent, none of which meets what another tenant said, or leaves what was said."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from claude_agent_sdk import ClaudeAgentOptions, project_key_for_directory
from support.entries import message
from support.processes import PREPARED

from beanie_session_store import (
    BeanieSessionStore,
    InvalidOptionsError,
    UnknownSessionError,
)
from beanie_session_store.app.agent.run_folders import RunFolder
from beanie_session_store.app.loopback.messages_api import LoopbackMessagesApi
from beanie_session_store.demo.agent import Host, run_python
from beanie_session_store.demo.script import obedient_script

PROCESS = Path(__file__).parents[1] / "support" / "agent_runs.py"
SECRET = "xylophone-73"
BEGUN_AND_OVER = """
import sys, tempfile
from beanie_session_store.app.agent.run_folders import RunFolder

tempfile.tempdir = sys.argv[1]
for number in range(10):
    folder = RunFolder("runs")
    (folder.path / "file").write_text(str(number))
    RunFolder("runs").remove()
    assert (folder.path / "file").read_text() == str(number)
    folder.remove()
"""
UNKNOWN = "6f1c5e2a-0000-4000-8000-000000000000"


@dataclass(frozen=True)
class Service:
    """A host on which the agents of several tenants run, in one directory."""

    home: Path
    job: dict[str, Any]

    @property
    def temporary(self) -> Path:
        return self.home / "tmp"

    def run(self, *steps: dict[str, Any]) -> tuple[list[dict[str, Any]], list[str]]:
        """What came of each step, and what each request told the model."""
        with LoopbackMessagesApi(obedient_script) as api:
            environment = Host(self.home, api.url).environment()
            done = run_python([str(PROCESS)], environment, self.job | {"steps": steps}, 150)
            return json.loads(done), [json.dumps(each["messages"]) for each in api.requests]

    def left(self) -> list[str]:
        """What is on the disk of the host and says what was said."""
        return [
            str(path.relative_to(self.home))
            for path in self.home.rglob("*")
            if path.is_file() and SECRET.encode() in path.read_bytes()
        ]


@pytest.fixture
def service(tmp_path: Path, mongo_url: str, database: Any, database_name: str) -> Service:
    home = tmp_path / "home"
    (home / "tmp").mkdir(parents=True)
    work = tmp_path / "work"
    work.mkdir()
    directory = str(work.resolve())
    project = {"project_key": project_key_for_directory(directory)}
    return Service(
        home,
        {"url": mongo_url, "database": database_name, "directory": directory, "project": project},
    )


def step(tenant: str, prompt: str = "PLAIN go on", **fields: Any) -> dict[str, Any]:
    return {"tenant": tenant, "prompt": prompt, **fields}


def resuming(tenant: str, at: int, **fields: Any) -> dict[str, Any]:
    return step(tenant, of_step={"resume": at}, **fields)


@pytest.mark.agent
def test_without_a_folder_of_its_own_a_run_meets_another_tenants_session(service: Service) -> None:
    """What `agent_options` is for: if this fails, the agent or the SDK has changed."""
    _, requests = service.run(
        step("acme", f"PLAIN the word is {SECRET}", is_plain=True),
        resuming("other", 0, is_plain=True),
    )
    assert SECRET in requests[-1]
    assert service.left()


@pytest.mark.agent
def test_no_session_that_is_not_the_tenants_reaches_the_model(service: Service) -> None:
    seen, requests = service.run(
        step("acme", f"PLAIN the word is {SECRET}"),
        step("acme", f"PLAIN the word is {SECRET} again"),
        resuming("other", 0),
        {"tenant": "acme", "deletes": 0},
        resuming("acme", 0),
        {"tenant": "acme", "expires": 1},
        resuming("acme", 1),
        step("acme", options={"resume": UNKNOWN}),
        step("acme", options={"resume": "../escape"}),
        step("other", "PLAIN what was the word?", options={"continue_conversation": True}),
        step("acme", f"PLAIN the word is {SECRET}, a third time"),
        {"tenant": "acme", "erases": 10},
        resuming("acme", 10),
    )
    assert seen[11] == {"erased": 1}
    refused = [index for index, outcome in enumerate(seen) if "refused" in outcome]
    assert refused == [2, 4, 6, 7, 8, 12]
    assert "another tenant" not in seen[2]["refused"]
    # Only those that said it, and one that began anew, got to the model.
    asked = [request for request in requests if "PLAIN" in request]
    assert [SECRET in request for request in asked] == [True, True, False, True]
    assert service.left() == []
    assert [outcome["is_gone"] for outcome in (seen[0], seen[1], seen[9], seen[10])] == [True] * 4


@pytest.mark.agent
async def test_a_session_is_resumed_forked_and_continued(
    service: Service, database: Any, database_name: str
) -> None:
    seen, requests = service.run(
        step("acme", "Run `echo one`. Then DELEGATE: run `echo deep`"),
        resuming("acme", 0, prompt=f"PLAIN the word is {SECRET}"),
        resuming("acme", 0, options={"fork_session": True}),
        step("acme", "PLAIN and on", options={"continue_conversation": True}),
    )
    first, again, fork, latest = (outcome["session_id"] for outcome in seen)
    assert again == first
    assert fork not in (first, None)
    assert latest == fork
    assert SECRET in requests[-2]
    assert SECRET in requests[-1]
    begun = [path for path in seen[1]["begun"] if path.endswith(".jsonl")]
    assert len(begun) == 2
    assert any("/subagents/" in path for path in begun)
    assert service.left() == []
    store = BeanieSessionStore(tenant="acme")
    entries = await store.load(service.job["project"] | {"session_id": first})
    assert entries is not None
    uuids = [entry["uuid"] for entry in entries if "uuid" in entry]
    assert len(uuids) == len(set(uuids))
    assert sum("xylophone" in json.dumps(entry) for entry in entries) >= 1
    assert not (await store.verify(service.job["project"] | {"session_id": first})).differences


@pytest.mark.agent
def test_a_run_begins_from_a_folder_without_its_sessions(service: Service, tmp_path: Path) -> None:
    config = tmp_path / "config"
    (config / "commands").mkdir(parents=True)
    (config / "commands" / "greet.md").write_text("PLAIN say hello to the bassoon\n")
    (config / "settings.json").write_text("{}")
    (config / "projects" / "-srv").mkdir(parents=True)
    (config / "projects" / "-srv" / "s.jsonl").write_text(f'{{"said": "{SECRET}"}}\n')
    (config / "history.jsonl").write_text(SECRET)
    (config / ".credentials.json").write_text('{"claudeAiOauth": {"refreshToken": "once", "a": 1}}')
    (seen,), requests = service.run(step("acme", "/greet", config=str(config)))
    assert "commands/greet.md" in seen["begun"]
    assert "settings.json" in seen["begun"]
    assert not [path for path in seen["begun"] if "history" in path or "s.jsonl" in path]
    assert any("bassoon" in request for request in requests)
    # What the folder has is as it was.
    assert "once" in (config / ".credentials.json").read_text()
    assert SECRET in (config / "projects" / "-srv" / "s.jsonl").read_text()


@pytest.mark.agent
def test_what_a_killed_run_left_is_gone_when_the_next_one_begins(service: Service) -> None:
    (first,), _ = service.run(step("acme", f"PLAIN the word is {SECRET}"))
    job = service.job | {
        "steps": [step("acme", hangs=True, options={"resume": first["session_id"]})]
    }
    environment = Host(service.home).environment()
    with subprocess.Popen(
        [PREPARED, "-I", str(PROCESS)],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin
        assert process.stdout
        json.dump(job, process.stdin)
        process.stdin.close()
        folder = Path(json.loads(process.stdout.readline())["folder"])
        # A run beside it leaves it alone.
        service.run(step("other", "PLAIN hello"))
        assert service.left()
        process.send_signal(signal.SIGKILL)
    assert folder.exists()
    service.run(step("other", "PLAIN hello"))
    assert not folder.exists()
    assert service.left() == []


async def test_options_that_no_run_of_its_own_can_have_are_refused(
    store: BeanieSessionStore, tmp_path: Path
) -> None:
    other = BeanieSessionStore(tenant="other")
    for options, config, names in (
        (ClaudeAgentOptions(session_store=other), None, "session_store"),
        (ClaudeAgentOptions(env={"CLAUDE_CONFIG_DIR": "/x"}), None, "CLAUDE_CONFIG_DIR"),
        ({"resume": UNKNOWN}, None, "ClaudeAgentOptions"),
        (ClaudeAgentOptions(), tmp_path / "nothing", "config"),
        (ClaudeAgentOptions(), 7, "config"),
    ):
        with pytest.raises(InvalidOptionsError, match=names):
            async with store.agent_options(options, config=config):  # type: ignore[arg-type]
                pass
    for resume in (UNKNOWN, "", "s1", 7, "../x", {"$ne": None}):
        with pytest.raises(UnknownSessionError):
            async with store.agent_options(ClaudeAgentOptions(resume=resume)):  # type: ignore[arg-type]
                pass


async def test_given_options_stay_as_they_are(store: BeanieSessionStore, tmp_path: Path) -> None:
    session_id = "0b9d3a52-2c1b-4b0e-9f3e-1f2e3d4c5b6a"
    key: Any = {"project_key": project_key_for_directory(str(tmp_path)), "session_id": session_id}
    await store.append(key, [message("hello")])
    given = ClaudeAgentOptions(cwd=tmp_path, resume=session_id, env={"A": "1"}, session_store=store)
    async with store.agent_options(given) as ready:
        folder = Path(ready.env["CLAUDE_CONFIG_DIR"])
        assert ready.env["A"] == "1"
        assert ready.resume == session_id
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        (main,) = folder.rglob("*.jsonl")
        assert stat.S_IMODE(main.stat().st_mode) == 0o600
        assert [json.loads(line) for line in main.read_text().splitlines()] == await store.load(key)
        # The SDK need not write it once more, and finds all else.
        assert ready.session_store
        assert await ready.session_store.load(key) is None
        other: Any = key | {"session_id": UNKNOWN}
        await ready.session_store.append(other, [message("more")])
        assert len(await ready.session_store.load(other) or []) == 1
    assert not folder.exists()
    assert given.env == {"A": "1"}


async def test_a_run_that_fails_leaves_nothing(store: BeanieSessionStore) -> None:
    begun: list[Path] = []

    async def fail() -> None:
        async with store.agent_options(ClaudeAgentOptions()) as ready:
            begun.append(Path(ready.env["CLAUDE_CONFIG_DIR"]))
            assert begun[0].is_dir()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert not begun[0].exists()


def test_folders_of_runs_are_only_removed_when_their_run_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    several = [subprocess.Popen([PREPARED, "-c", BEGUN_AND_OVER, tmp_path]) for _ in range(4)]
    assert [process.wait() for process in several] == [0] * 4
    root = tmp_path / f"runs-{os.getuid()}"
    (root / "run-of-nobody").mkdir()
    last = RunFolder("runs")
    assert [path.name for path in root.iterdir() if path.is_dir()] == [last.path.name]
    last.remove()
    assert list(root.iterdir()) == []


def test_a_place_that_somebody_else_made_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / f"runs-{os.getuid()}").symlink_to(elsewhere)
    with pytest.raises(PermissionError, match="TMPDIR"):
        RunFolder("runs")
    assert list(elsewhere.iterdir()) == []
