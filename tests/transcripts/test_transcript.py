"""A session as a conversation: what was said, what tools did, and what it took."""

from __future__ import annotations

from typing import Any

import pytest
from claude_agent_sdk import (
    InMemorySessionStore,
    get_session_messages_from_store,
    get_subagent_messages_from_store,
    project_key_for_directory,
)
from hypothesis import given
from hypothesis import strategies as st

from beanie_session_store.app.transcripts.tokens import Tokens
from beanie_session_store.app.transcripts.transcript import Transcript
from beanie_session_store.models.views import sequence
from beanie_session_store.models.views.base import EntryView
from beanie_session_store.models.views.parsing import parse_entry

Entry = dict[str, Any]
MODEL = "claude-opus-5-5"
SESSION = "3f9f3a5e-0c1f-4b5e-9a2b-0d5a1f1f1f1f"


def at(seconds: float) -> str:
    return f"2026-01-01T00:{int(seconds) // 60:02d}:{seconds % 60:06.3f}Z"


def said(uuid: str, parent: str | None, text: str = "", **fields: Any) -> Entry:
    """What a person typed."""
    message = {"role": "user", "content": text or f"prompt {uuid}"}
    return _entry("user", uuid, parent, message, fields)


def replied(
    uuid: str,
    parent: str | None,
    *content: Entry,
    response: str = "",
    usage: Any = None,
    **fields: Any,
) -> Entry:
    """An entry of a response."""
    message = {
        "id": response or f"msg_{uuid}",
        "role": "assistant",
        "model": MODEL,
        "content": list(content) or [{"type": "text", "text": f"reply {uuid}"}],
        "usage": usage or {"input_tokens": 1, "output_tokens": 10},
    }
    return _entry("assistant", uuid, parent, message, fields)


def returned(uuid: str, parent: str | None, call: str, text: str = "ok", **fields: Any) -> Entry:
    """What a tool returned."""
    block = {"type": "tool_result", "tool_use_id": call, "content": text}
    block |= {"is_error": True} if fields.pop("is_error", False) else {}
    return _entry("user", uuid, parent, {"role": "user", "content": [block]}, fields)


def _entry(kind: str, uuid: str, parent: str | None, message: Entry, fields: Entry) -> Entry:
    return {
        "type": kind,
        "uuid": uuid,
        "parentUuid": parent,
        "sessionId": SESSION,
        "isSidechain": False,
        "message": message,
        **fields,
    }


def call(call_id: str, name: str = "Bash", **arguments: Any) -> Entry:
    return {"type": "tool_use", "id": call_id, "name": name, "input": arguments}


def attached(uuid: str, parent: str) -> Entry:
    return {
        "type": "attachment",
        "uuid": uuid,
        "parentUuid": parent,
        "attachment": {"type": "date"},
    }


def boundary(uuid: str, before: str) -> Entry:
    return {
        "type": "system",
        "subtype": "compact_boundary",
        "uuid": uuid,
        "parentUuid": None,
        "logicalParentUuid": before,
    }


def uuids(chain: Any) -> list[str]:
    return [entry.uuid for entry in chain]


# The active conversation


def test_active_conversation_follows_the_links_and_not_the_order_of_writing() -> None:
    entries = [replied("b", "a"), said("a", None), attached("c", "b"), said("d", "c")]
    assert uuids(Transcript(entries).active) == ["a", "b", "c", "d"]


def test_a_branch_left_aside_is_not_active_and_not_lost() -> None:
    entries = [
        said("a", None),
        replied("b", "a"),
        said("old", "b"),
        replied("older", "old"),
        said("new", "b"),
        replied("newer", "new"),
    ]
    transcript = Transcript(entries)
    assert uuids(transcript.active) == ["a", "b", "new", "newer"]
    assert [uuids(branch) for branch in transcript.branches] == [["old", "older"]]
    assert [turn.text for turn in transcript.turns] == ["prompt a", "prompt new"]
    assert transcript.usage[MODEL].responses == 3


