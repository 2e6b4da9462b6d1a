"""A transcript of whatever JSON somebody stored answers every question, without an error."""

from __future__ import annotations

import copy
import json
from functools import cached_property
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from beanie_session_store.app.transcripts.conversation import Conversation, ToolCall, Turn
from beanie_session_store.app.transcripts.transcript import Transcript
from beanie_session_store.models.views.blocks import KNOWN_BLOCKS
from beanie_session_store.models.views.parsing import KNOWN_KINDS

Entry = dict[str, Any]

ODD: Any = (
    st.sampled_from([None, True, 0, -1, 2**70, 1e400, "", "x", "\ud83d", [], [[]], {}, {"a": [1]}])
    | st.sampled_from(
        [{"type": "text"}, [{"type": "tool_use", "id": "a"}], [None, 7, {"type": []}]]
    )
    | st.floats()
    | st.text(max_size=3)
)
# So few that entries meet: uuids that come twice, circles, calls that answer themselves.
NAMES = ["a", "b", "c", "d", "e"]
TIMES = [
    *(f"2026-01-01T00:00:0{second}Z" for second in range(5)),
    "2026-01-01T00:00:00",
    "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59-14:00",
    10**30,
]
CALLS = sorted(kind for kind in KNOWN_BLOCKS if kind.endswith("tool_use"))
RESULTS = sorted(kind for kind in KNOWN_BLOCKS if kind.endswith("tool_result"))


@st.composite
def entries_like_real_ones(draw: st.DrawFn) -> Entry:
    """An entry with names of few, of which some parts are replaced by something odd."""
    name = st.sampled_from(NAMES)
    entry: Entry = {
        "uuid": draw(name),
        "parentUuid": draw(name | st.none()),
        "timestamp": draw(st.sampled_from(TIMES)),
        "sessionId": "s",
    }
    kind = draw(st.sampled_from(["user", "assistant", "system", "other"]))
    if kind == "user":
        block = {"type": draw(st.sampled_from(RESULTS)), "tool_use_id": draw(name), "content": "x"}
        content = draw(st.sampled_from(["text", [block], [block, {"type": "text", "text": "x"}]]))
        entry |= {
            "message": {"role": "user", "content": content},
            "toolUseResult": {"agentId": draw(name)},
            "sourceToolAssistantUUID": draw(name),
        }
    elif kind == "assistant":
        call = {"type": draw(st.sampled_from(CALLS)), "id": draw(name), "name": "n", "input": {}}
        usage = {"input_tokens": draw(st.integers()), "output_tokens": 1}
        message = {"id": draw(name), "model": "m", "content": [call, call], "usage": usage}
        entry |= {"message": message, "requestSessionId": draw(st.sampled_from(["s", "t"]))}
    elif kind == "system":
        entry |= {"subtype": "compact_boundary", "logicalParentUuid": draw(name)}
    else:
        kind = draw(st.sampled_from(sorted(KNOWN_KINDS)))
        entry |= {"toolUseId": draw(name), "totalCostUSD": 1.5, "startTime": 1}
    entry["type"] = kind
    for _ in range(draw(st.integers(0, 3))):
        _spoil(draw, entry)
    return entry


FLAGS = ["isSidechain", "isMeta", "isCompactSummary", "teamName", "forkedFrom", "subtype"]
TITLES = ["customTitle", "aiTitle", "summary", "tag", "modelUsage", "attachment", "agentId"]


def _spoil(draw: st.DrawFn, entry: Entry) -> None:
    """Put something odd in some place of the entry, or a flag on it."""
    if draw(st.booleans()):
        entry[draw(st.sampled_from(FLAGS + TITLES))] = copy.deepcopy(draw(st.just(True) | ODD))
        return
    place: Any = entry
    while True:
        key = draw(st.sampled_from(range(len(place)) if isinstance(place, list) else sorted(place)))
        inner = place[key]
        if not inner or not isinstance(inner, dict | list) or draw(st.integers(0, 3)) == 0:
            place[key] = copy.deepcopy(draw(ODD))
            return
        place = inner


TRANSCRIPTS = st.lists(entries_like_real_ones(), max_size=8)
SUBPATHS = st.sampled_from([*(f"subagents/agent-{name}" for name in NAMES), "", "/", "odd"])


@given(TRANSCRIPTS, st.dictionaries(SUBPATHS, TRANSCRIPTS, max_size=3))
@example([{"type": "user", "uuid": "a", "parentUuid": "a"}], {})
@example([{"type": "cost-state", "totalCostUSD": 10**400, "startTime": float("nan")}], {})
def test_no_json_makes_a_transcript_fail(
    entries: list[Entry], subagents: dict[str, list[Entry]]
) -> None:
    before = json.dumps([entries, subagents])
    transcript = Transcript(entries, subagents)
    read_all(transcript)
    for conversation in (transcript, *transcript.subagents):
        for part in (*conversation.tool_calls, *conversation.turns):
            read_all(part)
        # Every entry of the conversation is in one place of it.
        active = [id(entry) for chain in conversation.segments for entry in chain]
        aside = [id(entry) for chain in conversation.branches for entry in chain]
        assert len({*active, *aside}) == len(active) + len(aside)
        assert {*active, *aside} <= {id(entry) for entry in conversation.messages}
        in_turns = [id(entry) for turn in conversation.turns for entry in turn.entries]
        assert in_turns == active
    walk(transcript, set())
    assert json.dumps([entries, subagents]) == before


def read_all(part: Conversation | Turn | ToolCall) -> None:
    """Every property, none of which may fail."""
    names = [
        name
        for kind in type(part).__mro__
        for name, value in vars(kind).items()
        if isinstance(value, property | cached_property)
    ]
    assert names
    for name in names:
        getattr(part, name)
    repr(part)


def walk(conversation: Conversation, above: set[int]) -> None:
    """Down to the last subagent, which would not end in a circle."""
    assert id(conversation) not in above
    for call in conversation.tool_calls:
        for subagent in call.subagents:
            assert subagent.call is call
            walk(subagent, above | {id(conversation)})
