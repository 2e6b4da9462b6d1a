"""The plugin for teams, used as a team does: in tests that pass, fail or are killed."""

from __future__ import annotations

import importlib
import re
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from support.team import FILES, FORKED, STARTED_ANEW, Team
from support.watchdog import WATCHDOG_SECONDS

from beanie_session_store import SessionSummary, TranscriptEntry
from beanie_session_store.app.database.driver import IS_MOTOR
from beanie_session_store.testing import ModelRequest, Script, Text, ToolUse
from beanie_session_store.testing.databases import StoreClasses
from beanie_session_store.testing.scripted_agent import ScriptedAgent

ROOT = Path(__file__).parents[2]
URL = "SESSION_STORE_MONGODB_URL"
EXAMPLE_APP = sorted((Path(__file__).parents[1] / "example_app").glob("*.py"))


# A team's own tests


@pytest.mark.agent
def test_a_team_tests_stores_loops_and_agents(tmp_path: Path, mongo_url: str) -> None:
    team = Team(tmp_path / "team", variables={URL: mongo_url})
    team.copy(FILES / "kept.py", *EXAMPLE_APP)
    outcome = team.run()
    assert outcome.code == 0, outcome.output[-5000:]
    assert len(outcome.said) == 20
    assert team.processes() == []


@pytest.mark.agent
@pytest.mark.parametrize(
    "program",
    [
        pytest.param(FORKED, id="forked"),
        pytest.param(STARTED_ANEW, id="started anew", marks=pytest.mark.soak),
    ],
)
def test_what_the_page_shows_works(tmp_path: Path, mongo_url: str, program: Sequence[str]) -> None:
    team = Team(tmp_path / "team", variables={URL: mongo_url}, program=program)
    page = (ROOT / "docs" / "testing.md").read_text()
    blocks = re.findall(r"```python\n# (\w+\.py)\n(.*?)```", page, re.DOTALL)
    assert page.count("```python") == len(blocks) == 4
    for name, text in blocks:
        if not (IS_MOTOR and "AsyncMongoClient" in text):
            team.add(name, text)
    outcome = team.run()
    assert outcome.code == 0, outcome.output[-5000:]
    assert len(outcome.said) == 4 + (not IS_MOTOR)


@pytest.mark.agent
@pytest.mark.skipif(sys.platform != "linux", reason="looks at processes as Linux shows them")
@pytest.mark.parametrize(
    "workers",
    [(), pytest.param(("-n", "2"), marks=pytest.mark.soak)],
    ids=["one worker", "two at once"],
)
def test_tests_that_fail_say_why_and_leave_nothing_behind(
    tmp_path: Path, workers: Sequence[str]
) -> None:
    """With a server of their own."""
    team = Team(tmp_path / "team", mode="auto")
    team.copy(FILES / "broken.py")
    outcome = team.run(*workers, "-W", "default")
    assert outcome.code == 1, outcome.output[-5000:]
    assert team.processes() == []
    assert list((team.folder / "tmp").glob("embedded-mongo-*")) == []
    said = outcome.said
    assert len(said) == 7
    assert "API Error: 402 The test has scripted no turn" in said["test_asks_more_than_is_scripted"]
    for name, asked in (
        ("test_asks_more_than_is_scripted", "2. result of Bash '42' (prompt 'What is it?')"),
        ("test_hides_that_it_asks_more", "1. prompt 'What is it?'"),
    ):
        report = said[name] if "hides" in name else outcome.output
        assert "The agent asked the model for a turn that the test has not scripted:" in report
        assert f"{asked}, with no turn of scripted_agent left" in report
    unused = said["test_asks_less_than_is_scripted"]
    assert "scripted_agent: says('Twice.')" in unused
    assert "on('Never'): calls('Bash', {'command': 'true'})" in unused
    assert "1. prompt 'What is it?' -> says('Once.')" in unused
    assert "of its own reason" in said["test_fails_by_itself"]
    assert "scripted_agent: says('Never said.')" in outcome.output
    assert "in the middle" in said["test_fails_while_a_tool_runs"]
    assert "has One and Other" in said["TestWithTwoClassesForOne.test_asks_for_a_store"]
    assert "not 'table'" in said["TestWithAnUnknownIsolation.test_asks_for_a_store"]


