"""Which call started which subagent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, cast

from .conversation import Conversation, Subagent, ToolCall
from .workflows import run_begun, run_of

_Owned = tuple[ToolCall, str]
"""A call, and the subpath of the transcript that holds it."""


def subagent_origins(session: Conversation, subagents: Sequence[Subagent]) -> dict[str, ToolCall]:
    """The calls that started subagents, by the subagent's subpath.

    The metadata of a subagent names the call; the result of the call names the subagent. One of
    the two is enough, and where ids are not unique, both are better. The agents of a workflow are
    of the call that began its run, or took it up again.
    """
    by_id: dict[str, list[_Owned]] = {}
    by_agent: dict[str, list[_Owned]] = {}
    by_run: dict[str, list[_Owned]] = {}
    holders = [("", session), *((subagent.subpath, subagent) for subagent in subagents)]
    for subpath, holder in holders:
        for call in holder.tool_calls:
            if call.id is not None:
                by_id.setdefault(call.id, []).append((call, subpath))
            if (agent_id := agent_of(call.structured_output)) is not None:
                by_agent.setdefault(agent_id, []).append((call, subpath))
            if (run := run_begun(call.structured_output)) is not None:
                by_run.setdefault(run, []).append((call, subpath))
    found: dict[str, ToolCall] = {}
    above: dict[str, str] = {}
    for subagent in subagents:
        tool_use_id = subagent.metadata.tool_use_id if subagent.metadata else None
        named = by_id.get(tool_use_id, []) if tool_use_id is not None else []
        told = by_agent.get(subagent.agent_id, [])
        agreed = (each for each in told if tool_use_id is not None and each[0].id == tool_use_id)
        # Not as one list: of ids that are not unique, each may name all calls there are.
        ran = _latest_first(by_run.get(run_of(subagent.subpath) or "", []), subagent)
        for call, holder in chain(agreed, named, told, ran):
            # Nobody starts itself, nor those that it was started by.
            if subagent.subpath not in _upwards(holder, above):
                found[subagent.subpath] = call
                above[subagent.subpath] = holder
                break
    return found


def _latest_first(calls: list[_Owned], subagent: Subagent) -> list[_Owned]:
    """The calls of one run: first the last of those that were made before the agent began."""
    if len(calls) < 2:
        return calls
    began = next((e.timestamp for e in subagent.entries if e.timestamp is not None), None)
    before = [each for each in calls if began and (at := each[0].entry.timestamp) and at <= began]
    return [*before[-1:], *calls]


def _upwards(subpath: str | None, above: dict[str, str]) -> Iterator[str]:
    while subpath is not None:
        yield subpath
        subpath = above.get(subpath)


def agent_of(returned: object) -> str | None:
    """The subagent whose outcome a tool returned, if it is one's."""
    if not isinstance(returned, dict):
        return None
    agent_id = cast("dict[str, Any]", returned).get("agentId")
    return agent_id if isinstance(agent_id, str) else None
