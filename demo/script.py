"""What the scripted model says: a pure function of the conversation so far.

Words in the last prompt steer it:

- a command in `backticks` is run through the Bash tool (``echo`` when there is none);
- ``DELEGATE`` starts a subagent, whose prompt is whatever follows the word;
- ``RECALL`` answers by quoting the first tool result of the conversation;
- ``PLAIN`` answers with text alone;
- ``SURROGATE`` ends the answer in the middle of an emoji, which leaves a lone surrogate.

Another script is any callable that takes a :class:`Conversation` and returns blocks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

DEFAULT_COMMAND = "echo hello from the tool"
HALF_AN_EMOJI = "\ud83d"


@dataclass(frozen=True)
class Text:
    """A text block."""

    text: str


@dataclass(frozen=True)
class ToolUse:
    """A call of one of the agent's tools."""

    name: str
    arguments: dict[str, Any]


Block = Text | ToolUse


@dataclass(frozen=True)
class Conversation:
    """The parts of a request that a script decides on."""

    prompt: str
    """What was typed last; empty when a subagent reports instead."""
    report: str
    """What that subagent said."""
    calls: tuple[str, ...]
    """Names of the tools called since then."""
    results: tuple[str, ...]
    """What tools returned, over the whole conversation."""
    tools: frozenset[str]
    """Names of the tools on offer."""

    @classmethod
    def of(cls, request: dict[str, Any]) -> Conversation:
        prompt, report, calls, results = "", "", [], []
        for message in request.get("messages", []):
            blocks = _blocks(message)
            if message.get("role") == "assistant":
                calls += [block["name"] for block in blocks if block.get("type") == "tool_use"]
            if message.get("role") != "user":
                continue
            answers = [block for block in blocks if block.get("type") == "tool_result"]
            results += [_text_of(block.get("content")) for block in answers]
            if not answers:
                prompt, report, calls = _typed(blocks), _reported(blocks), []
        names = frozenset(tool.get("name", "") for tool in request.get("tools", []))
        return cls(prompt, report, tuple(calls), tuple(results), names)


Script = Callable[[Conversation], Sequence[Block]]


def obedient_script(conversation: Conversation) -> Sequence[Block]:
    """Do what the prompt's words ask for, one tool call at a time, then say that it is done."""
    steps = _steps(conversation)
    done = len(conversation.calls)
    if done < len(steps):
        return [Text(f"Step {done + 1} of {len(steps)}."), steps[done]]
    if "RECALL" in conversation.prompt:
        first = next(iter(conversation.results), "nothing")
        return [Text(f"The first tool result of this conversation was: {first.strip()}")]
    if not conversation.prompt:
        return [Text(f"The subagent reports: {conversation.report or 'nothing'}")]
    cut = HALF_AN_EMOJI if "SURROGATE" in conversation.prompt else ""
    if not done:
        return [Text(f"Understood.{cut}")]
    return [Text(f"Done. The last tool said: {conversation.results[-1].strip()}{cut}")]


def _steps(conversation: Conversation) -> list[ToolUse]:
    prompt = conversation.prompt
    if not prompt or not conversation.tools or "PLAIN" in prompt or "RECALL" in prompt:
        return []
    own, delegate, rest = prompt.partition("DELEGATE")
    commands = re.findall(r"`([^`]+)`", own) or [DEFAULT_COMMAND]
    steps = [
        ToolUse("Bash", {"command": command, "description": "Run a command"})
        for command in commands
    ]
    if delegate and "Agent" in conversation.tools:
        arguments = {
            "description": "Delegated work",
            "prompt": rest.strip(" :.") or "Report.",
            "subagent_type": "general-purpose",
        }
        steps.append(ToolUse("Agent", arguments))
    return steps


def _blocks(message: dict[str, Any]) -> list[dict[str, Any]]:
    content = message.get("content", "")
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _text_of(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(block.get("text", "") for block in content or [])


def _typed(blocks: list[dict[str, Any]]) -> str:
    """The text a person typed, without what the agent adds around it."""
    texts = [block["text"] for block in blocks if block.get("type") == "text"]
    return "\n".join(text for text in texts if not text.startswith("<system-reminder>"))


def _reported(blocks: list[dict[str, Any]]) -> str:
    """The outcome in the agent's notice that a subagent ended."""
    texts = "\n".join(block["text"] for block in blocks if block.get("type") == "text")
    found = re.search(r"<task-notification>.*<result>(.*)</result>", texts, re.DOTALL)
    return found[1].strip() if found else ""
