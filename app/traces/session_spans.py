"""The spans of a session, made while its entries are read one by one.

By the conventions for generative AI: a turn is ``invoke_agent``, a response ``chat``, a call
``execute_tool``, a subagent ``invoke_agent`` below the call that started it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from ...models.counting.assistant_entry import call_id_of, calls_in, is_call, tool_name_of
from ...models.counting.one_response import Response, Taken, chain_of
from ...models.views.moments import moment
from ...models.views.prompts import blocks_of
from ..transcripts.subagent_origins import agent_of
from .messages import json_text, part_of
from .response_ledger import ResponseLedger
from .spans import (
    AttributeValue,
    SessionSpan,
    bounded_text,
    nanoseconds_of,
    span_id_of,
    trace_id_of,
)

AGENT_NAME = "claude"


@dataclass(slots=True)
class _Open:
    """What has begun and may go on."""

    span_id: bytes
    parent_id: bytes | None
    name: str
    start: int
    end: int
    attributes: dict[str, AttributeValue]
    is_sent: bool = False
    is_error: bool = False


@dataclass(slots=True)
class _OpenResponse:
    response: Response
    first: int
    open: _Open
    finish_reason: str | None = None
    parts: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    calls: set[str] = field(default_factory=set[str])


@dataclass(slots=True)
class _Chain:
    """A conversation: the main one, or a subagent's."""

    last: int
    response: _OpenResponse | None = None