def test_a_compaction_begins_a_new_segment_and_keeps_the_one_before() -> None:
    entries = [
        said("a", None),
        replied("b", "a"),
        boundary("c", "b"),
        said("d", "c", "The story so far", isCompactSummary=True),
        said("e", "d"),
        replied("f", "e"),
    ]
    transcript = Transcript(entries)
    assert uuids(transcript.active) == ["c", "d", "e", "f"]
    assert [uuids(segment) for segment in transcript.segments] == [
        ["a", "b"],
        ["c", "d", "e", "f"],
    ]
    assert transcript.branches == []
    assert [turn.text for turn in transcript.turns] == ["prompt a", "prompt e"]


def test_compactions_that_name_each_other_end() -> None:
    entries = [boundary("a", "d"), said("b", "a"), boundary("c", "b"), said("d", "c")]
    segments = Transcript(entries).segments
    assert [uuids(segment) for segment in segments] == [["a", "b"], ["c", "d"]]


def test_an_entry_is_in_one_segment_wherever_its_links_lead() -> None:
    entries = [boundary("c", "b"), replied("b", "c"), said("d", "c")]
    segments = Transcript(entries).segments
    assert [uuids(segment) for segment in segments] == [["b"], ["c", "d"]]


def test_links_in_a_circle_end() -> None:
    entries = [said("a", "b"), said("b", "a"), said("c", "b")]
    assert uuids(Transcript(entries).active) == ["a", "b", "c"]


def test_sidechains_and_meta_entries_do_not_end_the_conversation() -> None:
    entries = [
        said("a", None),
        replied("b", "a"),
        said("side", None, isSidechain=True),
        replied("sider", "side", isSidechain=True),
        said("meta", "a", isMeta=True),
        {"type": "last-prompt", "leafUuid": "sider"},
    ]
    transcript = Transcript(entries)
    assert uuids(transcript.active) == ["a", "b"]
    assert uuids(transcript.sidechains) == ["side", "sider"]


def test_an_empty_session_has_nothing() -> None:
    transcript = Transcript([])
    assert (transcript.active, transcript.turns, transcript.tool_calls) == ([], [], [])
    assert (transcript.total_usage, transcript.cost_usd, transcript.title) == ({}, None, None)


def test_views_of_entries_that_nobody_looks_at_are_not_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[Any] = []

    def recorded(entry: Any) -> EntryView:
        made.append(entry["type"])
        return parse_entry(entry)

    monkeypatch.setattr(sequence, "parse_entry", recorded)
    entries: list[Entry] = [said("a", None), replied("b", "a"), {"type": "tag", "tag": "t"}]
    transcript = Transcript(entries, {"subagents/agent-x": [said("x", None)]})
    assert made == []
    assert (transcript.tag, made) == ("t", ["tag"])
    assert uuids(transcript.active) == ["a", "b"]
    assert made == ["tag", "user", "assistant"]
    assert transcript.entries[-1] is transcript.entries[2]
    assert [entry.type for entry in transcript.entries] == ["user", "assistant", "tag"]
    assert transcript.entries[1:] == [parse_entry(entries[1]), parse_entry(entries[2])]
    assert len(made) == len(transcript.entries)


# Parallel calls

PARALLEL = [
    said("a", None, timestamp=at(0)),
    replied("b1", "a", {"type": "text", "text": "both"}, response="m", timestamp=at(1)),
    replied("b2", "b1", call("t1"), response="m", timestamp=at(2)),
    replied("b3", "b2", call("t2"), response="m", timestamp=at(3)),
    returned("r2", "b3", "t2", timestamp=at(4)),
    returned("r1", "b2", "t1", timestamp=at(5)),
    replied("c", "r1", timestamp=at(6)),
]


def test_calls_in_parallel_are_all_part_of_the_conversation() -> None:
    transcript = Transcript(PARALLEL)
    assert uuids(transcript.active) == ["a", "b1", "b2", "b3", "r2", "r1", "c"]
    assert transcript.branches == []
    assert [(c.id, c.output) for c in transcript.turns[0].tool_calls] == [
        ("t1", "ok"),
        ("t2", "ok"),
    ]


