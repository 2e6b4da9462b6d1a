"""Calls of tools, each with what came back."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from ..models.blocks import (
    McpToolResultBlock,
    McpToolUseBlock,
    ServerToolResultBlock,
    ServerToolUseBlock,
    ToolResultBlock,
    ToolUseBlock,
)
from ..models.messages import AssistantEntry, ConversationEntry, UserEntry

if TYPE_CHECKING:
    from .responses import CountedResponses
    from .transcript import Subagent

CallBlock = ToolUseBlock | ServerToolUseBlock | McpToolUseBlock
ResultBlock = ToolResultBlock | ServerToolResultBlock | McpToolResultBlock
Started = Callable[["ToolCall"], "tuple[Subagent, ...]"]

Asked = tuple[CallBlock, AssistantEntry]
Answered = tuple[ResultBlock, UserEntry | AssistantEntry]


@dataclass(frozen=True, eq=False)
class ToolCall:
    """A call of a tool, with what came back."""

    block: CallBlock
    entry: AssistantEntry
    """The entry that holds the call."""
    result: ResultBlock | None
    """``None`` while there is no answer, or if the session was cut off before one."""
    result_entry: UserEntry | AssistantEntry | None
    """The entry that holds the answer."""
    started: Started = field(repr=False)
    """Finds what :attr:`subagents` gives."""

    @property
    def id(self) -> str | None:
        """The call's id, by which its result names it."""
        return self.block.id

    @property
    def name(self) -> str:
        """The name of the tool."""
        return self.block.name

    @property
    def input(self) -> dict[str, Any]:
        """The arguments."""
        return self.block.input

    @property
    def output(self) -> str:
        """What the model was told, as text; empty without an answer."""
        if isinstance(self.result, ToolResultBlock | McpToolResultBlock):
            return self.result.text
        return ""

    @property
    def structured_output(self) -> Any:
        """What the tool returned to the agent: an object, a list, an error as text, or ``None``."""
        return (
            self.result_entry.tool_use_result if isinstance(self.result_entry, UserEntry) else None
        )

    @property
    def is_error(self) -> bool:
        """Whether the tool failed, was refused or interrupted."""
        return bool(getattr(self.result, "is_error", False))

    @property
    def duration(self) -> timedelta | None:
        """From the call being written to its result being written, permission prompts included.

        A subagent in the background runs on after it.
        """
        if self.result_entry is None or not self.result_entry.timestamp or not self.entry.timestamp:
            return None
        return self.result_entry.timestamp - self.entry.timestamp

    @property
    def subagents(self) -> tuple[Subagent, ...]:
        """The subagents that the call started."""
        return self.started(self)

    @property
    def subagent(self) -> Subagent | None:
        """The subagent that the call started, the first of them if there are several."""
        return next(iter(self.subagents), None)


def joined_calls(messages: Iterable[ConversationEntry], started: Started) -> list[ToolCall]:
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
    found: list[ToolCall] = []
    for place, (block, entry) in enumerate(asked):
        answer = results.get(place)
        # The same response may be written twice; its results name only one of the two.
        if answer is None and (response := _response((block, entry))):
            answer = shared.get(response)
        found.append(ToolCall(block, entry, *(answer or (None, None)), started))
    return found


def each_once(calls: Iterable[ToolCall], responses: CountedResponses) -> list[ToolCall]:
    """The calls in their order, those that a response was written with again only once.

    One that failed by one of its results has failed.
    """
    found: dict[tuple[int, str], ToolCall] = {}
    for call in calls:
        key = (id(call), "") if not call.id else (id(responses.of(call.entry)), call.id)
        known = found.get(key)
        if known is None or (call.is_error and not known.is_error):
            found[key] = call
    return list(found.values())


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
