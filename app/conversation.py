"""What one transcript tells: its turns, its tool calls, and what they took."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from ..models.messages import ConversationEntry, UserEntry
from ..models.responses import Response
from ..models.views import EntryViews
from .chain import Chain, Links
from .outcome import Outcome, outcome_of
from .responses import CountedResponses
from .tool_calls import Started, ToolCall, each_once, joined_calls


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens of a number of responses of the API, added up."""

    responses: int = 0
    input: int = 0
    output: int = 0
    cache_creation: int = 0
    cache_read: int = 0

    def __add__(self, other: Tokens) -> Tokens:
        return Tokens(
            self.responses + other.responses,
            self.input + other.input,
            self.output + other.output,
            self.cache_creation + other.cache_creation,
            self.cache_read + other.cache_read,
        )


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
        entries: Iterable[Mapping[str, Any]],
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
        return joined_calls(self.messages, self._started)

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


def tokens_by_model(responses: Iterable[Response]) -> dict[str, Tokens]:
    """What some responses took together."""
    found: dict[str, Tokens] = {}
    for response in responses:
        found[response.model] = found.get(response.model, Tokens()) + Tokens(*response.counts)
    return found
