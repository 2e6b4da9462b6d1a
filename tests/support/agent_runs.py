"""A process that runs agents for several tenants; see `tests/agent/test_agent_runs.py`."""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from claude_agent_sdk import ClaudeAgentOptions, ResultMessage, query

from beanie_session_store import BeanieSessionStore, UnknownSessionError
from beanie_session_store.app.database.driver import close_client, open_client


async def main(job: dict[str, Any]) -> list[dict[str, Any]]:
    """Take the steps of a job one after another, and say what came of each."""
    client = open_client(job["url"])
    database = client[job["database"]]
    seen: list[dict[str, Any]] = []
    for step in job["steps"]:
        store = BeanieSessionStore.on(database, tenant=step["tenant"])
        named = {name: seen[at]["session_id"] for name, at in step.get("of_step", {}).items()}
        options = ClaudeAgentOptions(
            cwd=job["directory"], max_turns=4, **step.get("options", {}), **named
        )
        if "deletes" in step:
            await store.delete(job["project"] | {"session_id": seen[step["deletes"]]["session_id"]})
            seen.append({})
        elif "erases" in step:
            key = job["project"] | {"session_id": seen[step["erases"]]["session_id"]}
            await store.set_metadata(key, {"user_id": "erased"})
            receipt = await store.erase(metadata={"user_id": "erased"})
            seen.append({"erased": len(receipt.sessions)})
        elif "expires" in step:
            past = {"$set": {"expires_at": datetime(2020, 1, 1, tzinfo=timezone.utc)}}
            session = {"session_id": seen[step["expires"]]["session_id"]}
            for name in ("claude_transcript_entries", "claude_transcript_summaries"):
                await database[name].update_many(session, past)
            seen.append({})
        elif step.get("is_plain"):
            options.session_store = store
            seen.append(await ask(step["prompt"], options))
        else:
            try:
                async with store.agent_options(options, config=step.get("config")) as ready:
                    folder = Path(ready.env["CLAUDE_CONFIG_DIR"])
                    begun = sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))
                    if step.get("hangs"):
                        print(json.dumps({"folder": str(folder)}), flush=True)
                        await asyncio.sleep(600)
                    found = await ask(step["prompt"], ready) | {"begun": begun}
                seen.append(found | {"is_gone": not folder.exists()})
            except UnknownSessionError as error:
                seen.append({"refused": str(error)})
    await close_client(client)
    return seen


async def ask(prompt: str, options: ClaudeAgentOptions) -> dict[str, Any]:
    """Ask the agent, to the end of what it says."""
    found: dict[str, Any] = {}
    try:
        async for message in query(prompt=prompt, options=options):
            if isinstance(message, ResultMessage):
                found = {"session_id": message.session_id, "answer": message.result}
    except Exception as error:
        return found | {"failed": str(error)}
    return found


print(json.dumps(asyncio.run(main(json.load(sys.stdin)))))