def test_a_call_that_two_responses_claim_draws_no_answer_to_either() -> None:
    entries = [
        said("a", None),
        replied("b", "a", call("t"), response="m"),
        replied("c", "b", call("t"), response="n"),
        said("d", "c"),
        returned("stray", "a", "t"),
        said("e", "d"),
    ]
    assert uuids(Transcript(entries).active) == ["a", "b", "c", "d", "e"]
    entries[1] = replied("b", "a", call("other"), response="m")
    assert uuids(Transcript(entries).active) == ["a", "b", "c", "stray", "d", "e"]


# Tool calls


def test_a_call_is_joined_with_its_result() -> None:
    entries = [
        said("a", None),
        replied("b", "a", call("t", "Edit", path="/x"), timestamp=at(1)),
        returned(
            "c", "b", "t", "no such file", is_error=True, timestamp=at(3.5), toolUseResult="Error"
        ),
        replied("d", "c", call("never", "Bash")),
    ]
    edit, never = Transcript(entries).tool_calls
    assert (edit.name, edit.input, edit.output, edit.is_error) == (
        "Edit",
        {"path": "/x"},
        "no such file",
        True,
    )
    assert edit.duration is not None
    assert edit.duration.total_seconds() == 2.5
    assert edit.structured_output == "Error"
    assert (never.result, never.output, never.is_error, never.duration) == (None, "", False, None)
    assert never.subagent is None


def test_a_tool_at_the_api_is_joined_within_the_response() -> None:
    entries = [
        said("a", None),
        replied(
            "b",
            "a",
            {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},
            {"type": "web_search_tool_result", "tool_use_id": "s", "content": [1]},
        ),
    ]
    (search,) = Transcript(entries).tool_calls
    assert search.result is not None
    assert search.result.content == [1]


def test_a_call_whose_id_is_used_again_keeps_its_own_result() -> None:
    entries = [
        said("a", None),
        replied("b", "a", call("call_1"), timestamp=at(1)),
        returned("c", "b", "call_1", "first", timestamp=at(2)),
        replied("d", "c", call("call_1"), timestamp=at(7)),
        returned("e", "d", "call_1", "second", timestamp=at(9)),
        replied("f", "e", call("call_1")),
    ]
    calls = Transcript(entries).tool_calls
    assert [each.output for each in calls] == ["first", "second", ""]
    assert [each.duration and each.duration.total_seconds() for each in calls] == [1, 2, None]
    # By what they name where they say so, else by the order of writing.
    late = {**entries[2], "uuid": "late", "parentUuid": "e", "sourceToolAssistantUUID": "b"}
    late["message"] = {"role": "user", "content": [{**entries[2]["message"]["content"][0]}]}
    late["message"]["content"][0]["content"] = "late"
    outputs = [each.output for each in Transcript([*entries, late]).tool_calls]
    assert outputs == ["late", "second", ""]
    loose = [{**entry, "parentUuid": None} for entry in entries]
    assert [each.output for each in Transcript(loose).tool_calls] == ["first", "second", ""]


def test_a_response_that_was_written_twice_has_its_call_once_with_its_result() -> None:
    entries = [
        said("a", None),
        replied("b", "a", call("t"), response="m"),
        returned("c", "b", "t", "once"),
        replied("copy", "a", call("t"), response="m"),
        {"type": "assistant", "uuid": "n", "message": {"content": [call("t")]}},
    ]
    assert [each.output for each in Transcript(entries).tool_calls] == ["once", ""]


