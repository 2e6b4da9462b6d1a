"""What the demo does: one session, begun on host A and taken up on host B.

Only the store connects the two. They are processes with an empty home each, and the file whose
content host A was asked about is gone before host B starts.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from claude_agent_sdk import project_key_for_directory

from beanie_session_store import BeanieSessionStore
from beanie_session_store.app.loopback.messages_api import LoopbackMessagesApi
from beanie_session_store.app.loopback.requests import ModelRequest

from .agent import Entry, Host, Run, Target
from .script import obedient_script
from .stored import Transcripts, load_all

FIRST_PROMPT = (
    "Run `cat notes.txt` with the Bash tool. Then DELEGATE to a subagent: "
    "run `wc -w notes.txt` with the Bash tool and report the number."
)
SECOND_PROMPT = (
    "RECALL what notes.txt said. Answer from our conversation, without tools, "
    "and quote the codeword."
)
_ALLOWED_TOOLS = ["Agent", "Bash(cat notes.txt)", "Bash(wc -w notes.txt)"]


@dataclass(frozen=True)
class Chapter:
    """One host's part."""

    prompt: str
    run: Run
    seconds: float
    stored: Transcripts
    """The session in the store when the host was done."""
    sessions: list[str]
    """The sessions that the store then listed."""
    first_request: dict[str, Any] | None
    """What the host asked the model first; unknown with the real API."""


@dataclass(frozen=True)
class Story:
    """Both hosts' parts, and the words that only the file held."""

    codeword: str
    first: Chapter
    second: Chapter


def tell(
    directory: Path,
    target: Target,
    *,
    api_key: str | None,
    progress: Callable[[str], None],
) -> Story:
    """Play the story in ``directory``; with ``api_key`` against the real API."""
    project = directory / "project"
    project.mkdir()
    codeword = f"heliotrope-{secrets.randbelow(9000) + 1000}"
    notes = project / "notes.txt"
    notes.write_text(f"The codeword is {codeword}.\n")

    progress("Host A runs the agent: a tool call and a subagent")
    first = _run("a", FIRST_PROMPT, directory, target, api_key)
    notes.unlink()
    progress("Host B resumes the session: empty home, notes.txt deleted")
    second = _run("b", SECOND_PROMPT, directory, target, api_key, resume=first.run.session_id)
    return Story(codeword, first, second)


def _run(
    name: str, prompt: str, directory: Path, target: Target, api_key: str | None, **options: Any
) -> Chapter:
    home, project = directory / f"host-{name}", directory / "project"
    home.mkdir()
    started = time.monotonic()
    options = {"store": target, "cwd": project, "allowed_tools": _ALLOWED_TOOLS} | options
    first_request = None
    if api_key:
        run = Host(home, api_key=api_key).run(prompt, timeout=300, **options)
    else:
        with LoopbackMessagesApi(obedient_script) as api:
            run = Host(home, api_url=api.url).run(prompt, **options)
            first_request = api.requests[0]
    seconds = time.monotonic() - started
    key = {"project_key": project_key_for_directory(project), "session_id": run.session_id}
    stored, sessions = asyncio.run(_look(target, key))
    return Chapter(prompt, run, seconds, stored, sessions, first_request)


async def _look(target: Target, key: Any) -> tuple[Transcripts, list[str]]:
    connection = BeanieSessionStore.connect(
        target.url, database=target.database, tenant=target.tenant
    )
    async with connection as store:
        sessions = await store.list_sessions(key["project_key"])
        return await load_all(store, key), [session["session_id"] for session in sessions]


def messages_of(entries: list[Entry]) -> list[dict[str, Any]]:
    """The messages of a transcript, as a request to the model would carry them."""
    return [entry["message"] for entry in entries if "message" in entry]


def tool_results(messages: list[dict[str, Any]]) -> str:
    """What tools returned in a conversation."""
    return "\n".join(result.strip() for result in ModelRequest.of({"messages": messages}).results)


def said(messages: Any) -> str:
    """Entries or messages as one text to look for words in."""
    return json.dumps(messages, ensure_ascii=False)
