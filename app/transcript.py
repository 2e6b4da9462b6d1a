"""A session to work with: its conversation, its subagents, and what all of it took."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

from ..models.records import (
    AgentMetadataEntry,
    AiTitleEntry,
    CostStateEntry,
    CustomTitleEntry,
    SummaryEntry,
    TagEntry,
)
from ..models.totals import costs_apart
from ..models.views import EntryViews
from .conversation import Conversation, Tokens, tokens_by_model
from .origins import subagent_origins
from .outcome import outcome_of
from .responses import CountedResponses
from .tool_calls import ToolCall, each_once
from .workflows import is_journal

Entries = Iterable[Mapping[str, Any]]


class Subagent(Conversation):
    """The transcript of a subagent, below the call that started it."""

    def __init__(self, subpath: str, entries: Entries, session: Transcript) -> None:
        super().__init__(entries, session.started_by, subpath=subpath)
        self._session = session

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
        return self._session.origins.get(self.subpath)

    @cached_property
    def answer(self) -> str:
        """What it said last, which is what its caller was to know.

        Of a subagent in the background the call's own ``output`` is no more than a notice that it
        was started.
        """
        return outcome_of(entry for chain in self.segments for entry in chain).answer


class Transcript(Conversation):
    """A session: the main transcript, and those of its subagents.

    Everything is worked out when it is first asked for, from no more entries than it takes; the
    entries are not copied.

    Args:
        entries: all entries of the main transcript, in order, as ``store.load`` gives them.
        subagents: the entries of each subagent's transcript, by subpath.
        copied: how many entries at the start of the main transcript are the history of another
            session, whose usage is :attr:`copied_usage` like that of a fork.
        carried_usd: what of the agent's account of cost was spent before in the session that it
            was forked from; the store knows it (``SessionSummary.totals.carried_usd``).
    """

    def __init__(
        self,
        entries: Entries,
        subagents: Mapping[str, Entries] | None = None,
        *,
        copied: int = 0,
        carried_usd: float = 0.0,
    ) -> None:
        self._carried_usd = carried_usd
        super().__init__(entries, self.started_by, copied=copied)
        others = subagents or {}
        self.subagents = [
            Subagent(path, found, self) for path, found in others.items() if not is_journal(path)
        ]
        """All subagents of the session, also those that other subagents started."""
        self.journals = {
            path: EntryViews(found) for path, found in others.items() if is_journal(path)
        }
        """What runs of workflows keep beside the transcripts of their agents, by subpath."""

    def started_by(self, call: ToolCall) -> tuple[Subagent, ...]:
        """The subagents that a call of this session started."""
        return tuple(self._started_by_call.get(id(call), ()))

    @cached_property
    def origins(self) -> dict[str, ToolCall]:
        """The calls that started subagents, by the subagent's subpath."""
        return subagent_origins(self, self.subagents)

    @cached_property
    def _started_by_call(self) -> dict[int, list[Subagent]]:
        found: dict[int, list[Subagent]] = {}
        for subagent in self.subagents:
            if subagent.call:
                found.setdefault(id(subagent.call), []).append(subagent)
        return found

    @cached_property
    def all_tool_calls(self) -> list[ToolCall]:
        """The calls of the session and of all of its subagents, each once."""
        parts = (self, *self.subagents)
        calls = (call for conversation in parts for call in conversation.tool_calls)
        return each_once(calls, self._all_responses)

    @cached_property
    def total_usage(self) -> dict[str, Tokens]:
        """What the session spent by model, its subagents included."""
        return tokens_by_model(self._all_responses.all())

    @cached_property
    def _all_responses(self) -> CountedResponses:
        """The responses of all transcripts; one that several of them hold was paid once."""
        return CountedResponses(
            ((each.subpath, each.messages) for each in (self, *self.subagents)), self.copied
        )

    @cached_property
    def cost_usd(self) -> float | None:
        """The cost in US dollars by the agent's own account; ``None`` without one.

        The agent writes it when its process ends in good order. It includes subagents. An
        agent that forks a session goes on with its account: what the session had cost before is
        in it, unless ``carried_usd`` told how much that was. What old agents wrote on each entry
        counts for the days before there was such an account.
        """
        totals: dict[float | None, float] = {}
        for entry in self.entries.of(CostStateEntry):
            if entry.total_cost_usd is not None:
                # The account goes on over resumes; an agent that begins a new one starts anew.
                totals[entry.start_time] = entry.total_cost_usd
        logged: dict[tuple[str, str], float] = {}
        for response in self._all_responses.all():
            if response.cost:
                at = (response.day, response.model)
                logged[at] = logged.get(at, 0.0) + response.cost
        apart = costs_apart(logged, totals)
        if not totals and not apart:
            return None
        return sum(totals.values()) - self._carried_usd + sum(apart.values())

    @cached_property
    def title(self) -> str | None:
        """The title that a person gave, or else the model; older agents gave a summary.

        Of summaries counts the last that is about this conversation: its leaf is an entry of the
        main transcript, or it names none.
        """
        custom = self.entries.last(CustomTitleEntry)
        if custom and custom.custom_title:
            return custom.custom_title
        ai = self.entries.last(AiTitleEntry)
        if ai and ai.ai_title:
            return ai.ai_title
        summaries = list(self.entries.of(SummaryEntry))
        uuids = self.entries.uuids() if summaries else ()
        own = [each for each in summaries if not each.leaf_uuid or each.leaf_uuid in uuids]
        return own[-1].summary or None if own else None

    @cached_property
    def tag(self) -> str | None:
        """The session's tag."""
        tagged = self.entries.last(TagEntry)
        return (tagged.tag or None) if tagged else None
