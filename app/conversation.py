"""What one transcript tells: its turns, its tool calls, and what they took."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ..models.blocks import (
    McpToolResultBlock,
    McpToolUseBlock,
    ServerToolResultBlock,
    ServerToolUseBlock,
    ToolResultBlock,
    ToolUseBlock,
)
from ..models.entry_view import EntryView
from ..models.messages import (
    SYNTHETIC_MODEL,
    AssistantEntry,
    ConversationEntry,
    UserEntry,
)
from ..models.transcript import parse_entry
from ..models.usage import Usage
from .chain import Chain, Links

if TYPE_CHECKING:
    from .transcript import Subagent

CallBlock = ToolUseBlock | ServerToolUseBlock | McpToolUseBlock
ResultBlock = ToolResultBlock | ServerToolResultBlock | McpToolResultBlock


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens of a number of responses of the API, added up."""

    responses: int = 0
    input: int = 0
    output: int = 0
    cache_creation: int = 0
    cache_read: int = 0

    @classmethod
    def of(cls, usage: Usage) -> Tokens:
        """The tokens of one response."""
        return cls(
            1,
            usage.input_tokens,
            usage.output_tokens,
            usage.cache_creation_input_tokens,
            usage.cache_read_input_tokens,
        )

    def __add__(self, other: Tokens) -> Tokens:
        return Tokens(
            self.responses + other.responses,
            self.input + other.input,
            self.output + other.output,
            self.cache_creation + other.cache_creation,
            self.cache_read + other.cache_read,
        )


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
    subagents: Mapping[str, Subagent] = field(repr=False)
    """The subagents of the session by the id of the call that started them."""

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
        """From the call being written to its result being written, permission prompts included."""
        if self.result_entry is None or not self.result_entry.timestamp or not self.entry.timestamp:
            return None
        return self.result_entry.timestamp - self.entry.timestamp

    @property
    def subagent(self) -> Subagent | None:
        """The subagent that the call started."""
        return self.subagents.get(self.id) if self.id is not None else None


@dataclass(frozen=True, eq=False)
class Turn:
    """A prompt of a person, and all until the next one."""

    prompt: UserEntry | None
    """``None`` for what comes before the first prompt."""
    entries: tuple[ConversationEntry, ...] = field(repr=False)
    tool_calls: tuple[ToolCall, ...] = field(repr=False)

    @property
    def text(self) -> str:
        """What was asked."""
        return self.prompt.text if self.prompt else ""

    @property
    def answer(self) -> str:
        """What the model said last in it."""
        texts = [e.text for e in self.entries if isinstance(e, AssistantEntry) and e.text]
        return texts[-1] if texts else ""

    @property
    def started_at(self) -> datetime | None:
        """The time of the prompt."""
        return self.prompt.timestamp if self.prompt else None

    @property
    def duration(self) -> timedelta | None:
        """From the prompt to the last entry."""
        ends = [entry.timestamp for entry in self.entries if entry.timestamp]
        return max(ends) - self.started_at if ends and self.started_at else None


class Conversation:
    """One transcript, of a session or of a subagent.

    Args:
        entries: all entries of the transcript, in order.
        subagents: those of the session, by the id of the call that started them.
        is_subagent: whether it is a subagent's transcript, which is one chain.
    """

    def __init__(
        self,
        entries: Iterable[Mapping[str, Any]],
        subagents: Mapping[str, Subagent] | None = None,
        *,
        is_subagent: bool = False,
    ) -> None:
        self.entries: list[EntryView] = [parse_entry(entry) for entry in entries]
        """Every entry as a typed view, in the order in which it was written."""
        self._subagents: Mapping[str, Subagent] = {} if subagents is None else subagents
        self._is_subagent = is_subagent

    @cached_property
    def messages(self) -> list[ConversationEntry]:
        """The entries that belong to a conversation, whichever branch they are on."""
        return [entry for entry in self.entries if isinstance(entry, ConversationEntry)]

    @cached_property
    def segments(self) -> list[Chain]:
        """The active conversation from its very start, cut where it was compacted.

        The last segment is :attr:`active`; the others are what compactions left out.
        """
        if self._is_subagent:
            return [chain] if (chain := self._links.last_chain()) else []
        return self._links.chains()

    @property
    def active(self) -> Chain:
        """What a resumed agent goes on from: since the last compaction, without other branches."""
        return self.segments[-1] if self.segments else []

    @cached_property
    def branches(self) -> list[Chain]:
        """What was left aside by going back to an earlier prompt; each from where it forks off."""
        if self._is_subagent:
            return []
        return self._links.branches([entry for chain in self.segments for entry in chain])

    @cached_property
    def sidechains(self) -> list[ConversationEntry]:
        """Entries that a subagent wrote into this transcript, as older agents did."""
        return [] if self._is_subagent else [e for e in self.messages if e.is_sidechain]

    @cached_property
    def turns(self) -> list[Turn]:
        """The turns of all segments, in order."""
        found: list[tuple[UserEntry | None, Chain]] = []
        for entry in (entry for chain in self.segments for entry in chain):
            prompt = entry if isinstance(entry, UserEntry) and entry.is_prompt else None
            if prompt or not found:
                found.append((prompt, []))
            found[-1][1].append(entry)
        calls = self._calls_by_entry
        return [
            Turn(prompt, tuple(entries), tuple(c for e in entries for c in calls.get(id(e), ())))
            for prompt, entries in found
        ]

    @cached_property
    def tool_calls(self) -> list[ToolCall]:
        """All calls, also of other branches, in the order in which they were made."""
        results: dict[str, tuple[ResultBlock, UserEntry | AssistantEntry]] = {}
        for entry in self.messages:
            if isinstance(entry, UserEntry | AssistantEntry):
                for block in entry.blocks:
                    if isinstance(block, ResultBlock) and block.tool_use_id is not None:
                        results[block.tool_use_id] = (block, entry)
        return [
            ToolCall(block, entry, *results.get(block.id or "", (None, None)), self._subagents)
            for entry in self.messages
            if isinstance(entry, AssistantEntry)
            for block in entry.blocks
            if isinstance(block, CallBlock)
        ]

    @cached_property
    def usage(self) -> dict[str, Tokens]:
        """What was spent by model, on all branches, without what a fork has copied."""
        return self._usage(is_copied=False)

    @cached_property
    def copied_usage(self) -> dict[str, Tokens]:
        """What the forked session had spent on the entries that were copied from it."""
        return self._usage(is_copied=True)

    def _usage(self, *, is_copied: bool) -> dict[str, Tokens]:
        last: dict[str, tuple[str, Usage]] = {}
        for entry in self.messages:
            if isinstance(entry, AssistantEntry) and _is_copied(entry) is is_copied:
                message = entry.message
                if message and message.usage and message.model not in (None, SYNTHETIC_MODEL):
                    last[message.id or f"entry {entry.uuid}"] = (message.model, message.usage)
        found: dict[str, Tokens] = {}
        for model, usage in last.values():
            found[model] = found.get(model, Tokens()) + Tokens.of(usage)
        return found

    @cached_property
    def _links(self) -> Links:
        return Links(self.messages)

    @cached_property
    def _calls_by_entry(self) -> dict[int, list[ToolCall]]:
        found: dict[int, list[ToolCall]] = {}
        for call in self.tool_calls:
            found.setdefault(id(call.entry), []).append(call)
        return found


def _is_copied(entry: AssistantEntry) -> bool:
    if entry.forked_from is not None:
        return True
    return entry.request_session_id not in (None, entry.session_id)
