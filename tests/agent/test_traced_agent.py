"""The real agent with tracing on: what the store does is a part of the agent's turn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from claude_agent_sdk import ClaudeSDKClient, ResultMessage, query
from support.telemetry import recording, said

from beanie_session_store import BeanieSessionStore
from beanie_session_store.testing.scripted_agent import ScriptedAgent, surroundings

pytestmark = pytest.mark.agent


async def asked(messages: Any) -> str:
    """The session of a run, once it is at its end."""
    (result,) = [each async for each in messages if isinstance(each, ResultMessage)]
    assert not result.is_error, result.result
    return result.session_id


async def test_the_stores_spans_are_children_of_the_agents_turn(
    store: BeanieSessionStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = ScriptedAgent(tmp_path)
    agent.says("Hello.")
    agent.says("Again.")
    with recording(monkeypatch) as recorded, surroundings(agent.env), agent.running():
        monkeypatch.setattr(
            "opentelemetry.trace.get_tracer_provider", lambda: recorded.tracer_provider
        )
        session = ""
        for prompt in ("Hi", "And again"):
            recorded.forget()
            options = agent.options()
            options.resume = session or None
            with recorded.tracer.start_as_current_span("turn") as turn:
                async with store.agent_options(options) as ready:
                    session = await asked(query(prompt=prompt, options=ready))
            here = turn.get_span_context()
            appends = recorded.spans("append")
            assert appends
            of_the_store = [each for each in recorded.spans() if "db.operation.name" in said(each)]
            for span in of_the_store:
                assert span.context.trace_id == here.trace_id, span.name
            parents = {each.parent and each.parent.span_id for each in appends}
            assert parents == {here.span_id}
            assert {said(each)["gen_ai.conversation.id"] for each in appends} == {session}


async def test_a_client_kept_over_turns_has_the_context_it_was_connected_in(
    store: BeanieSessionStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = ScriptedAgent(tmp_path)
    agent.says("Hello.")
    with recording(monkeypatch) as recorded, surroundings(agent.env), agent.running():
        async with store.agent_options(agent.options()) as ready:
            with recorded.tracer.start_as_current_span("connection") as connection:
                client = ClaudeSDKClient(ready)
                await client.connect()
            with recorded.tracer.start_as_current_span("turn"):
                await client.query("Hi")
                await asked(client.receive_response())
            await client.disconnect()
        parents = {span.parent and span.parent.span_id for span in recorded.spans("append")}
        assert parents == {connection.get_span_context().span_id}