@pytest.mark.agent
@pytest.mark.skipif(sys.platform != "linux", reason="looks at processes as Linux shows them")
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_tests_that_are_ended_leave_no_process(tmp_path: Path, end: signal.Signals) -> None:
    team = Team(tmp_path / "team", mode="auto", variables={"HANGS": "1"})
    team.copy(FILES / "broken.py")
    with team.start("-s", "-k", "test_fails_while_a_tool_runs") as process:
        assert process.stdout is not None
        seen = ""
        while "started\n" not in seen:
            line = process.stdout.readline()
            assert line, seen
            seen += line
        running = " ".join(team.processes())
        assert "mongod" in running
        assert "claude" in running
        process.send_signal(end)
        seen += process.stdout.read() if end == signal.SIGINT else ""
    assert process.returncode == (2 if end == signal.SIGINT else -signal.SIGKILL), seen
    if end == signal.SIGKILL:
        # The agent does not end the command that its tool runs.
        (started,) = team.folder.rglob("project/started")
        started.unlink()
        deadline = time.monotonic() + WATCHDOG_SECONDS
        while team.processes() and time.monotonic() < deadline:
            time.sleep(0.05)
    assert team.processes() == []


@pytest.mark.parametrize(
    ("variables", "needed"),
    [
        (
            {"SESSION_STORE_MONGOD": "/nowhere/mongod"},
            {
                "test_a_server": "SESSION_STORE_MONGOD names '/nowhere/mongod', which is not",
                "test_a_loop": "pip install 'beanie-session-store[testing]'",
            },
        ),
        (
            {URL: "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=200"},
            {"test_a_server": "There is no database for the test: Could not "},
        ),
    ],
    ids=["no mongod, no pytest-asyncio", "no server"],
)
def test_what_is_missing_is_said_in_a_few_lines(
    tmp_path: Path, variables: dict[str, str], needed: dict[str, str]
) -> None:
    team = Team(tmp_path / "team", variables=variables)
    team.copy(FILES / "missing.py")
    outcome = team.run("-p", "no:asyncio", "-W", "default", "-k", " or ".join(needed))
    assert outcome.code == 1, outcome.output
    assert set(outcome.said) == set(needed)
    for name, said in outcome.said.items():
        assert needed[name] in said
        assert "Traceback" not in said
        assert len(said.splitlines()) < 5, said


def test_without_pytest_the_plugin_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pytest", None)
    monkeypatch.delitem(sys.modules, "beanie_session_store.testing")
    with pytest.raises(ImportError, match=re.escape("beanie-session-store[testing]")):
        importlib.import_module("beanie_session_store.testing")


def test_the_package_does_not_need_pytest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pytest", None)
    for name in [name for name in sys.modules if ".loopback" in name]:
        monkeypatch.delitem(sys.modules, name)
    importlib.import_module("beanie_session_store.app.loopback.messages_api")


# Scripts


@pytest.fixture
def script(tmp_path: Path) -> ScriptedAgent:
    return ScriptedAgent(tmp_path)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda s: s.says(""),
        lambda s: s.says(" \n"),
        lambda s: s.says(None),
        lambda s: s.says(b"text"),
        lambda s: s.calls("", {}),
        lambda s: s.calls(1, {}),
        lambda s: s.calls("Bash", "ls"),
        lambda s: s.calls("Bash", None),
        lambda s: s.calls("Bash", {"command": b"ls"}),
        lambda s: s.calls("Bash", {"command": float("nan")}),
        lambda s: s.calls("Bash", {}, text=""),
        lambda s: s.replies(),
        lambda s: s.replies("text"),
        lambda s: s.replies(Text("x"), None),
        lambda s: s.replies(ToolUse("Bash", {1: object()})),
        lambda s: s.fails(200),
        lambda s: s.fails("529"),
        lambda s: s.fails(True),
        lambda s: s.fails(529, times=0),
        lambda s: s.fails(529, times=1.5),
        lambda s: s.fails(529, ""),
        lambda s: s.delegates(""),
        lambda s: s.delegates(None),
        lambda s: s.delegates("x", subagent_type=None),
        lambda s: s.on(""),
        lambda s: s.on(None),
    ],
)
def test_a_turn_that_cannot_be_said_is_refused_when_it_is_scripted(
    script: ScriptedAgent, wrong: Any
) -> None:
    with pytest.raises((TypeError, ValueError)) as refused:
        wrong(script)
    assert len(str(refused.value)) < 250
    assert script.problem() is None
    script.says("x")
    assert "'x'" in (script.problem() or "")