def test_a_turn_runs_until_the_next_prompt() -> None:
    entries = [
        said("m", None, isMeta=True, timestamp=at(0)),
        said("a", "m", "first", timestamp=at(1)),
        replied("b", "a", call("t"), timestamp=at(2)),
        returned("c", "b", "t", timestamp=at(3)),
        replied("d", "c", timestamp=at(4)),
        said("e", "d", "second", timestamp=at(9)),
    ]
    before, first, second = Transcript(entries).turns
    assert (before.prompt, before.text, uuids(before.entries)) == (None, "", ["m"])
    assert uuids(first.entries) == ["a", "b", "c", "d"]
    assert [c.id for c in first.tool_calls] == ["t"]
    assert first.answer == "reply d"
    assert first.duration is not None
    assert first.duration.total_seconds() == 3
    assert (second.text, second.tool_calls, second.answer) == ("second", (), "")


def made_up(uuid: str, parent: str, text: str, *, is_error: bool = False, **fields: Any) -> Entry:
    """What the agent writes in the model's place."""
    entry = replied(uuid, parent, {"type": "text", "text": text}, **fields)
    entry["message"]["model"] = "<synthetic>"
    return {**entry, "isApiErrorMessage": True} if is_error else entry


def outcome(*entries: Entry) -> tuple[str, float | None]:
    """The answer and the seconds of the only turn, which begins at second 0."""
    (turn,) = Transcript([said("a", None, "do", timestamp=at(0)), *entries]).turns
    assert turn.ended_at is None or turn.ended_at >= (turn.started_at or turn.ended_at)
    return turn.answer, None if turn.duration is None else turn.duration.total_seconds()


FILLER = "No response requested."
ERROR = "API Error: 529 Overloaded"


def test_what_the_agent_writes_when_it_goes_on_later_is_no_answer_and_takes_no_time() -> None:
    answer = replied("b", "a", timestamp=at(3))
    later = said("c", "b", "Continue from where you left off.", isMeta=True, timestamp=at(50))
    filler = made_up("d", "c", FILLER, timestamp=at(51))
    assert outcome(answer, later, filler) == ("reply b", 3)
    error = made_up("e", "d", ERROR, is_error=True, timestamp=at(55))
    assert outcome(answer, later, filler, error) == ("reply b", 3)
    assert outcome(answer, {**error, "parentUuid": "b"}) == ("reply b", 3)
    assert outcome({**later, "parentUuid": "a"}, filler) == ("", 0)
    # The model does go on.
    more = replied("f", "d", timestamp=at(59))
    assert outcome(answer, later, filler, more) == ("reply f", 59)
    hidden = {"type": "attachment", "uuid": "g", "parentUuid": "b", "timestamp": at(58)}
    assert outcome(answer, hidden) == ("reply b", 3)
    told = "<task-notification><summary>passed</summary></task-notification>"
    assert outcome(answer, said("h", "b", told, timestamp=at(40))) == ("reply b", 3)


def test_an_error_that_keeps_the_model_from_its_answer_is_the_answer() -> None:
    error = made_up("e", "a", ERROR, is_error=True, timestamp=at(5))
    assert outcome(error) == (ERROR, 5)
    # Older agents do not mark them.
    assert outcome(made_up("e", "a", ERROR, timestamp=at(5))) == (ERROR, 5)
    looked = replied("b", "a", {"type": "text", "text": "Let me look"}, call("t"), timestamp=at(1))
    result = returned("c", "b", "t", timestamp=at(2))
    assert outcome(looked, result, {**error, "parentUuid": "c"}) == (ERROR, 5)
    again = made_up("f", "e", "API Error: 401", is_error=True, timestamp=at(6))
    assert outcome(error, again) == ("API Error: 401", 6)
    retried = replied("g", "e", timestamp=at(9))
    assert outcome(error, retried) == ("reply g", 9)
    thought = replied("b", "a", {"type": "thinking", "thinking": "hm"}, timestamp=at(1))
    assert outcome(thought, {**error, "parentUuid": "b"}) == (ERROR, 5)


