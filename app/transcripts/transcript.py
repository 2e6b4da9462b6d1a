"""A session to work with: its conversation, its subagents, and what all of it took."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

from ...models.counting.cost_accounts import costs_apart
from ...models.views.records import (
    AiTitleEntry,
    CostStateEntry,
    CustomTitleEntry,
    SummaryEntry,
    TagEntry,
)
from ...models.views.sequence import EntryViews
from .conversation import Conversation, Entries, Subagent, ToolCall, each_once
from .responses import CountedResponses
from .subagent_origins import subagent_origins
from .tokens import Tokens, tokens_by_model
from .workflows import is_journal


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
            Subagent(path, found, self.started_by, self._call_of)
            for path, found in others.items()
            if not is_journal(path)
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

    def _call_of(self, subpath: str) -> ToolCall | None:
        return self.origins.get(subpath)

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
