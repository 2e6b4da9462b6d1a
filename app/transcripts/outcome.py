"""How a stretch of a conversation came out: what the answer was, and when the last was done.

What the agent writes by itself when it goes on with a session later, such as a filler in the
model's place, is no part of the outcome.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from ...models.views.messages import AssistantEntry, ConversationEntry, UserEntry
from ...models.views.prompts import is_outcome
from .tool_calls import CallBlock

_FILLERS = frozenset(("No response requested.", "(no content)"))
"""What the agent answers in the model's place where the model was not asked."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of what was asked."""

    answer: str
    """What the model said last, or the agent about an error of the API that kept it from that."""
    ended_at: datetime | None
    """The time of the last response, result of a tool, output of a command or interruption."""


def outcome_of(entries: Iterable[ConversationEntry]) -> Outcome:
    """The outcome of a prompt and of what follows it."""
    answer = ""
    times: list[datetime] = []
    # Whether the model has still to speak: not after words of its own without a call of a tool.
    is_awaited = True
    for entry in entries:
        if isinstance(entry, AssistantEntry):
            if entry.is_made_up and (not is_awaited or entry.text.strip() in _FILLERS):
                continue
            answer = entry.text or answer
            if not entry.is_made_up:
                has_call = any(isinstance(block, CallBlock) for block in entry.blocks)
                is_awaited = has_call or (is_awaited and not entry.text)
        elif isinstance(entry, UserEntry):
            if entry.is_prompt or entry.tool_results:
                is_awaited = True
            elif not (is_awaited and is_outcome(entry.text)):
                continue
        else:
            continue
        if entry.timestamp:
            times.append(entry.timestamp)
    return Outcome(answer, max(times, default=None))