def test_an_interruption_and_the_output_of_a_command_end_a_turn() -> None:
    stopped = said("b", "a", "[Request interrupted by user]", timestamp=at(4))
    assert outcome(stopped) == ("", 4)
    called = replied("b", "a", call("t"), timestamp=at(1))
    refused = said("c", "b", "[Request interrupted by user for tool use]", timestamp=at(7))
    assert outcome(called, refused) == ("", 7)
    printed = said("b", "a", "<local-command-stdout>ok</local-command-stdout>", timestamp=at(2))
    assert outcome(printed) == ("", 2)
    (untimed,) = Transcript([said("a", None), replied("b", "a", timestamp=at(1))]).turns
    assert untimed.duration is None
    assert untimed.ended_at is not None


# Subagents


def test_the_answer_of_a_subagent_is_what_it_said_last() -> None:
    side: Entry = {"isSidechain": True, "agentId": "x"}
    launched = returned("c", "b", "t1", toolUseResult={"agentId": "x", "isAsync": True})
    transcript = Transcript(
        [said("a", None), replied("b", "a", call("t1", "Agent")), launched],
        {
            "subagents/agent-x": [
                said("x1", None, **side),
                replied("x2", "x1", {"type": "text", "text": "Looking"}, call("t"), **side),
                returned("x3", "x2", "t", **side),
                replied("x4", "x3", {"type": "text", "text": "Found it"}, **side),
                made_up("x5", "x4", FILLER, **side),
            ],
            "subagents/agent-y": [said("y1", None, **side)],
        },
    )
    assert [each.answer for each in transcript.subagents] == ["Found it", ""]


def test_subagents_are_nested_under_the_calls_that_started_them() -> None:
    def subagent(prefix: str, metadata: Entry, *content: Entry) -> list[Entry]:
        return [
            {"type": "agent_metadata", "toolUseId": "outdated", **metadata},
            said(f"{prefix}1", None, isSidechain=True, agentId=prefix),
            replied(f"{prefix}2", f"{prefix}1", *content, isSidechain=True, agentId=prefix),
            {"type": "agent_metadata", **metadata, "finished": True},
        ]

    transcript = Transcript(
        [said("a", None), replied("b", "a", call("t1", "Agent"), call("t2", "Bash"))],
        {
            "subagents/agent-x": subagent("x", {"toolUseId": "t1"}, call("t3", "Agent")),
            "subagents/agent-y": subagent("y", {"toolUseId": "t3", "spawnDepth": 2}),
            "subagents/agent-z": [said("z", None, isSidechain=True)],
        },
    )
    outer = transcript.tool_calls[0].subagent
    assert outer is not None
    assert (outer.agent_id, uuids(outer.active)) == ("x", ["x1", "x2"])
    assert [turn.text for turn in outer.turns] == ["prompt x1"]
    inner = outer.tool_calls[0].subagent
    assert inner is not None
    assert inner.agent_id == "y"
    assert inner.call is outer.tool_calls[0]
    assert inner.metadata is not None
    assert (inner.metadata.spawn_depth, inner.metadata.finished) == (2, True)
    assert transcript.tool_calls[1].subagent is None
    assert [subagent.call for subagent in transcript.subagents][2:] == [None]
    assert transcript.usage[MODEL].responses == 1
    assert transcript.total_usage[MODEL].responses == 3


def test_a_subagent_without_metadata_is_found_by_the_result_of_its_call() -> None:
    def launched(uuid: str, parent: str, agent: str) -> Entry:
        return returned(uuid, parent, "call_1", toolUseResult={"agentId": agent})

    main = [
        said("a", None),
        replied("b", "a", call("call_1", "Agent")),
        launched("c", "b", "x"),
        replied("d", "c", call("call_1", "Agent")),
        launched("e", "d", "y"),
        replied("f", "e", call("call_2", "Message")),
        returned("g", "f", "call_2", toolUseResult={"agentId": "x"}),
    ]
    for metadata in ([], [{"type": "agent_metadata", "toolUseId": "call_1"}]):
        parts: dict[str, list[Entry]] = {
            f"subagents/agent-{name}": [*metadata, said(name, None)] for name in "yx"
        }
        transcript = Transcript(main, parts)
        first, second, message = transcript.tool_calls
        assert first.subagent is not None
        assert (first.subagent.agent_id, first.subagent.call) == ("x", first)
        assert second.subagent is not None
        assert second.subagent.agent_id == "y"
        assert message.subagent is None


