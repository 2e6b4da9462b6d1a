"""Entries as the agent writes them, and what a session must look like."""

from __future__ import annotations

import uuid
from typing import Any

from claude_agent_sdk import fold_session_summary

from beanie_session_store import BeanieSessionStore, TranscriptEntry

KEY = {"project_key": "project", "session_id": "session"}
SUBAGENT = {**KEY, "subpath": "subagents/agent-a1"}


def message(text: str = "hello", **fields: Any) -> dict[str, Any]:
    """An entry with a uuid of its own."""
    return {
        "type": "user",
        "uuid": str(uuid.uuid4()),
        "timestamp": "2026-01-01T00:00:00.000Z",
        "message": {"role": "user", "content": text},
        **fields,
    }


def marker(mode: str = "default", **fields: Any) -> dict[str, Any]:
    """An entry without a uuid, as about half of real traffic is."""
    return {"type": "mode", "mode": mode, "sessionId": "session", **fields}


def turn(number: int) -> list[dict[str, Any]]:
    """A batch that mixes entries with and without uuid, and moves the fold on."""
    return [
        marker(f"mode-{number}"),
        message(f"prompt {number}"),
        marker("same"),
        marker("same"),
        message(f"answer {number}"),
        {"type": "last-prompt", "lastPrompt": f"prompt {number}", "sessionId": "session"},
    ]


async def seqs(key: dict[str, str] = KEY, tenant: str = "default") -> list[int]:
    """The positions of a whole session, main and subagents together, in order."""
    query = {
        "tenant": tenant,
        "project_key": key["project_key"],
        "session_id": key["session_id"],
    }
    found = await TranscriptEntry.find(query).sort("seq").to_list()
    return [entry.seq for entry in found]


async def assert_summary_is_the_fold(store: BeanieSessionStore, key: dict[str, str] = KEY) -> None:
    """The listed summary equals the SDK's fold over what is stored, in order."""
    entries = await store.load(key)
    summaries = await store.list_session_summaries(key["project_key"])
    (summary,) = [s for s in summaries if s["session_id"] == key["session_id"]]
    assert entries is not None
    assert summary["data"] == fold_session_summary(None, key, entries)["data"]
    (listed,) = [
        s
        for s in await store.list_sessions(key["project_key"])
        if s["session_id"] == key["session_id"]
    ]
    assert listed["mtime"] == summary["mtime"]
