"""Long transcripts: what is asked of them takes work in proportion to their length.

The work is counted in attributes of entries and calls that are read, not in seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from beanie_session_store.app.transcripts.conversation import ToolCall
from beanie_session_store.app.transcripts.transcript import Transcript
from beanie_session_store.models.views.messages import ConversationEntry

Entry = dict[str, Any]
Session = tuple[list[Entry], dict[str, list[Entry]]]


def entry(kind: str, uuid: str, parent: str | None, *content: Entry, **fields: Any) -> Entry:
    message = {"role": kind, "content": list(content) or f"text {uuid}"}
    if kind == "assistant":
        message |= {"id": fields.pop("response", f"msg_{uuid}"), "model": "m", "usage": {}}
    return {"type": kind, "uuid": uuid, "parentUuid": parent, "message": message, **fields}


def call(number: str) -> Entry:
    return {"type": "tool_use", "id": number, "name": "Bash", "input": {}}


def returned(number: str) -> Entry:
    return {"type": "tool_result", "tool_use_id": number, "content": "ok"}


def turns(
    count: int, *, call_id: Callable[[int], str] = str, response: str | None = None
) -> list[Entry]:
    found: list[Entry] = []
    parent = None
    for n in range(count):
        named = {} if response is None else {"response": response}
        found += [
            entry("user", f"p{n}", parent),
            entry("assistant", f"c{n}", f"p{n}", call(call_id(n)), **named),
            entry("user", f"r{n}", f"c{n}", returned(call_id(n))),
            entry("assistant", f"a{n}", f"r{n}", **named),
        ]
        parent = f"a{n}"
    return found


def branches(count: int) -> Session:
    return turns(count) + [
        each
        for n in range(count)
        for each in (entry("user", f"x{n}", f"a{n}"), entry("assistant", f"y{n}", f"x{n}"))
    ] + [entry("user", "last", f"a{count - 1}")], {}


def compactions(count: int) -> Session:
    found = turns(count)
    for n in range(1, count):
        boundary = {"type": "system", "subtype": "compact_boundary", "uuid": f"b{n}"}
        found[5 * n - 1 : 5 * n - 1] = [
            boundary | {"parentUuid": None, "logicalParentUuid": f"a{n - 1}"}
        ]
        found[5 * n]["parentUuid"] = f"b{n}"
    return found, {}


def gaps(count: int) -> Session:
    return [each for each in turns(count) if not each["uuid"].startswith("r")], {}


def leaves(count: int) -> Session:
    return [entry("user", "p", None), *(entry("assistant", f"l{n}", "p") for n in range(count))], {}


def tips_behind_one_way(count: int) -> Session:
    way = [
        {"type": "attachment", "uuid": f"w{n}", "parentUuid": f"w{n - 1}" if n else "p"}
        for n in range(count)
    ]
    tips = [
        {"type": "attachment", "uuid": f"t{n}", "parentUuid": f"w{count - 1}"} for n in range(count)
    ]
    return [entry("user", "p", None), *way, *tips], {}


def circles(count: int) -> Session:
    found = turns(count)
    for n in range(count):
        found[4 * n]["parentUuid"] = f"a{n}"
    return found, {}


def subagents(count: int, call_id: Callable[[int], str]) -> Session:
    return turns(count, call_id=call_id), {
        f"subagents/agent-{n}": [
            {"type": "agent_metadata", "toolUseId": call_id(n)},
            entry("user", f"s{n}", None, isSidechain=True),
        ]
        for n in range(count)
    }


SHAPES: dict[str, Callable[[int], Session]] = {
    "turns": lambda count: (turns(count), {}),
    "calls of one id": lambda count: (turns(count, call_id=lambda _: "call_1"), {}),
    "responses of one id": lambda count: (turns(count, response="ocgo"), {}),
    "branches": branches,
    "compactions": compactions,
    "gaps": gaps,
    "leaves under one parent": leaves,
    "tips behind one way": tips_behind_one_way,
    "circles": circles,
    "subagents": lambda count: subagents(count, str),
    "subagents of one call's id": lambda count: subagents(count, lambda _: "call_1"),
}


@contextmanager
def counting(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    reads = [0]

    def counted(self: Any, name: str) -> Any:
        reads[0] += 1
        return object.__getattribute__(self, name)

    with monkeypatch.context() as patch:
        patch.setattr(ConversationEntry, "__getattribute__", counted)
        patch.setattr(ToolCall, "__getattribute__", counted)
        yield reads


def work(session: Session, monkeypatch: pytest.MonkeyPatch) -> int:
    with counting(monkeypatch) as reads:
        transcript = Transcript(*session)
        assert transcript.turns
        assert transcript.branches is not None
        assert transcript.all_tool_calls is not None
        assert transcript.origins is not None
        for turn in transcript.turns:
            assert turn.answer is not None
    return reads[0]


@pytest.mark.parametrize("shape", SHAPES)
def test_the_work_grows_with_the_length(shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    small, large = (work(SHAPES[shape](count), monkeypatch) for count in (50, 400))
    assert large < 9 * small


@pytest.mark.parametrize("shape", SHAPES)
def test_nothing_of_a_long_transcript_is_lost(shape: str) -> None:
    main, others = SHAPES[shape](60)
    transcript = Transcript(main, others)
    found = [e.uuid for chain in (*transcript.segments, *transcript.branches) for e in chain]
    messages = {each["uuid"] for each in main if each["type"] in ("user", "assistant")}
    assert messages <= set(found)
    assert len(found) == len(set(found))
    assert len(transcript.origins) == len(others)
