"""What one transcript tells: its turns, its tool calls, and what they took."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from ...models.views.blocks import McpToolResultBlock, ToolResultBlock
from ...models.views.messages import AssistantEntry, ConversationEntry, UserEntry
from ...models.views.records import AgentMetadataEntry
from ...models.views.sequence import EntryViews
from .branches import Chain, Links
from .outcome import Outcome, outcome_of
from .responses import CountedResponses
from .tokens import Tokens, tokens_by_model
from .tool_calls import CallBlock, ResultBlock, joined_calls

Entries = Iterable[Mapping[str, Any]]
Started = Callable[["ToolCall"], "tuple[Subagent, ...]"]


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


@dataclass(frozen=True, eq=False)
class Turn:
    """A prompt of a person, and all until the next one."""

    prompt: UserEntry | None
    """``None`` for what comes before the first prompt."""
    entries: tuple[ConversationEntry, ...] = field(repr=False)
    tool_calls: tuple[ToolCall, ...] = field(repr=False)

    @property
    def text(self) -> str:
        """What the person typed."""
        return (self.prompt.prompt_text or "") if self.prompt else ""

    @property
    def answer(self) -> str:
        """What the model said last in it.

        Where an error of the API kept the model from an answer, what the agent says about that;
        an error behind the answer, and what the agent writes in the model's place when it goes on
        with a session, are no answer.
        """
        return self._outcome.answer

    @property
    def started_at(self) -> datetime | None:
        """The time of the prompt."""
        return self.prompt.timestamp if self.prompt else None

    @property
    def ended_at(self) -> datetime | None:
        """The time of the last response, result of a tool, output of a command or interruption."""
        return self._outcome.ended_at

    @property
    def duration(self) -> timedelta | None:
        """From the prompt to the end; notices that the agent writes later do not stretch it."""
        if self.started_at is None or self.ended_at is None:
            return None
        return self.ended_at - self.started_at

    @cached_property
    def _outcome(self) -> Outcome:
        return outcome_of(self.entries)


class Conversation:
    """One transcript, of a session or of a subagent.

    Args:
        entries: all entries of the transcript, in order.
        started: finds the subagents that a call started.
        subpath: where a subagent's transcript is, which is one chain; "" for a main one.
        copied: how many entries at the start are the history of another session.
    """

    def __init__(
        self,
        entries: Entries,
        started: Started,
        *,
        subpath: str = "",
        copied: int = 0,
    ) -> None:
        self.entries = EntryViews(entries)
        """Every entry as a typed view, in the order in which it was written."""
        self._started = started
        self.subpath = subpath
        """Where it is stored, such as ``subagents/agent-a1``; "" for the main transcript."""
        self._is_subagent = bool(subpath)
        self._copied = copied

    @cached_property
    def messages(self) -> list[ConversationEntry]:
        """The entries that belong to a conversation, whichever branch they are on."""
        return list(self.entries.of(ConversationEntry))

    @cached_property
    def segments(self) -> list[Chain]:
        """The active conversation from its very start, cut where it was compacted.

        The last segment is :attr:`active`; the others are what compactions left out. It is cut as
        well where the entry before is not there, say in a damaged file, for there a resumed agent
        loses what came before.
        """
        if self._is_subagent:
            return self._links.subagent_chains()
        return self._links.chains()

    @cached_property
    def active(self) -> Chain:
        """What a resumed agent goes on from: since the last compaction, without other branches."""
        if self._is_subagent:
            return self.segments[-1] if self.segments else []
        return self._links.active_chain(self.segments)

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
            prompt = entry if isinstance(entry, UserEntry) and self._asks(entry) else None
            if prompt or not found:
                found.append((prompt, []))
            found[-1][1].append(entry)
        calls = self._calls_by_entry
        return [
            Turn(
                prompt,
                tuple(entries),
                tuple(
                    each_once((c for e in entries for c in calls.get(id(e), ())), self.responses)
                ),
            )
            for prompt, entries in found
        ]

    @cached_property
    def tool_calls(self) -> list[ToolCall]:
        """All calls, also of other branches, in the order in which they were made; each once."""
        return each_once(self._joined_calls, self.responses)

    @cached_property
    def usage(self) -> dict[str, Tokens]:
        """What was spent by model, on all branches, without what a fork has copied."""
        return tokens_by_model(self.responses.all())

    @cached_property
    def copied_usage(self) -> dict[str, Tokens]:
        """What the session had spent that was forked, or copied, on the entries copied from it."""
        return tokens_by_model(self.responses.all(are_copied=True))

    @cached_property
    def responses(self) -> CountedResponses:
        """The responses of the API that the transcript has."""
        return CountedResponses([(self.subpath, self.messages)], self.copied)

    @cached_property
    def copied(self) -> frozenset[int]:
        """The ids of the views whose responses a resume has copied from another session."""
        return frozenset(map(id, self.entries[: self._copied]))

    @cached_property
    def _joined_calls(self) -> list[ToolCall]:
        """All calls as they were written, also again."""
        return [ToolCall(*call, self._started) for call in joined_calls(self.messages)]

    def _asks(self, entry: UserEntry) -> bool:
        """Whether somebody asks something of this agent, and not this one of a subagent."""
        return entry.is_prompt and (self._is_subagent or not entry.is_sidechain)

    @cached_property
    def _links(self) -> Links:
        return Links(self.messages)

    def _calls_of(self, entries: Chain) -> list[ToolCall]:
        calls = self._calls_by_entry
        found = (call for entry in entries for call in calls.get(id(entry), ()))
        return each_once(found, self.responses)

    @cached_property
    def _calls_by_entry(self) -> dict[int, list[ToolCall]]:
        found: dict[int, list[ToolCall]] = {}
        for call in self._joined_calls:
            found.setdefault(id(call.entry), []).append(call)
        return found


class Subagent(Conversation):
    """The transcript of a subagent, below the call that started it."""

    def __init__(
        self,
        subpath: str,
        entries: Entries,
        started: Started,
        call_of: Callable[[str], ToolCall | None],
    ) -> None:
        super().__init__(entries, started, subpath=subpath)
        self._call_of = call_of

    @property
    def agent_id(self) -> str:
        """The agent's id, the end of its subpath."""
        return self.subpath.rpartition("/")[2].removeprefix("agent-")

    @cached_property
    def metadata(self) -> AgentMetadataEntry | None:
        """What it is and which call started it; the last such entry counts."""
        return self.entries.last(AgentMetadataEntry)

    @property
    def call(self) -> ToolCall | None:
        """The call that started it, in the main transcript or in another subagent's."""
        return self._call_of(self.subpath)

    @cached_property
    def answer(self) -> str:
        """What it said last, which is what its caller was to know.

        Of a subagent in the background the call's own ``output`` is no more than a notice that it
        was started.
        """
        return outcome_of(entry for chain in self.segments for entry in chain).answer


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
