"""The typed views know all that the installed agent writes, and read it as the agent means it.

A new release of the agent that writes a kind of entry or block without a view fails here.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from claude_agent_sdk import get_session_messages_from_store, get_subagent_messages_from_store
from support.agent import (
    AGAIN,
    COMMAND_OUTPUT,
    FIRST_PROMPT,
    Turn,
    Workplace,
    exactly,
    workplace,
)

from beanie_session_store import SessionSummary
from beanie_session_store.app.transcripts.transcript import Transcript
from beanie_session_store.demo.agent import Entry
from beanie_session_store.models.views.messages import AssistantEntry, AttachmentEntry
from beanie_session_store.models.views.parsing import parse_entry, unmodelled
from beanie_session_store.models.views.records import CostStateEntry
from beanie_session_store.models.views.system import CompactBoundaryEntry

pytestmark = pytest.mark.agent

HOOKS = {
    "hooks": {
        event: [{"hooks": [{"type": "command", "command": command}]}]
        for event, command in (
            ("SessionStart", "echo begun"),
            ("PostToolUse", "echo odd >&2; exit 2"),
            ("Stop", "exit 1"),
        )
    }
}


@dataclass(frozen=True)
class Story:
    """A session with tools, hooks and a subagent; resumed to be compacted, and then forked."""

    place: Workplace
    begun: Turn = field(repr=False)
    compacted: Turn = field(repr=False)
    forked: Turn = field(repr=False)

    @property
    def turns(self) -> tuple[Turn, ...]:
        return (self.begun, self.compacted, self.forked)

    def transcript(self, turn: Turn) -> Transcript:
        others = {path: entries for path, entries in turn.stored.items() if path}
        return Transcript(turn.stored[""], others)


@pytest.fixture(scope="module")
def story(mongo_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    async def tell(place: Workplace) -> Story:
        begun = await place.turn(FIRST_PROMPT, settings=json.dumps(HOOKS))
        resume = begun.run.session_id
        return Story(
            place,
            begun,
            await place.turn("/compact PLAIN", resume=resume),
            await place.turn(AGAIN, resume=resume, fork_session=True),
        )

    with workplace(tmp_path_factory.mktemp("typed"), mongo_url) as place:
        yield asyncio.run(tell(place))


@pytest.fixture(scope="module")
def entries(story: Story) -> list[Entry]:
    """All entries, those that stay on the agent's disk included."""
    found: list[Entry] = []
    for turn in story.turns:
        for transcripts in (turn.stored, turn.run.transcripts()):
            found.extend(entry for each in transcripts.values() for entry in each)
    return found


def test_every_kind_that_the_agent_writes_has_a_view(entries: list[Entry]) -> None:
    assert unmodelled(entries) == {}
    kinds = {entry["type"] for entry in entries}
    assert kinds > {"user", "assistant", "attachment", "system", "cost-state", "agent_metadata"}
    assert kinds > {"api-request", "api-request-shape", "api-request-blob", "last-prompt"}


def test_no_field_is_of_another_type_than_the_views_expect(entries: list[Entry]) -> None:
    views = [parse_entry(entry) for entry in entries]
    assert {(view.type, name) for view in views for name in view.odd_fields} == set()


def test_every_entry_comes_back_as_it_was_written(entries: list[Entry]) -> None:
    before = exactly(entries)
    assert exactly(parse_entry(entry).model_dump() for entry in entries) == before


def test_every_attachment_says_what_it_is(entries: list[Entry]) -> None:
    # They are of one view, whichever type they have: every release adds some.
    views = [view for view in map(parse_entry, entries) if isinstance(view, AttachmentEntry)]
    assert len({view.attachment.type for view in views if view.attachment}) > 10
    for view in views:
        assert view.attachment is not None
        assert view.attachment.type
        assert {"type": view.attachment.type, **(view.attachment.model_extra or {})} == view.raw[
            "attachment"
        ]


async def test_active_conversation_is_the_one_the_sdk_shows(story: Story) -> None:
    async with story.place.store() as store:
        for turn in (story.compacted, story.forked):
            transcript = story.transcript(turn)
            shown = await get_session_messages_from_store(
                store, turn.run.session_id, story.place.project
            )
            visible = [
                entry
                for entry in transcript.active
                if entry.type in ("user", "assistant") and not entry.is_meta
            ]
            assert [entry.uuid for entry in visible] == [message.uuid for message in shown]
            assert len(visible) > 2
        (subagent,) = story.transcript(story.begun).subagents
        shown = await get_subagent_messages_from_store(
            store, story.begun.run.session_id, subagent.agent_id, story.place.project
        )
        visible = [entry for entry in subagent.active if entry.type in ("user", "assistant")]
        assert [entry.uuid for entry in visible] == [message.uuid for message in shown]


def test_turns_are_what_was_asked(story: Story) -> None:
    first, compact = (t.text for t in story.transcript(story.compacted).turns if t.prompt)
    assert first == FIRST_PROMPT
    assert compact.startswith("/compact")
    last = story.transcript(story.forked).turns[-1]
    assert last.text == AGAIN
    assert last.answer
    assert last.duration is not None


