"""How a call of a tool came out: the words of failure first, else what its tool says."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from .amounts import seconds
from .folded_calls import FoldedCall, LinePart, Told
from .tool_lines import tool_line

_EXIT = re.compile(r"(?:Error: )?Exit code (\d{1,10})\b")
_TIMED_OUT = re.compile(r"timed out after ([^\n.]{1,40})")
_REFUSED = re.compile(
    r"The user doesn't want to (?:proceed|take this action)|"
    r"Permission to use .{1,200} (?:has been )?denied|The user rejected|"
    r"Claude requested permissions? to .{1,400} but you haven't granted",
    re.S,
)
_INTERRUPTED = re.compile(
    r"\[Request interrupted|Interrupted by user|Tool execution was interrupted"
)
_ERROR_TAG = re.compile(r"</?tool_use_error>")
# What failed is to be read beside it.
_REASON_CHARACTERS = 40


@dataclass(frozen=True, slots=True)
class CallLine:
    """The line of a folded call."""

    label: str
    """The tool."""
    mark: str
    """Where it is: ``(MCP)``, ``(at the API)`` or nothing."""
    what: Sequence[LinePart]
    outcome: Sequence[Told]
    has_failed: bool
    is_running: bool


def call_line(
    call: FoldedCall,
    *,
    is_error: bool,
    is_answered: bool,
    goes_on: bool = False,
    denial: Any = None,
) -> CallLine:
    """The line of a call.

    Args:
        call: what was called, and what came back.
        is_error: whether the tool says that it failed.
        is_answered: whether anything came back.
        goes_on: whether the answer may still come.
        denial: how it was refused, where the agent says so.
    """
    line = tool_line(call)
    label, outcome, has_failed = line.label or call.name, list(line.outcome), False
    if not is_answered:
        waited = f", {seconds(call.seconds)}" if goes_on and call.seconds else ""
        words = f"running{waited}" if goes_on else "no result: the session ends here"
        outcome = [Told(words, "live" if goes_on else "failed")]
        has_failed = not goes_on
    elif is_error or _is_interrupted(call):
        has_failed = True
        kept = [each for each in outcome if each.text not in ("no output", "loaded", "done")]
        outcome = [Told(_reason(call, denial), "failed"), *(k for k in kept if _is_measure(k))]
    return CallLine(label, line.mark, line.what, outcome, has_failed, not is_answered and goes_on)


def _is_measure(told: Told) -> bool:
    return told.tone == "" and told.text[:1].isdigit()


def _is_interrupted(call: FoldedCall) -> bool:
    found = call.structured
    return isinstance(found, dict) and cast("dict[str, Any]", found).get("interrupted") is True


def _reason(call: FoldedCall, denial: Any) -> str:
    said = call.output.lstrip()
    by = f" by {call.who}" if call.who else ""
    if isinstance(denial, str) and denial:
        return f"refused{by}" if "user" in denial or "reject" in denial else "refused by a rule"
    if _REFUSED.search(said[:1_000]):
        return f"sent back{by}" if call.name == "ExitPlanMode" else f"refused{by}"
    if _INTERRUPTED.search(said[:1_000]) or _is_interrupted(call):
        return "interrupted"
    if (timed := _TIMED_OUT.search(said[:1_000])) is not None:
        return f"timed out after {timed[1]}"
    if (code := _EXIT.match(said)) is not None:
        return f"failed, exit {code[1]}"
    first = _ERROR_TAG.sub("", said).strip().split("\n")[0].strip()
    if 0 < len(first) <= _REASON_CHARACTERS and call.lines <= 3:
        return f"failed: {first}"
    return "failed"
