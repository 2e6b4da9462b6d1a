"""The real agent in a session that it holds alone, and that it loses."""

from __future__ import annotations

import asyncio
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from claude_agent_sdk import (
    ClaudeAgentOptions,
    ClaudeSDKClient,
    ResultMessage,
    project_key_for_directory,
)
from support.watchdog import WATCHDOG_SECONDS

from beanie_session_store import BeanieSessionStore, InvalidOptionsError
from beanie_session_store.testing.scripted_agent import ScriptedAgent, surroundings

pytestmark = pytest.mark.agent

TTL = timedelta(seconds=2)


@pytest.fixture
def agent(tmp_path: Path) -> Any:
    agent = ScriptedAgent(tmp_path / "agent")
    with agent.running(), surroundings(agent.env):
        yield agent


async def test_an_agent_writes_under_a_lease(store: BeanieSessionStore, agent: Any) -> None:
    session_id = str(uuid.uuid4())
    key = {"project_key": project_key_for_directory(agent.directory), "session_id": session_id}
    agent.says("Hello")
    async with store.lease(key, owner="host-7") as leased:
        options = agent.options(ClaudeAgentOptions(session_id=session_id, session_store=leased))
        async with store.agent_options(options) as own, ClaudeSDKClient(own) as client:
            await client.query("Hi")
            found = [message async for message in client.receive_response()]
        (result,) = [each for each in found if isinstance(each, ResultMessage)]
        assert (result.result, result.session_id) == ("Hello", session_id)
        assert not leased.lost.is_set()
        transcript = await store.transcript(key)
        assert transcript is not None
        assert [turn.prompt.text for turn in transcript.turns] == ["Hi"]
        with pytest.raises(InvalidOptionsError, match="another session_store"):
            async with BeanieSessionStore().agent_options(options):
                pytest.fail("it is not of this store")


async def test_an_agent_whose_lease_is_broken_is_interrupted(
    store: BeanieSessionStore, agent: Any
) -> None:
    session_id = str(uuid.uuid4())
    key = {"project_key": project_key_for_directory(agent.directory), "session_id": session_id}
    clients: list[ClaudeSDKClient] = []
    started = agent.directory / "started"
    # It would go on for longer than the test may.
    command = f"touch {started}; sleep {10 * WATCHDOG_SECONDS}"
    agent.calls("Bash", {"command": command, "description": "Work"})

    async def interrupt() -> None:
        await clients[0].interrupt()

    async with store.lease(key, owner="host-7", ttl=TTL, on_lost=interrupt) as leased:
        options = agent.options(
            ClaudeAgentOptions(
                session_id=session_id,
                session_store=leased,
                permission_mode="bypassPermissions",
            )
        )
        async with store.agent_options(options) as own, ClaudeSDKClient(own) as client:
            clients.append(client)
            await client.query("Work")

            async def work() -> list[Any]:
                return [message async for message in client.receive_response()]

            working = asyncio.create_task(work())
            while not started.exists():  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            assert await store.break_lease(key) is not None
            before = await store.load(key)
            found = await asyncio.wait_for(working, WATCHDOG_SECONDS)
        assert leased.lost.is_set()
        (result,) = [each for each in found if isinstance(each, ResultMessage)]
        assert result.is_error
        # What it said of its end is nowhere.
        assert await store.load(key) == before
