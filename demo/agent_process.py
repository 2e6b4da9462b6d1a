"""One run of the real agent over the store, as a process of its own.

The SDK lets the agent inherit the environment of the Python process around it, so a "host" is a
process started with a clean environment and its own home: see :mod:`.agent`, which starts this
file. The job comes as JSON on standard input; the outcome is one JSON line on standard output.

A store-backed resume runs the agent in a temporary directory that the SDK deletes at the end.
Its files are hard-linked into the home while the agent runs, so that the transcripts of either
kind of run are found in the same place afterwards.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from claude_agent_sdk import ClaudeAgentOptions, MirrorErrorMessage, ResultMessage, query

from beanie_session_store import BeanieSessionStore

Json = dict[str, Any]
PROJECTS = Path.home() / ".claude" / "projects"


async def run(job: Json) -> Json:
    outcome: Json = {"session_id": None, "result": None, "is_error": True, "mirror_errors": []}
    connection = BeanieSessionStore.connect(
        job["url"], database=job["database"], tenant=job["tenant"]
    )
    async with connection as store:
        if job["record"]:
            _record_appends(store, Path(job["record"]))
        options = ClaudeAgentOptions(session_store=store, **job["options"])
        async for message in query(prompt=job["prompt"], options=options):
            _keep_resumed_files()
            if isinstance(message, MirrorErrorMessage):
                outcome["mirror_errors"].append(message.error)
            if isinstance(message, ResultMessage):
                outcome["session_id"] = message.session_id
                outcome["result"] = message.result
                outcome["is_error"] = message.is_error
    return outcome


def _record_appends(store: Any, path: Path) -> None:
    """Write down every batch that the store accepted, in order."""
    append = store.append

    async def recorded(key: Any, entries: list[Any]) -> None:
        await append(key, entries)
        with path.open("a") as file:
            file.write(json.dumps({"key": key, "entries": entries}) + "\n")

    store.append = recorded


def _keep_resumed_files() -> None:
    for config in Path(tempfile.gettempdir()).glob("claude-resume-*"):
        for source in (config / "projects").rglob("*.json*"):
            kept = PROJECTS / source.relative_to(config / "projects")
            kept.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError, FileExistsError):
                os.link(source, kept)


def main() -> None:
    try:
        outcome = asyncio.run(run(json.load(sys.stdin)))
    except Exception as error:
        outcome = {"failure": f"{type(error).__name__}: {error}"}
    print(json.dumps(outcome))


if __name__ == "__main__":
    main()
