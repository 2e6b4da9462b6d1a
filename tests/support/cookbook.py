"""The sessions that the cookbook of docs/typed-access.md asks about."""

from __future__ import annotations

import uuid
from typing import Any

from beanie_session_store import BeanieSessionStore

Entry = dict[str, Any]

TENANT = "acme"


class Script:
    """Writes the entries of one transcript, two seconds apart."""

    def __init__(self, day: str, branch: str) -> None:
        self._day = day
        self._branch = branch
        self._seconds = 0
        self._parent: str | None = None
        self.entries: list[Entry] = []

    def add(self, kind: str, message: Entry, **fields: Any) -> None:
        entry = {
            "type": kind,
            "uuid": str(uuid.uuid4()),
            "parentUuid": self._parent,
            "timestamp": f"{self._day}T09:00:{self._seconds:02}.000Z",
            "gitBranch": self._branch,
            "cwd": "/srv",
            "message": message,
            **fields,
        }
        self._seconds += 2
        self._parent = entry["uuid"]
        self.entries.append(entry)

    def prompt(self, text: str) -> None:
        self.add("user", {"role": "user", "content": text})

    def answer(self, *blocks: Entry, model: str = "opus", output: int = 100) -> None:
        usage = {"input_tokens": 1000, "output_tokens": output}
        message = {"id": f"msg_{uuid.uuid4()}", "model": model, "usage": usage}
        for block in blocks:
            self.add("assistant", {**message, "role": "assistant", "content": [block]})

    def result(self, call: str, text: str, *, is_error: bool = False) -> None:
        block = {"type": "tool_result", "tool_use_id": call, "content": text, "is_error": is_error}
        self.add("user", {"role": "user", "content": [block]})

    def cost(self, **by_model: float) -> None:
        usage = {model: {"costUSD": cost} for model, cost in by_model.items()}
        total = sum(by_model.values())
        self.entries.append({"type": "cost-state", "totalCostUSD": total, "modelUsage": usage})


def text(said: str) -> Entry:
    return {"type": "text", "text": said}


def call(name: str, number: str, **arguments: str) -> Entry:
    return {"type": "tool_use", "id": number, "name": name, "input": arguments}


async def write_sessions() -> None:
    """Three sessions of two users."""
    one = BeanieSessionStore(tenant=TENANT, metadata={"user_id": "u1"})
    other = BeanieSessionStore(tenant=TENANT, metadata={"user_id": "u2"})

    key: Any = {"project_key": "-srv", "session_id": "s1"}
    script = Script("2026-11-18", "main")
    script.prompt("Why do the tests hang?")
    script.answer(text("Let me look."), call("Bash", "t1", command="pytest"), output=200)
    script.result("t1", "1 failed")
    script.answer(call("Agent", "t2", prompt="find the timeout"), model="haiku")
    # It runs in the background, so what comes back at once is a notice.
    script.result("t2", "Async agent launched successfully.")
    script.answer(text("The timeout is missing."))
    script.prompt("Fix it")
    script.answer(call("Bash", "t3", command="sed -i s/0/5/ client.py"))
    script.result("t3", "no such file", is_error=True)
    script.answer(text("Done."))
    script.cost(opus=0.5, haiku=0.02)
    script.entries.append({"type": "tag", "tag": "bug"})
    await one.append(key, script.entries)
    sub = Script("2026-11-18", "main")
    sub.prompt("find the timeout")
    sub.answer(call("Grep", "t9", pattern="timeout"), model="haiku", output=30)
    sub.result("t9", "client.py")
    sub.answer(text("in client.py"), model="haiku", output=10)
    sub.entries.append({"type": "agent_metadata", "toolUseId": "t2", "agentType": "Explore"})
    await one.append({**key, "subpath": "subagents/agent-a1"}, sub.entries)

    script = Script("2026-11-24", "release")
    script.prompt("Write the changelog")
    script.answer(text("Written."), output=400)
    script.cost(opus=0.75)
    script.entries.append({"type": "ai-title", "aiTitle": "Changelog"})
    await one.append({"project_key": "-srv", "session_id": "s2"}, script.entries)

    script = Script("2026-11-24", "main")
    script.prompt("Raise the timeout of the gateway")
    script.answer(call("Bash", "t1", command="make deploy"))
    script.result("t1", "deployed")
    script.cost(opus=0.1)
    await other.append({"project_key": "-app", "session_id": "s3"}, script.entries)
