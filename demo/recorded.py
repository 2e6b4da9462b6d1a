"""Three sessions of a made-up shop, as the agent keeps them on disk, for the documentation."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

Entry = dict[str, Any]

OPUS, HAIKU = "claude-opus-4-5", "claude-haiku-4-5"
_PYTEST = (
    "FAILED tests/test_login.py::test_session_expires - assert 'valid' == 'expired'\n"
    "E   the token was made at 23:59:59.7 and read at 00:00:00.1\n"
    "1 failed, 41 passed in 3.20s"
)


class Recording:
    """The lines of one transcript, a few seconds apart."""

    def __init__(self, session_id: str, begin: datetime, agent: str = "") -> None:
        self.lines: list[Entry] = []
        self._session_id = session_id
        self._agent = agent
        self.now = begin

    def user(self, content: str | list[Entry]) -> None:
        """What a person said, or a tool returned."""
        self._add({"type": "user", "message": {"role": "user", "content": content}})

    def returned(self, call: str, content: str, *, is_error: bool = False) -> None:
        """What a tool returned."""
        result = {"type": "tool_result", "tool_use_id": call, "content": content}
        self.user([{**result, "is_error": is_error}])

    def said(self, model: str, text: str, *calls: tuple[str, str, Entry], tokens: int) -> None:
        """A response of the model: a text, and calls of tools by id, name and arguments."""
        content: list[Entry] = [{"type": "text", "text": text}]
        content += [{"type": "tool_use", "id": i, "name": n, "input": a} for i, n, a in calls]
        usage = {
            "input_tokens": tokens // 10,
            "output_tokens": tokens // 40,
            "cache_creation_input_tokens": tokens // 8,
            "cache_read_input_tokens": tokens,
        }
        message = {
            "id": f"msg_{self._agent}{self._session_id[:8]}{len(self.lines)}",
            "role": "assistant",
            "model": model,
            "content": content,
            "usage": usage,
        }
        self._add({"type": "assistant", "message": message})

    def record(self, kind: str, **fields: Any) -> None:
        """A line that is no part of the conversation."""
        self.lines.append({"type": kind, **fields, "sessionId": self._session_id})

    def cost(self, **dollars: float) -> None:
        """What it has cost by model, as the agent accounts for it at its end."""
        models = {"opus": OPUS, "haiku": HAIKU}
        usage = {models[name]: {"costUSD": cost} for name, cost in dollars.items()}
        start = int(self.now.timestamp())
        total = round(sum(dollars.values()), 6)
        self.record("cost-state", totalCostUSD=total, startTime=start, modelUsage=usage)

    def _add(self, entry: Entry) -> None:
        self.now += timedelta(seconds=7)
        name = f"{self._agent or 'main'}-{self._session_id[:8]}-{len(self.lines)}"
        at = self.now.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        parent = next((e["uuid"] for e in reversed(self.lines) if "uuid" in e), None)
        common = {"uuid": name, "parentUuid": parent, "timestamp": at, "gitBranch": "main"}
        self.lines.append({**entry, **common, "sessionId": self._session_id})


def write_sessions(projects: Path) -> None:
    """Write them below a folder of projects, each with the time of its last line."""
    login, review = _login()
    _write(projects / "-srv-shop", [login], {"agent-a7c1": review})
    _write(projects / "-srv-shop", [_payment()], {})
    _write(projects / "-srv-reports", [_report()], {})


def _login() -> tuple[Recording, tuple[Recording, Entry]]:
    session_id = "6645a6b0-a285-4e63-944c-14e3cfe953e5"
    main = Recording(session_id, datetime(2026, 10, 12, 9, 14, tzinfo=timezone.utc))
    main.user("The login test fails on CI, but only at night. Find out why and mend it.")
    main.record("ai-title", aiTitle="Mend the login test that fails at night")
    shell = {"command": "pytest tests/test_login.py -q", "description": "Run the login tests"}
    main.said(OPUS, "I run the test first.", ("t1", "Bash", shell), tokens=18_000)
    main.returned("t1", _PYTEST, is_error=True)
    source = {"file_path": "/srv/shop/login/token.py"}
    main.said(
        OPUS,
        "The token is made on one day and read on the next: its age is counted in whole days.",
        ("t2", "Read", source),
        tokens=19_500,
    )
    main.returned("t2", "def is_expired(token):\n    return token.day < date.today()")
    change = {**source, "old_string": "token.day < date.today()", "new_string": "token.age > AGE"}
    task = {"description": "Review the change", "prompt": "Is this right?"}
    main.said(
        OPUS,
        "I count the age in seconds instead, and have it reviewed.",
        ("t3", "Edit", change),
        ("t4", "Agent", {**task, "subagent_type": "reviewer"}),
        tokens=21_000,
    )
    main.returned("t3", "The file /srv/shop/login/token.py has been updated.")
    agent = Recording(session_id, main.now, "a7c1")
    agent.user("Is this right?")
    agent.said(
        HAIKU, "I look where it is used.", ("r1", "Grep", {"pattern": "is_expired"}), tokens=6_000
    )
    agent.returned("r1", "login/token.py:12\nlogin/middleware.py:40")
    agent.said(HAIKU, "Right in both places. A test at midnight would keep it so.", tokens=6_400)
    main.now = agent.now
    main.returned("t4", "Right in both places. A test at midnight would keep it so.")
    main.said(
        OPUS,
        "Mended: tokens now expire by the second. I added a test that sets the clock to midnight.",
        tokens=23_000,
    )
    main.cost(opus=0.412, haiku=0.018)
    metadata = {"agentType": "reviewer", "description": "Review the change", "toolUseId": "t4"}
    return main, (agent, metadata)


def _payment() -> Recording:
    main = Recording(
        "66a90d11-50fb-4f0f-8ef2-0d8d3f9a4c3b", datetime(2026, 10, 14, 15, 2, tzinfo=timezone.utc)
    )
    main.user("Upgrade the payment client to version 4 and tell me what changes for us.")
    main.said(
        OPUS,
        "I read its list of changes.",
        ("t1", "WebFetch", {"url": "https://docs.example/v4"}),
        tokens=30_000,
    )
    main.returned("t1", "Amounts are integers.\nRefunds need a reason.")
    main.user("Leave the refunds as they are for now.")
    main.said(
        OPUS, "Then only the amounts change: they are cents now, in 14 places.", tokens=34_000
    )
    main.record("tag", tag="payments")
    main.cost(opus=0.731)
    return main


def _report() -> Recording:
    main = Recording(
        "71c09f3e-8d0b-4c7c-b0ba-5a2f4c1f7c11", datetime(2026, 10, 13, 6, 30, tzinfo=timezone.utc)
    )
    main.user("Why was the nightly report late?")
    main.said(
        HAIKU,
        "I look at its log.",
        ("t1", "Bash", {"command": "tail -n 40 report.log"}),
        tokens=9_000,
    )
    main.returned("t1", "05:58 waiting for the lock\n06:21 done")
    main.said(HAIKU, "It waited 23 minutes for a lock that the backup held.", tokens=9_400)
    main.cost(haiku=0.027)
    return main


def _write(
    project: Path, recordings: Sequence[Recording], subagents: dict[str, tuple[Recording, Entry]]
) -> None:
    for recording in recordings:
        session_id = recording.lines[0]["sessionId"]
        _write_lines(project / f"{session_id}.jsonl", recording)
        for name, (agent, metadata) in subagents.items():
            file = project / session_id / "subagents" / f"{name}.jsonl"
            _write_lines(file, agent)
            file.with_suffix(".meta.json").write_text(json.dumps(metadata))


def _write_lines(file: Path, recording: Recording) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(line) + "\n" for line in recording.lines))
    os.utime(file, (recording.now.timestamp(), recording.now.timestamp()))