def test_one_call_may_start_several_subagents() -> None:
    metadata: Entry = {"type": "agent_metadata", "toolUseId": "t"}
    parts = {f"subagents/agent-{name}": [metadata, said(name, None)] for name in "xyz"}
    transcript = Transcript([replied("a", None, call("t", "Crew"))], parts)
    (crew,) = transcript.tool_calls
    assert [each.agent_id for each in crew.subagents] == ["x", "y", "z"]
    assert crew.subagent is crew.subagents[0]


def test_no_subagent_is_started_by_itself_or_by_those_it_started() -> None:
    def subagent(name: str, started_by: str) -> list[Entry]:
        return [
            {"type": "agent_metadata", "toolUseId": started_by},
            replied(name, None, call(f"by_{name}", "Agent")),
        ]

    transcript = Transcript(
        [],
        {
            "subagents/agent-x": subagent("x", "by_x"),
            "subagents/agent-y": subagent("y", "by_z"),
            "subagents/agent-z": subagent("z", "by_y"),
        },
    )
    x, y, z = transcript.subagents
    assert (x.call, z.call) == (None, None)
    assert y.call is z.tool_calls[0]


# What it took


def test_usage_is_counted_once_per_response_and_the_last_word_counts() -> None:
    def spent(output: int) -> Entry:
        return {
            "input_tokens": 7,
            "output_tokens": output,
            "cache_creation_input_tokens": 2,
            "cache_read_input_tokens": 3,
        }

    entries = [
        said("a", None),
        replied("b", "a", response="m", usage=spent(1)),
        replied("c", "b", response="m", usage=spent(50)),
        replied("d", "c", response="n", usage=spent(5)),
    ]
    assert Transcript(entries).usage == {MODEL: Tokens(2, 14, 55, 4, 6)}


def test_a_response_in_several_transcripts_is_counted_once_and_one_without_id_by_itself() -> None:
    shared = replied("b", "a", response="m")
    subagent = [shared, replied("c", "b", response="n")]
    transcript = Transcript([said("a", None), shared], {"subagents/agent-x": subagent})
    assert transcript.subagents[0].usage[MODEL].responses == 2
    assert transcript.total_usage[MODEL].responses == 2
    nameless: Entry = {
        "type": "assistant",
        "message": {"model": MODEL, "usage": {"input_tokens": 1}},
    }
    assert Transcript([nameless, dict(nameless)]).usage[MODEL].responses == 2


def test_a_reply_that_the_agent_made_up_took_nothing() -> None:
    made_up = replied("b", "a", isApiErrorMessage=True)
    made_up["message"]["model"] = "<synthetic>"
    assert Transcript([said("a", None), made_up]).usage == {}


def test_what_a_fork_copied_was_not_spent_by_it() -> None:
    entries = [
        said("a", None),
        replied("b", "a", requestSessionId="the forked one"),
        replied("c", "b", forkedFrom={"sessionId": "another", "messageUuid": "x"}),
        replied("d", "c", requestSessionId=SESSION),
        replied("e", "d"),
    ]
    transcript = Transcript(entries)
    assert transcript.usage[MODEL].responses == 2
    assert transcript.copied_usage[MODEL].responses == 2


@pytest.mark.parametrize(
    ("accounts", "cost"),
    [
        ([], None),
        ([(1, 0.5)], 0.5),
        ([(1, 0.5), (1, 0.75)], 0.75),
        ([(1, 0.5), (1, 0.75), (2, 0.25)], 1.0),
        ([(1, 0)], 0),
    ],
)
def test_cost_goes_on_over_resumes_and_adds_up_over_accounts(
    accounts: list[tuple[int, float]], cost: float | None
) -> None:
    entries = [
        {"type": "cost-state", "startTime": start, "totalCostUSD": total}
        for start, total in accounts
    ]
    assert Transcript(entries).cost_usd == cost