def request(prompt: str, session: str = "s1", *more: Any) -> ModelRequest:
    messages = [{"role": "user", "content": prompt}, *more]
    return ModelRequest.of({"messages": messages, "metadata": {"user_id": session}})


def said(script: Script, asked: ModelRequest) -> Any:
    (block,) = script.next(asked) or [None]  # type: ignore[misc]
    return block


def test_a_failure_lasts_for_the_tries_of_one_request(script: ScriptedAgent) -> None:
    script.fails(500).fails(429, times=2).says("Here.")
    assert [script.next(request("a")).status for _ in range(4)] == [500] * 4  # type: ignore[union-attr]
    later = request("a", "s2")
    assert [script.next(later).status for _ in range(2)] == [429] * 2  # type: ignore[union-attr]
    assert said(script, later) == Text("Here.")
    assert script.next(later) is None
    assert script.problem() is None


def test_a_request_is_read_as_the_agent_writes_it() -> None:
    reminder = {"type": "text", "text": "<system-reminder>Be brief.</system-reminder>"}
    notice = "<system-reminder><task-notification><result>Three.</result></task-notification>"
    body: Any = {
        "model": "a-model",
        "system": [{"type": "text", "text": "You are an agent."}],
        "tools": [{"name": "Bash", "description": "Runs a command."}],
        "messages": [
            {"role": "user", "content": [reminder, {"type": "text", "text": "Count."}]},
            {"role": "assistant", "content": [{"type": "tool_use", "name": "Bash", "input": {}}]},
            {"role": "user", "content": [{"type": "tool_result", "content": "3"}]},
            {"role": "user", "content": [reminder]},
        ],
    }
    read = ModelRequest.of(body)
    assert (read.prompt, read.report, read.calls, read.results) == (
        "Count.",
        None,
        ("Bash",),
        ("3",),
    )
    assert (read.model, read.tools) == ("a-model", {"Bash"})
    for told in ("You are an agent.", "Be brief.", "Count.", "3"):
        assert told in read.text.splitlines() or told in read.text
    assert "Runs a command." not in read.text
    body["messages"].append({"role": "user", "content": [{"type": "text", "text": notice}]})
    read = ModelRequest.of(body)
    assert (read.prompt, read.report, read.calls) == ("Count.", "Three.", ())
    assert ModelRequest.of({}).text == ""


# Document classes


class OwnEntry(TranscriptEntry):
    pass


class OlderEntry(OwnEntry):
    pass


class OtherEntry(TranscriptEntry):
    pass


def test_the_classes_of_the_store_are_found_among_a_teams() -> None:
    found = StoreClasses.of([OwnEntry, OlderEntry, "acme.documents.Customer"])
    assert (found.entries, found.summaries) == (OlderEntry, SessionSummary)
    assert TranscriptEntry not in found.documents
    assert {"acme.documents.Customer", SessionSummary} < set(found.documents)
    with pytest.raises(ValueError, match="OwnEntry and OtherEntry"):
        StoreClasses.of([OwnEntry, OtherEntry])
    for wrong in (None, "Customer", OwnEntry):
        with pytest.raises(TypeError, match="in a list"):
            StoreClasses.of(wrong)
