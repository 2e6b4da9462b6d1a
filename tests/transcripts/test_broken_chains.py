"""A transcript whose links are damaged: no turn that is there is lost with a line that is not."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from beanie_session_store.app.transcripts.transcript import Transcript

Entry = dict[str, Any]


def conversation(turns: int, *, compacted_after: tuple[int, ...] = ()) -> list[Entry]:
    """Turns of a prompt, a call, its result and an answer, one behind the other."""
    entries: list[Entry] = []

    def add(kind: str, uuid: str, content: Any, **fields: Any) -> None:
        parent = entries[-1]["uuid"] if entries else None
        message = {"role": kind, "content": content}
        if kind == "assistant":
            message |= {"id": f"msg_{uuid}", "model": "m", "usage": {"input_tokens": 1}}
        entries.append(
            {"type": kind, "uuid": uuid, "parentUuid": parent, "message": message, **fields}
        )

    for n in range(turns):
        add("user", f"p{n}", f"prompt {n}")
        add("assistant", f"c{n}", [{"type": "tool_use", "id": f"t{n}", "name": "Bash"}])
        add("user", f"r{n}", [{"type": "tool_result", "tool_use_id": f"t{n}", "content": "ok"}])
        add("assistant", f"a{n}", [{"type": "text", "text": f"answer {n}"}])
        if n in compacted_after:
            boundary = {"type": "system", "subtype": "compact_boundary", "uuid": f"b{n}"}
            entries.append(boundary | {"parentUuid": None, "logicalParentUuid": f"a{n}"})
            add("user", f"s{n}", "The story so far", isCompactSummary=True)
    return entries


def asked(transcript: Transcript) -> list[str]:
    return [turn.text for turn in transcript.turns if turn.prompt is not None]


def answers(transcript: Transcript) -> list[str]:
    return [turn.answer for turn in transcript.turns if turn.prompt is not None]


@pytest.mark.parametrize("lost", ["p1", "c1", "r1", "a1", "b1", "s1", "p2"])
def test_the_turns_before_a_lost_line_are_there(lost: str) -> None:
    entries = conversation(4, compacted_after=(1,))
    transcript = Transcript([entry for entry in entries if entry["uuid"] != lost])
    left = [f"prompt {n}" for n in range(4) if lost != f"p{n}"]
    assert asked(transcript) == left
    assert transcript.branches == []
    whole = Transcript(entries)
    assert sum(map(len, whole.segments)) == sum(map(len, transcript.segments)) + 1


def test_what_a_resumed_agent_goes_on_from_begins_behind_the_gap() -> None:
    entries = [entry for entry in conversation(3) if entry["uuid"] != "r1"]
    transcript = Transcript(entries)
    assert [entry.uuid for entry in transcript.active] == ["a1", "p2", "c2", "r2", "a2"]
    assert [entry.uuid for entry in transcript.segments[0]] == ["p0", "c0", "r0", "a0", "p1", "c1"]
    # The rest of the turn belongs to its prompt all the same.
    assert answers(transcript) == ["answer 0", "answer 1", "answer 2"]


@given(
    compacted=st.sets(st.integers(0, 5), max_size=3),
    lost=st.sets(st.integers(0, 40), max_size=12),
)
def test_whatever_lines_are_lost_the_other_turns_are_there_in_order(
    compacted: set[int], lost: set[int]
) -> None:
    entries = conversation(6, compacted_after=tuple(compacted))
    left = [entry for place, entry in enumerate(entries) if place not in lost]
    transcript = Transcript(left)
    prompts = [entry["message"]["content"] for entry in left if entry["uuid"].startswith("p")]
    assert asked(transcript) == prompts
    found = {entry.uuid for segment in transcript.segments for entry in segment}
    # A boundary behind the last message begins no segment yet.
    assert found >= {entry["uuid"] for entry in left if entry["type"] != "system"}


@example({3: 0, 4: 0, 0: 1, 2: 3})
@given(st.dictionaries(st.integers(0, 23), st.integers(-1, 24), max_size=6))
def test_wherever_links_lead_every_turn_is_in_a_segment_or_a_branch(wrong: dict[int, int]) -> None:
    entries = conversation(6)
    for place, other in wrong.items():
        parent = entries[other]["uuid"] if 0 <= other < 24 else "elsewhere"
        entries[place]["parentUuid"] = None if other < 0 else parent
    transcript = Transcript(entries)
    found = [e.uuid for chain in (*transcript.segments, *transcript.branches) for e in chain]
    assert sorted(found) == sorted(entry["uuid"] for entry in entries)


@pytest.mark.parametrize(
    ("place", "parent"),
    [
        pytest.param("p2", "p2", id="itself"),
        pytest.param("p2", "a2", id="a circle"),
        pytest.param("p2", "a3", id="a later one"),
        pytest.param("p2", "another session's", id="elsewhere"),
        pytest.param("p0", "another session's", id="the first one elsewhere"),
        pytest.param("p0", "p0", id="the first one itself"),
        pytest.param("p0", "a3", id="one circle of all"),
    ],
)
def test_a_wrong_link_costs_no_turn(place: str, parent: str) -> None:
    entries = conversation(4)
    next(e for e in entries if e["uuid"] == place)["parentUuid"] = parent
    assert asked(Transcript(entries)) == [f"prompt {n}" for n in range(4)]


def test_a_boundary_that_names_nothing_costs_no_turn() -> None:
    for named in (None, "lost", 7):
        entries = conversation(4, compacted_after=(1, 2))
        for entry in entries:
            if entry["type"] == "system":
                entry["logicalParentUuid"] = named
        transcript = Transcript(entries)
        assert asked(transcript) == [f"prompt {n}" for n in range(4)]
        assert len(transcript.segments) == 3


def test_a_branch_that_was_left_stays_one_where_a_line_is_lost_before_it() -> None:
    entries = conversation(4)
    aside = [
        {"type": "user", "uuid": "x", "parentUuid": "a1", "message": {"content": "left"}},
        {"type": "assistant", "uuid": "y", "parentUuid": "x", "message": {"content": "so"}},
    ]
    entries[8:8] = aside
    transcript = Transcript([entry for entry in entries if entry["uuid"] != "c0"])
    assert asked(transcript) == [f"prompt {n}" for n in range(4)]
    assert [[entry.uuid for entry in branch] for branch in transcript.branches] == [["x", "y"]]


def test_a_sidechain_is_no_part_of_the_conversation_beside_a_gap() -> None:
    entries = conversation(3)
    side = {"isSidechain": True, "type": "user", "message": {"content": "look"}}
    entries[4:4] = [side | {"uuid": "side", "parentUuid": None}]
    entries[6:6] = [side | {"uuid": "orphan", "parentUuid": "lost"}]
    transcript = Transcript([entry for entry in entries if entry["uuid"] != "p1"])
    assert asked(transcript) == ["prompt 0", "prompt 2"]
    chain = [entry.uuid for segment in transcript.segments for entry in segment]
    assert "side" not in chain
    assert "orphan" not in chain


def test_a_subagents_turns_go_on_over_a_gap_too() -> None:
    entries = [entry | {"isSidechain": True} for entry in conversation(3, compacted_after=(0,))]
    left = [entry for entry in entries if entry["uuid"] not in ("a1", "b0")]
    (subagent,) = Transcript([], {"subagents/agent-a": left}).subagents
    assert asked(subagent) == ["prompt 0", "prompt 1", "prompt 2"]
    assert [entry.uuid for entry in subagent.active] == ["p2", "c2", "r2", "a2"]