def test_a_persons_title_is_preferred_until_it_is_taken_away() -> None:
    entries: list[Entry] = [{"type": "summary", "summary": "old"}]
    assert Transcript(entries).title == "old"
    entries.append({"type": "ai-title", "aiTitle": "its"})
    assert Transcript(entries).title == "its"
    entries.append({"type": "custom-title", "customTitle": "mine"})
    entries.append({"type": "ai-title", "aiTitle": "its next"})
    assert Transcript(entries).title == "mine"
    entries.append({"type": "custom-title", "customTitle": ""})
    assert Transcript(entries).title == "its next"


def test_a_tag_can_be_taken_away() -> None:
    tagged: Entry = {"type": "tag", "tag": "t"}
    assert Transcript([tagged]).tag == "t"
    assert Transcript([tagged, {"type": "tag", "tag": ""}]).tag is None


# The SDK reads the same conversation from the same entries


@st.composite
def transcripts(draw: st.DrawFn) -> list[Entry]:
    """Entries linked at random, with parallel calls and answers in odd places."""
    names = [f"{n:02d}" for n in range(draw(st.integers(1, 14)))]
    calls = [f"t{n}" for n in range(5)]
    entries: list[Entry] = []
    for place, uuid in enumerate(names):
        earlier = st.sampled_from(names[:place]) if place else st.none()
        parent = draw(earlier | st.sampled_from([None, *names]) if place > 1 else earlier)
        fields: Entry = {"timestamp": at(draw(st.integers(0, 6)))}
        if draw(st.integers(0, 9)) == 0:
            fields[draw(st.sampled_from(["isSidechain", "isMeta", "teamName", "agentId"]))] = "x"
        if "isSidechain" in fields or "isMeta" in fields:
            fields = {name: value == "x" or value for name, value in fields.items()}
        kind = draw(
            st.sampled_from(["said", "replied", "replied", "returned", "returned", "other"])
        )
        if kind == "said":
            entries.append(said(uuid, parent, **fields))
        elif kind == "replied":
            called = draw(st.lists(st.sampled_from(calls), max_size=2, unique=True))
            response = draw(st.sampled_from(["m1", "m2", "m3"]))
            entries.append(replied(uuid, parent, *map(call, called), response=response, **fields))
        elif kind == "returned":
            if place and draw(st.booleans()):
                fields["sourceToolAssistantUUID"] = draw(st.sampled_from(names))
            entries.append(returned(uuid, parent, draw(st.sampled_from(calls)), **fields))
        else:
            entries.append({**attached(uuid, ""), "parentUuid": parent, **fields})
    return draw(st.permutations(entries)) if draw(st.booleans()) else entries


@given(transcripts())
async def test_active_conversation_is_the_one_the_sdk_shows(entries: list[Entry]) -> None:
    store = InMemorySessionStore()
    key: Any = {"project_key": _project_key(), "session_id": SESSION}
    await store.append(key, entries)
    shown = await get_session_messages_from_store(store, SESSION, "/project")
    visible = [
        entry
        for entry in Transcript(entries).active
        if entry.type in ("user", "assistant")
        and not (entry.is_meta or entry.is_sidechain or entry.team_name)
    ]
    assert uuids(visible) == [message.uuid for message in shown]


@given(transcripts())
async def test_a_subagents_conversation_is_the_one_the_sdk_shows(entries: list[Entry]) -> None:
    store = InMemorySessionStore()
    subpath = "subagents/agent-a1"
    key: Any = {"project_key": _project_key(), "session_id": SESSION, "subpath": subpath}
    await store.append(key, entries)
    shown = await get_subagent_messages_from_store(store, SESSION, "a1", "/project")
    (subagent,) = Transcript([], {subpath: entries}).subagents
    visible = [entry for entry in subagent.active if entry.type in ("user", "assistant")]
    assert uuids(visible) == [message.uuid for message in shown]


def _project_key() -> str:
    return project_key_for_directory("/project")
