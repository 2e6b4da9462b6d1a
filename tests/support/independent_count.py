"""A second count of responses, tokens and calls, from the rule in docs/typed-access.md.

It was written from the text and not from the code, remembers everything, and is as simple as can
be: a list of all responses, and dicts to find them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

INPUT = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
TOKENS = (*INPUT, "output_tokens")
CALLS = ("tool_use", "server_tool_use", "mcp_tool_use")


@dataclass
class _Response:
    request: str = ""
    tokens: dict[str, int] = field(default_factory=lambda: dict.fromkeys(TOKENS, 0))
    has_usage: bool = False
    chains: set[str] = field(default_factory=set[str])
    calls: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    same_as: _Response | None = None

    def found(self) -> _Response:
        return self if self.same_as is None else self.same_as.found()

    def fits(self, request: str, tokens: Mapping[str, int]) -> bool:
        if request and self.request:
            return request == self.request
        mine = [self.tokens[name] for name in INPUT]
        theirs = [tokens[name] for name in INPUT]
        return not any(mine) or not any(theirs) or mine == theirs


@dataclass(frozen=True)
class Count:
    responses: int
    input: int
    output: int
    cache_creation: int
    cache_read: int
    tools: dict[str, tuple[int, int]]
    """Calls and failed ones by tool."""


def independent_count(entries: Iterable[tuple[str, Mapping[str, Any]]]) -> Count:
    """Count the entries of a session, given as pairs of subpath and entry in stored order."""
    everything: list[_Response] = []
    by_instant: dict[tuple[Any, ...], _Response] = {}
    current: dict[tuple[str, Any], tuple[_Response, int]] = {}
    prompts: dict[str, int] = {}
    loose: list[dict[str, Any]] = []
    called: dict[tuple[str, str], dict[str, Any]] = {}
    for subpath, entry in entries:
        chain = subpath
        if not subpath and entry.get("isSidechain"):
            chain = f"sidechain {entry.get('agentId')}"
        message = entry.get("message", {})
        blocks = [b for b in message.get("content", []) if isinstance(b, dict)]
        if entry["type"] == "user":
            results = [b for b in blocks if b["type"] == "tool_result"]
            for block in results:
                call = called.get((subpath, block["tool_use_id"]))
                if call is not None and block.get("is_error"):
                    call["failed"] = True
            if not results:
                prompts[chain] = prompts.get(chain, 0) + 1
        if entry["type"] != "assistant":
            continue
        usage = message.get("usage") or {}
        tokens = {name: usage.get(name, 0) for name in TOKENS}
        request, at = entry.get("requestId") or "", entry.get("timestamp") or ""
        identity: Any = message.get("id") or ("request", request)
        if identity == ("request", ""):
            identity = ("time", at, *(tokens[name] for name in INPUT)) if at else object()
        instant = (identity, request, at or str(message.get("content")))
        copied = by_instant.get(instant)
        copied = copied.found() if copied is not None else None
        if copied is not None and not copied.fits(request, tokens):
            copied = None
        before, then = current.get((chain, identity), (None, -1))
        before = before.found() if before is not None else None
        if before is not None and (
            then != prompts.get(chain, 0) or not before.fits(request, tokens)
        ):
            before = None
        if copied is not None and before is not None and copied is not before:
            if not copied.chains & before.chains:
                before.same_as = copied
                everything.remove(before)
                copied.chains |= before.chains
                copied.has_usage = copied.has_usage or before.has_usage
                for name in TOKENS:
                    copied.tokens[name] = max(copied.tokens[name], before.tokens[name])
                for key, call in before.calls.items():
                    kept = copied.calls.setdefault(key, call)
                    kept["failed"] = kept["failed"] or call["failed"]
            before = None
        response = copied or before
        if response is None:
            response = _Response()
            everything.append(response)
        by_instant.setdefault(instant, response)
        current[chain, identity] = (response, prompts.get(chain, 0))
        response.chains.add(chain)
        response.request = response.request or request
        if usage and message.get("model") not in (None, "<synthetic>"):
            response.has_usage = True
            for name in TOKENS:
                response.tokens[name] = max(response.tokens[name], tokens[name])
        for block in blocks:
            if block["type"] in CALLS:
                new = {"name": block["name"], "failed": False}
                if not block.get("id"):
                    if copied is None:
                        loose.append(new)
                    continue
                called[subpath, block["id"]] = response.calls.setdefault(block["id"], new)
    tools: dict[str, tuple[int, int]] = {}
    for call in (*loose, *(call for each in everything for call in each.calls.values())):
        calls, errors = tools.get(call["name"], (0, 0))
        tools[call["name"]] = (calls + 1, errors + call["failed"])
    counted = [each for each in everything if each.has_usage]
    totals = {name: sum(each.tokens[name] for each in counted) for name in TOKENS}
    return Count(
        len(counted),
        totals["input_tokens"],
        totals["output_tokens"],
        totals["cache_creation_input_tokens"],
        totals["cache_read_input_tokens"],
        tools,
    )
