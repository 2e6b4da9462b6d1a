"""Calls of tools, each with what came back."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from typing import NamedTuple

from ...models.views.blocks import (
    McpToolResultBlock,
    McpToolUseBlock,
    ServerToolResultBlock,
    ServerToolUseBlock,
    ToolResultBlock,
    ToolUseBlock,
)
from ...models.views.messages import AssistantEntry, ConversationEntry, UserEntry

CallBlock = ToolUseBlock | ServerToolUseBlock | McpToolUseBlock
ResultBlock = ToolResultBlock | ServerToolResultBlock | McpToolResultBlock

Asked = tuple[CallBlock, AssistantEntry]
Answered = tuple[ResultBlock, UserEntry | AssistantEntry]


class JoinedCall(NamedTuple):
    """A call of a tool, and what came back if anything did."""

    block: CallBlock
    entry: AssistantEntry
    result: ResultBlock | None
    result_entry: UserEntry | AssistantEntry | None


def joined_calls(messages: Iterable[ConversationEntry]) -> list[JoinedCall]:
    """All calls of a transcript in the order in which they were made, with their results."""
    asked: list[Asked] = []
    by_id: dict[str, _Namesakes] = {}
    answers: list[tuple[int, Answered]] = []
    for entry in messages:
        if not isinstance(entry, UserEntry | AssistantEntry):
            continue
        for block in entry.blocks:
            if isinstance(block, CallBlock) and isinstance(entry, AssistantEntry):
                if block.id is not None:
                    by_id.setdefault(block.id, _Namesakes()).add(len(asked), entry)
                asked.append((block, entry))
            elif isinstance(block, ResultBlock):
                answers.append((len(asked), (block, entry)))
    results: dict[int, Answered] = {}
    shared: dict[tuple[str, str], Answered] = {}
    for before, answer in answers:
        namesakes = by_id.get(answer[0].tool_use_id or "")
        if namesakes is not None:
            place = namesakes.answered(before, answer[1])
            results[place] = answer
            if response := _response(asked[place]):
                shared[response] = answer
    found: list[JoinedCall] = []
    for place, (block, entry) in enumerate(asked):
        answer = results.get(place)
        # The same response may be written twice; its results name only one of the two.
        if answer is None and (response := _response((block, entry))):
            answer = shared.get(response)
        found.append(JoinedCall(block, entry, *(answer or (None, None))))
    return found


class _Namesakes:
    """The calls of one id: some models count their calls anew each time."""

    def __init__(self) -> None:
        self._places: list[int] = []
        self._by_entry: dict[str, int] = {}

    def add(self, place: int, entry: AssistantEntry) -> None:
        """One more, behind the others."""
        self._places.append(place)
        if entry.uuid is not None:
            self._by_entry[entry.uuid] = place

    def answered(self, before: int, entry: UserEntry | AssistantEntry) -> int:
        """The place of the one that an answer is to, which stands behind ``before`` calls."""
        homes = [entry.parent_uuid]
        if isinstance(entry, UserEntry):
            homes.append(entry.source_tool_assistant_uuid)
        named = [self._by_entry[home] for home in homes if home in self._by_entry]
        if named:
            return max(named)
        return self._places[max(bisect_left(self._places, before) - 1, 0)]


def _response(call: Asked) -> tuple[str, str] | None:
    block, entry = call
    if block.id is None or entry.message is None or entry.message.id is None:
        return None
    return block.id, entry.message.id
