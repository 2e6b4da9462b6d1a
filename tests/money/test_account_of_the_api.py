"""What is counted of the real agent's turns is what the API's own log says, to the token."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import genai_prices
import pytest
from claude_agent_sdk import ClaudeAgentOptions, ClaudeSDKClient, ResultMessage

from beanie_session_store import BeanieSessionStore
from beanie_session_store.app.loopback.environment import loopback_settings
from beanie_session_store.app.loopback.messages_api import Billed, LoopbackMessagesApi
from beanie_session_store.app.loopback.replies import Cut, Failure, Reply, Text, ToolUse
from beanie_session_store.app.loopback.requests import ModelRequest
from beanie_session_store.testing.leftovers import end_agents
from beanie_session_store.testing.scripted_agent import surroundings

pytestmark = [pytest.mark.agent, pytest.mark.soak]

KINDS = (
    *("plain", "tool", "two tools", "subagent", "plain", "broken off", "refused at first"),
    *("tool", "broken off in a subagent", "lost", "failing tool"),
)
_BEGINS = "Count to ten"


class Model:
    """Does what the prompt's words ask for, and breaks off where they say so."""

    def __init__(self) -> None:
        self._seen: Counter[str] = Counter()
        self._lock = threading.Lock()

    def __call__(self, asked: ModelRequest) -> Reply:
        prompt = asked.prompt
        with self._lock:
            self._seen[prompt] += 1
            is_first = self._seen[prompt] == 1
        if "summary" in prompt and "conversation" in prompt and not prompt.startswith(_BEGINS):
            return [Text("<summary>All went well.</summary>")]
        if not prompt.startswith(_BEGINS):
            return [Text("So much for that.")]
        if "refused at first" in prompt and is_first:
            return Failure(529, "overloaded_error", "Overloaded")
        if "lost" in prompt and is_first:
            return Cut([])
        if "broken off in a subagent" in prompt and "Agent" not in asked.tools and is_first:
            return Cut([Text("I began to")])
        if "broken off" in prompt and "subagent" not in prompt and is_first:
            return Cut([Text("One, two, three")])
        if asked.report is not None or asked.calls:
            return [Text(f"Ten. {'All of it. ' * (len(prompt) % 7)}")]
        if "subagent" in prompt and "Agent" in asked.tools:
            inner = f"{_BEGINS} with a tool: {prompt}".replace("subagent", "subtask")
            if "broken off" in prompt:
                inner = prompt.replace("Count to ten", "Count to ten broken off in a subagent")
            arguments = {
                "description": "Count",
                "prompt": inner,
                "subagent_type": "general-purpose",
            }
            return [ToolUse("Agent", {**arguments, "run_in_background": False})]
        if "two tools" in prompt:
            return [Text("Both."), *(_bash(f"echo {number}") for number in (1, 2))]
        if "failing tool" in prompt:
            return [_bash("exit 3")]
        return [_bash("echo ten")] if "tool" in prompt else [Text("One to ten.")]


def _bash(command: str) -> ToolUse:
    return ToolUse("Bash", {"command": command, "description": "Count"})


@dataclass
class Place:
    """Where the agents run."""

    store: BeanieSessionStore
    directory: Path
    turns: int = 0

    async def run(self, turns: int, *, before: str | None = None, **options: Any) -> str:
        """So many turns of one process of the agent; returns its session."""
        asked = ClaudeAgentOptions(
            cwd=self.directory, permission_mode="bypassPermissions", max_turns=20, **options
        )
        session = ""
        prompts = [before] if before else []
        for _ in range(turns):
            kind = KINDS[self.turns % len(KINDS)]
            self.turns += 1
            prompts.append(f"{_BEGINS}, turn {self.turns}: {kind}")
        async with self.store.agent_options(asked) as ready, ClaudeSDKClient(ready) as client:
            for prompt in prompts:
                await client.query(prompt)
                async for message in client.receive_response():
                    if isinstance(message, ResultMessage):
                        session = message.session_id
        return session