def test_calls_have_their_results_and_subagents_their_calls(story: Story) -> None:
    transcript = story.transcript(story.begun)
    bash, agent = transcript.turns[-1].tool_calls
    assert (bash.name, agent.name) == ("Bash", "Agent")
    assert bash.output.strip() == COMMAND_OUTPUT
    assert bash.structured_output["stdout"] == COMMAND_OUTPUT
    assert not bash.is_error
    assert bash.duration is not None
    assert agent.subagent is not None
    assert agent.subagent.call is agent
    assert agent.subagent.agent_id in json.dumps(agent.structured_output)
    assert agent.subagent.answer == "Done. The last tool said: deep 42"
    (inner,) = agent.subagent.tool_calls
    assert inner.output.strip() == "deep 42"


def test_a_compaction_cuts_the_conversation(story: Story) -> None:
    transcript = story.transcript(story.compacted)
    before, active = transcript.segments
    assert isinstance(active[0], CompactBoundaryEntry)
    assert active[0].compact_metadata is not None
    assert active[0].compact_metadata.trigger == "manual"
    assert active[0].logical_parent_uuid == before[-1].uuid
    assert FIRST_PROMPT in [turn.text for turn in transcript.turns]


def test_tokens_are_those_of_the_agents_own_account(story: Story) -> None:
    transcript = story.transcript(story.begun)
    account = _last_account(transcript)
    assert transcript.total_usage.keys() == account.model_usage.keys()
    for model, tokens in transcript.total_usage.items():
        theirs = account.model_usage[model]
        assert (tokens.input, tokens.output) == (theirs.input_tokens, theirs.output_tokens)
        assert tokens.cache_read == theirs.cache_read_input_tokens
        assert tokens.cache_creation == theirs.cache_creation_input_tokens
    assert transcript.cost_usd == account.total_cost_usd


def test_the_agents_account_goes_on_over_resumes_and_forks(story: Story) -> None:
    accounts = [_last_account(story.transcript(turn)) for turn in story.turns]
    assert len({account.start_time for account in accounts}) == 1
    costs = [story.transcript(turn).cost_usd or 0 for turn in story.turns]
    assert 0 < costs[0] < costs[1] < costs[2]
    assert costs == [account.total_cost_usd for account in accounts]


async def test_sessions_and_their_forks_cost_together_what_the_agent_says(story: Story) -> None:
    async with story.place.store() as store:
        summaries = [
            await store.summary(story.place.key(turn.run.session_id)) for turn in story.turns[1:]
        ]
        (usage,) = await store.usage(by=())
    totals = [summary.totals for summary in summaries]
    source, fork = totals
    account = _last_account(story.transcript(story.forked)).total_cost_usd
    assert fork.forked_from == story.begun.run.session_id
    assert fork.carried_usd == source.cost_usd
    assert 0 < fork.cost_usd < source.cost_usd
    assert usage.cost_usd == pytest.approx(account)
    assert (usage.without_cost, usage.with_source_cost) == (0, 0)


def test_a_fork_has_spent_only_what_it_did_itself(story: Story) -> None:
    forked = story.transcript(story.forked)
    (own,) = forked.usage.values()
    answers = [entry for entry in forked.messages if isinstance(entry, AssistantEntry)]
    assert answers[-1].message is not None
    assert answers[-1].message.usage is not None
    assert own.output == answers[-1].message.usage.output_tokens
    if not any(entry.request_session_id for entry in answers):
        pytest.skip("this agent writes what it copies without its tokens, but does not mark it")
    assert 0 < own.responses <= len(story.forked.requests)
    assert forked.copied_usage.keys() <= story.transcript(story.compacted).usage.keys()
    assert any(tokens.responses for tokens in forked.copied_usage.values())


async def test_totals_of_the_summary_are_those_of_the_transcript(story: Story) -> None:
    async with story.place.store() as store:
        for turn in (story.compacted, story.forked):
            key = story.place.key(turn.run.session_id)
            summary = await SessionSummary.find_one({"session_id": turn.run.session_id})
            assert summary is not None
            assert summary.totals is not None
            assert (await store.verify(key)).is_sound
            transcript = story.transcript(turn)
            (tokens,) = transcript.total_usage.values()
            (row,) = summary.totals.by_model.values()
            assert (row.responses, row.input, row.output, row.cache_creation, row.cache_read) == (
                tokens.responses,
                tokens.input,
                tokens.output,
                tokens.cache_creation,
                tokens.cache_read,
            )
            own = [call.name for call in transcript.all_tool_calls if call.result is not None]
            assert summary.totals.tool_calls == dict(Counter(own))
            read = await store.transcript(key)
            assert read is not None
            assert summary.totals.cost_usd == pytest.approx(read.cost_usd)
            assert summary.totals.cost_usd == pytest.approx(row.cost_usd)
            assert summary.cwd == story.place.project
            assert summary.totals.entries == sum(map(len, turn.stored.values()))
        first = await SessionSummary.find_one({"session_id": story.begun.run.session_id})
        assert first is not None
        assert first.first_prompt == FIRST_PROMPT


def _last_account(transcript: Transcript) -> CostStateEntry:
    found: list[Any] = [e for e in transcript.entries if isinstance(e, CostStateEntry)]
    return found[-1]
