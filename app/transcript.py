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
from .conversation import Conversation, Tokens, ToolCall

Entries = Iterable[Mapping[str, Any]]


class Subagent(Conversation):
    """The transcript of a subagent, below the call that started it."""

    def __init__(self, subpath: str, entries: Entries, session: Transcript) -> None:
        super().__init__(entries, session.subagents_by_call, is_subagent=True)
        self.subpath = subpath
        """Where it is stored, such as ``subagents/agent-a1``."""
        self._session = session

    @property
    def agent_id(self) -> str:
        """The agent's id, the end of its subpath."""
        return self.subpath.rpartition("/")[2].removeprefix("agent-")

    @cached_property
    def metadata(self) -> AgentMetadataEntry | None:
        """What it is and which call started it; the last such entry counts."""
        found = [entry for entry in self.entries if isinstance(entry, AgentMetadataEntry)]
        return found[-1] if found else None

    @property
    def call(self) -> ToolCall | None:
        """The call that started it, in the main transcript or in another subagent's."""
        return self._session.calls_by_subagent.get(self.subpath)


class Transcript(Conversation):
    """A session: the main transcript, and those of its subagents.

    Everything is worked out when it is first asked for, and the entries are not copied.

    Args:
        entries: all entries of the main transcript, in order, as ``store.load`` gives them.
        subagents: the entries of each subagent's transcript, by subpath.
    """

    def __init__(self, entries: Entries, subagents: Mapping[str, Entries] | None = None) -> None:
        self.subagents_by_call: dict[str, Subagent] = {}
        """The subagents by the id of the call that started them."""
        super().__init__(entries, self.subagents_by_call)
        self.subagents = [Subagent(path, found, self) for path, found in (subagents or {}).items()]
        """All subagents of the session, also those that other subagents started."""
        for subagent in self.subagents:
            if subagent.metadata and subagent.metadata.tool_use_id is not None:
                self.subagents_by_call[subagent.metadata.tool_use_id] = subagent

    @cached_property
    def calls_by_subagent(self) -> dict[str, ToolCall]:
        """The calls that started subagents, by the subagent's subpath."""
        return {call.subagent.subpath: call for call in self.all_tool_calls if call.subagent}

    @cached_property
    def all_tool_calls(self) -> list[ToolCall]:
        """The calls of the session and of all of its subagents."""
        parts = (self, *self.subagents)
        return [call for conversation in parts for call in conversation.tool_calls]

    @cached_property
    def total_usage(self) -> dict[str, Tokens]:
        """What the session spent by model, its subagents included."""
        found = dict(self.usage)
        for subagent in self.subagents:
            for model, tokens in subagent.usage.items():
                found[model] = found.get(model, Tokens()) + tokens
        return found

    @cached_property
    def cost_usd(self) -> float | None:
        """The cost in US dollars by the agent's own account; ``None`` without one.

        The agent writes it when its process ends in good order. It includes subagents, and in a
        fork what the forked session had cost.
        """
        totals: dict[float | None, float] = {}
        for entry in self.entries:
            if isinstance(entry, CostStateEntry) and entry.total_cost_usd is not None:
                # The account goes on over resumes; an agent that begins a new one starts anew.
                totals[entry.start_time] = entry.total_cost_usd
        return sum(totals.values()) if totals else None

    @cached_property
    def title(self) -> str | None:
        """The title that a person gave, or else the model; older agents gave a summary."""
        custom = [e.custom_title for e in self.entries if isinstance(e, CustomTitleEntry)][-1:]
        ai = [e.ai_title for e in self.entries if isinstance(e, AiTitleEntry)][-1:]
        summary = [e.summary for e in self.entries if isinstance(e, SummaryEntry)][-1:]
        return next((title for title in (*custom, *ai, *summary) if title), None)

    @cached_property
    def tag(self) -> str | None:
        """The session's tag."""
        found = [entry.tag for entry in self.entries if isinstance(entry, TagEntry)]
        return (found[-1] or None) if found else None