class SessionSpans:
    """Give it every entry in the order of writing; it gives the spans that have ended.

    Args:
        session_id: the session.
        begun_ns: a time for entries without any before them.
        copied_until: up to which position the main transcript is another session's history.
        with_content: also what was said and what tools were told and gave; else no content.
        taken: what each response took in the end, by the position at which it began; ``None``
            where that is not known yet, and what is known so far has to do.
    """

    def __init__(
        self,
        session_id: str,
        *,
        begun_ns: int = 0,
        copied_until: int = 0,
        with_content: bool = False,
        taken: Mapping[int, Taken] | None = None,
    ) -> None:
        self._trace = trace_id_of(session_id)
        self._session_id = bounded_text(session_id)
        self._with_content = with_content
        self._taken = taken
        self._ledger = ResponseLedger(copied_until)
        self._begun = begun_ns
        self._chains: dict[str, _Chain] = {}
        self._turn: _Open | None = None
        self._turns = 0
        self._calls: dict[tuple[str, str], _Open] = {}
        self._agents: dict[str, _Open] = {}
        self._named: dict[str, bytes] = {}
        """The span of the call that started an agent as that one says, by the agent's id."""
        self._told: dict[str, bytes] = {}
        """The same, as the results of calls say."""
        self._callers: dict[bytes, str] = {}
        """The subagents whose calls those are, by the span of the call."""
        self._known: set[bytes] = set()

    def add(self, entry: Mapping[str, Any], subpath: str, seq: int) -> Iterator[SessionSpan]:
        """Take in one more entry, and give the spans that ended with it."""
        kind = entry.get("type")
        if kind == "agent_metadata" and subpath:
            self._describe(entry, subpath)
        if kind not in ("user", "assistant"):
            return
        if self._ledger.is_copy(entry, subpath, seq):
            if kind == "user":
                self._ledger.prompted(entry, subpath)
            return
        chain = self._chains.setdefault(chain_of(subpath, entry), _Chain(self._begun))
        at = _nanoseconds(entry.get("timestamp"))
        if kind == "user":
            yield from self._add_user(entry, subpath, seq, chain, at)
        else:
            yield from self._add_assistant(entry, subpath, seq, chain, at)
        chain.last = chain.last if at is None else at
        holder = self._holder(subpath, entry, seq)
        holder.end = max(holder.end, chain.last)

    @property
    def is_at_rest(self) -> bool:
        """Whether no call waits for its result."""
        return not self._calls

    def ended(self) -> Iterator[SessionSpan]:
        """The spans of what has not ended, as far as it came; what goes on comes in no other."""
        for chain in self._chains.values():
            yield from self._close(chain)
        for call in self._calls.values():
            yield self._span(call)
        self._calls.clear()
        yield from self._turn_ended()
        for subpath, agent in self._agents.items():
            if not agent.is_sent:
                agent.parent_id = self._call_above(subpath) or agent.parent_id
                yield self._span(agent)

    def _add_user(
        self, entry: Mapping[str, Any], subpath: str, seq: int, chain: _Chain, at: int | None
    ) -> Iterator[SessionSpan]:
        now = chain.last if at is None else at
        results = [block for block in _blocks_in(entry) if "tool_use_id" in block]
        if results:
            yield from self._add_results(results, entry.get("toolUseResult"), subpath, now)
            return
        prompt = self._ledger.prompted(entry, subpath)
        if prompt is None:
            return
        yield from self._close(chain)
        if not subpath and entry.get("isSidechain") is not True:
            yield from self._turn_ended()
            self._begin_turn(entry, seq, now, prompt)

    def _add_assistant(
        self, entry: Mapping[str, Any], subpath: str, seq: int, chain: _Chain, at: int | None
    ) -> Iterator[SessionSpan]:
        placed = self._ledger.place(entry, subpath, seq)
        if placed is None or placed.is_copy:
            return
        blocks = _blocks_in(entry)
        now = chain.last if at is None else at
        parent = self._holder(subpath, entry, seq).span_id
        if placed.first == seq:
            yield from self._close(chain)
            name = ("response", subpath, str(entry.get("uuid") or seq))
            opened = _Open(self._new_id(seq, *name), parent, "chat", chain.last, now, {})
            chain.response = _OpenResponse(placed.response, seq, opened)
        under_way = chain.response
        if under_way is not None and under_way.response is placed.response:
            self._go_on(under_way, entry["message"], blocks, now)
        for place, block in enumerate(calls_in(entry)):
            self._call(block, subpath, seq, place, chain.response, parent, now)
        results = [each for each in blocks if "tool_use_id" in each and not is_call(each)]
        yield from self._add_results(results, None, subpath, now)

    def _go_on(
        self,
        under_way: _OpenResponse,
        message: Mapping[str, Any],
        blocks: list[dict[str, Any]],
        now: int,
    ) -> None:
        opened = under_way.open
        opened.end = max(opened.end, now)
        reason = message.get("stop_reason")
        under_way.finish_reason = reason if isinstance(reason, str) else under_way.finish_reason
        response = message.get("id")
        if isinstance(response, str) and response:
            opened.attributes["gen_ai.response.id"] = bounded_text(response)
        if self._with_content:
            under_way.parts += [part for block in blocks if (part := part_of(block))]

    def _close(self, chain: _Chain) -> Iterator[SessionSpan]:
        under_way, chain.response = chain.response, None
        if under_way is None:
            return
        taken = under_way.response.taken
        if self._taken is not None:
            # What has turned out to be a part of another one is told of there.
            taken = self._taken.get(under_way.first)
        if taken is None or not taken.counts[0]:
            return
        _, given, output, cache_creation, cache_read, *_ = taken.counts
        opened = under_way.open
        model = bounded_text(taken.model)
        opened.name = f"chat {model}"
        opened.attributes |= {
            **self._common("chat"),
            "gen_ai.response.model": model,
            # The convention counts what comes from the cache as input, and the API does not.
            "gen_ai.usage.input_tokens": given + cache_creation + cache_read,
            "gen_ai.usage.output_tokens": output,
            "gen_ai.usage.cache_creation.input_tokens": cache_creation,
            "gen_ai.usage.cache_read.input_tokens": cache_read,
        }
        if under_way.finish_reason is not None:
            reason = bounded_text(under_way.finish_reason)
            opened.attributes["gen_ai.response.finish_reasons"] = [reason]
        if under_way.parts:
            said = {
                "role": "assistant",
                "parts": under_way.parts,
                "finish_reason": under_way.finish_reason or "",
            }
            opened.attributes["gen_ai.output.messages"] = json_text([said])
        yield self._span(opened, "client")

    def _call(
        self,
        block: Mapping[str, Any],
        subpath: str,
        seq: int,
        place: int,
        under_way: _OpenResponse | None,
        parent: bytes,
        now: int,
    ) -> None:
        call = call_id_of(block) or f"{seq} {place}"
        if under_way is not None:
            # Written again in the same response, it is the same call.
            if call in under_way.calls:
                return
            under_way.calls.add(call)
        span_id = self._new_id(seq, "tool", subpath, call)
        if subpath:
            self._callers[span_id] = subpath
        tool = bounded_text(tool_name_of(block))
        attributes: dict[str, AttributeValue] = {
            **self._common("execute_tool"),
            "gen_ai.tool.name": tool,
            "gen_ai.tool.type": "function",
        }
        if call_id_of(block) is not None:
            attributes["gen_ai.tool.call.id"] = bounded_text(call)
        if self._with_content:
            attributes["gen_ai.tool.call.arguments"] = json_text(block.get("input"))
        opened = _Open(span_id, parent, f"execute_tool {tool}", now, now, attributes)
        self._calls[subpath, call] = opened

    def _add_results(
        self, results: list[dict[str, Any]], returned: object, subpath: str, now: int
    ) -> Iterator[SessionSpan]:
        for block in results:
            call = call_id_of({"id": block.get("tool_use_id")})
            opened = None if call is None else self._calls.pop((subpath, call), None)
            if opened is None:
                continue
            agent = agent_of(returned)
            if agent is not None:
                self._told.setdefault(agent, opened.span_id)
            opened.end = max(opened.end, now)
            if block.get("is_error") is True:
                opened.is_error = True
                opened.attributes["error.type"] = "tool_error"
            if self._with_content:
                opened.attributes["gen_ai.tool.call.result"] = json_text(block.get("content"))
            yield self._span(opened)

    def _begin_turn(self, entry: Mapping[str, Any], seq: int, now: int, prompt: str) -> None:
        self._turns += 1
        span_id = self._new_id(seq, "turn", str(entry.get("uuid") or seq))
        attributes: dict[str, AttributeValue] = {
            **self._common("invoke_agent"),
            "gen_ai.agent.name": AGENT_NAME,
        }
        if self._with_content and prompt:
            said = {"role": "user", "parts": [{"type": "text", "content": prompt}]}
            attributes["gen_ai.input.messages"] = json_text([said])
        self._turn = _Open(span_id, None, f"invoke_agent {AGENT_NAME}", now, now, attributes)

    def _turn_ended(self) -> Iterator[SessionSpan]:
        if self._turn is not None and not self._turn.is_sent:
            yield self._span(self._turn)

    def _holder(self, subpath: str, entry: Mapping[str, Any], seq: int) -> _Open:
        """The turn, or the subagent, that an entry is of."""
        if not subpath:
            if self._turn is None:
                at = _nanoseconds(entry.get("timestamp"))
                self._begin_turn(entry, seq, self._begun if at is None else at, "")
                assert self._turn is not None
            return self._turn
        agent = self._agent(subpath)
        if agent.parent_id is None:
            agent.parent_id = self._holder("", entry, seq).span_id
            at = _nanoseconds(entry.get("timestamp"))
            agent.start = agent.end = self._begun if at is None else at
        return agent

    def _agent(self, subpath: str) -> _Open:
        agent = self._agents.get(subpath)
        if agent is None:
            attributes: dict[str, AttributeValue] = {
                **self._common("invoke_agent"),
                "gen_ai.agent.id": bounded_text(_agent_id(subpath)),
            }
            span_id = span_id_of(self._trace, "subagent", subpath)
            start = self._begun
            agent = _Open(span_id, None, "invoke_agent subagent", start, start, attributes)
            self._agents[subpath] = agent
        return agent

    def _describe(self, entry: Mapping[str, Any], subpath: str) -> None:
        agent = self._agent(subpath)
        kind, call = entry.get("agentType"), entry.get("toolUseId")
        if isinstance(kind, str) and kind:
            agent.name = f"invoke_agent {bounded_text(kind)}"
            agent.attributes["gen_ai.agent.name"] = bounded_text(kind)
        if isinstance(call, str) and call:
            above = entry.get("parentAgentId")
            holder = f"subagents/agent-{above}" if isinstance(above, str) and above else ""
            # Of calls that share an id it is the first.
            self._named[_agent_id(subpath)] = span_id_of(self._trace, "tool", holder, call)

    def _call_above(self, subpath: str) -> bytes | None:
        """The call that started a subagent; ``None`` where it is not known, or goes in a circle."""
        above = self._started_by(subpath)
        seen: set[str] = set()
        holder, call = subpath, above
        while holder not in seen and call is not None:
            seen.add(holder)
            holder = self._callers.get(call, "")
            call = self._started_by(holder) if holder else None
        return None if holder in seen and call is not None else above

    def _started_by(self, subpath: str) -> bytes | None:
        agent = _agent_id(subpath)
        for found in (self._named.get(agent), self._told.get(agent)):
            if found in self._known:
                return found
        return None

    def _common(self, operation: str) -> dict[str, AttributeValue]:
        return {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": "anthropic",
            "gen_ai.conversation.id": self._session_id,
        }

    def _new_id(self, seq: int, *name: str) -> bytes:
        found = span_id_of(self._trace, *name)
        if found in self._known:
            # What has its uuid is another one.
            found = span_id_of(self._trace, *name, str(seq))
        self._known.add(found)
        return found

    def _span(self, opened: _Open, kind: Any = "internal") -> SessionSpan:
        opened.is_sent = True
        start = min(opened.start, opened.end)
        return SessionSpan(
            *(self._trace, opened.span_id, opened.parent_id, kind, opened.name),
            *(start, max(start, opened.end), opened.attributes, opened.is_error),
        )


def _blocks_in(entry: Mapping[str, Any]) -> list[dict[str, Any]]:
    message = entry.get("message")
    if not isinstance(message, dict):
        return []
    return blocks_of(cast("dict[str, Any]", message).get("content"))


def _agent_id(subpath: str) -> str:
    return subpath.rpartition("/")[2].removeprefix("agent-")


def _nanoseconds(written: object) -> int | None:
    at = moment(written)
    return None if at is None else nanoseconds_of(at)