async def test_what_is_counted_is_what_the_api_was_asked_for(
    store: BeanieSessionStore, tmp_path: Path
) -> None:
    home, directory = tmp_path / "home", (tmp_path / "project").resolve()
    (home / "tmp").mkdir(parents=True)
    directory.mkdir()
    with LoopbackMessagesApi(Model(), max_replies=5000) as api:
        with surroundings(loopback_settings(home, api.url)):
            try:
                place = Place(store, directory)
                work = tell(place)
                sessions = await asyncio.wait_for(work, 1500)
            finally:
                end_agents(api.url, 5.0)
        log = api.billed
    assert place.turns == 200
    await compare(store, log, sessions)


async def tell(place: Place) -> list[str]:
    """Three sessions: one resumed and compacted, one forked from it, and one of its own."""
    first = await place.run(60)
    assert await place.run(50, before="/compact", resume=first) == first
    fork = await place.run(40, resume=first, fork_session=True)
    assert fork != first
    own = await place.run(30)
    assert await place.run(20, resume=own) == own
    return [first, fork, own]


async def compare(store: BeanieSessionStore, log: list[Billed], sessions: list[str]) -> None:
    page = await store.sessions()
    assert {session.session_id for session in page.sessions} == set(sessions)
    written: set[str] = set()
    for session in page.sessions:
        transcripts = [session.key()]
        subpaths = await store.list_subkeys({**session.key()})
        transcripts += [{**session.key(), "subpath": subpath} for subpath in subpaths]
        for key in transcripts:
            for entry in await store.load(key) or ():
                if entry["type"] == "assistant":
                    written.add(entry["message"]["id"])
        assert (await store.verify(session.key())).is_sound
    by_id = {each.id: each for each in log}
    assert len(by_id) == len(log)
    seen = [each for each in log if each.id in written]
    # What left no entry: one compaction, and the streams that broke off before their first block.
    unseen = [each for each in log if each.id not in written]
    lost = [each for each in unseen if not each.is_whole]
    print(
        json.dumps({"log": len(log), "seen": len(seen), "unseen": len(unseen), "lost": len(lost)})
    )
    assert len(unseen) - len(lost) == 1
    assert len(lost) == sum(KINDS[turn % len(KINDS)] == "lost" for turn in range(200))

    (usage,) = await store.usage(by=())
    incomplete = [each for each in seen if not each.is_whole]
    assert len(incomplete) > 10
    assert (usage.responses, usage.incomplete) == (len(seen), len(incomplete))
    assert usage.input == total(seen, "input_tokens")
    assert usage.cache_creation == total(seen, "cache_creation_input_tokens")
    assert usage.cache_read == total(seen, "cache_read_input_tokens")
    for_an_hour = [each.usage["cache_creation"]["ephemeral_1h_input_tokens"] for each in seen]
    assert usage.cache_creation_1h == sum(for_an_hour) > 0
    # Of a stream that broke off the API had told of one token by then.
    whole = [each for each in seen if each.is_whole]
    assert usage.output == total(whole, "output_tokens") + len(incomplete)
    assert usage.estimated_usd == pytest.approx(float(priced(seen)), rel=1e-12)
    by_session = [session.totals for session in page.sessions]
    assert sum(each.estimated_usd or 0 for each in by_session) == pytest.approx(
        usage.estimated_usd, rel=1e-12
    )


def total(log: list[Billed], name: str) -> int:
    return sum(each.usage[name] for each in log)


def priced(log: list[Billed]) -> Decimal:
    """What the log costs, each response by itself."""
    cost = Decimal(0)
    for each in log:
        written = each.usage["cache_creation_input_tokens"]
        read = each.usage["cache_read_input_tokens"]
        usage = genai_prices.Usage(
            input_tokens=each.usage["input_tokens"] + written + read,
            output_tokens=each.usage["output_tokens"] if each.is_whole else 1,
            cache_write_tokens=written,
            cache_write_1h_tokens=each.usage["cache_creation"]["ephemeral_1h_input_tokens"],
            cache_read_tokens=read,
        )
        now = datetime.now(timezone.utc)
        cost += genai_prices.calc_price(
            usage, each.model, provider_id="anthropic", genai_request_timestamp=now
        ).total_price
    return cost
