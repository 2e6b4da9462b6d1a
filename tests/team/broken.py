"""Tests of a team that fail, each of them for a reason of its own."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest
from claude_agent_sdk import query

from beanie_session_store import BeanieSessionStore
from beanie_session_store.testing import Documents, ScriptedAgent

WAIT = "touch started; while [ -e started ]; do sleep 0.1; done"


async def run(agent: ScriptedAgent, prompt: str) -> None:
    async for _ in query(prompt=prompt, options=agent.options()):
        pass


async def test_asks_more_than_is_scripted(scripted_agent: ScriptedAgent) -> None:
    scripted_agent.calls("Bash", {"command": "echo $((6 * 7))"})
    await run(scripted_agent, "What is it?")


async def test_hides_that_it_asks_more(scripted_agent: ScriptedAgent) -> None:
    with pytest.raises(Exception, match="scripted no turn"):
        await run(scripted_agent, "What is it?")


async def test_asks_less_than_is_scripted(scripted_agent: ScriptedAgent) -> None:
    scripted_agent.says("Once.").says("Twice.")
    scripted_agent.on("Never").calls("Bash", {"command": "true"})
    await run(scripted_agent, "What is it?")


async def test_fails_by_itself(scripted_agent: ScriptedAgent) -> None:
    scripted_agent.says("Never said.")
    pytest.fail("of its own reason")


async def test_fails_while_a_tool_runs(
    session_store: BeanieSessionStore, scripted_agent: ScriptedAgent
) -> None:
    scripted_agent.calls("Bash", {"command": WAIT})
    running = asyncio.create_task(run(scripted_agent, "Wait"))
    while not (scripted_agent.directory / "started").exists():
        assert not running.done(), await running
        await asyncio.sleep(0.05)
    if "HANGS" in os.environ:
        print("started", flush=True)
        await running
    raise AssertionError("in the middle")


class TestWithTwoClassesForOne:
    @pytest.fixture
    def session_store_documents(self) -> Documents:
        from beanie_session_store import TranscriptEntry

        class One(TranscriptEntry):
            pass

        class Other(TranscriptEntry):
            pass

        return [One, Other]

    async def test_asks_for_a_store(self, session_store: BeanieSessionStore) -> None:
        pass


class TestWithAnUnknownIsolation:
    @pytest.fixture
    def session_store_isolation(self) -> Any:
        return "table"

    async def test_asks_for_a_store(self, session_store: BeanieSessionStore) -> None:
        pass
