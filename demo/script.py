"""What the scripted model says: a pure function of the conversation so far.

Words in the last prompt steer it:

- a command in `backticks` is run through the Bash tool (``echo`` when there is none);
- ``DELEGATE`` starts a subagent, whose prompt is whatever follows the word;
- ``RECALL`` answers by quoting the first tool result of the conversation;
- ``PLAIN`` answers with text alone;
- ``SURROGATE`` ends the answer in the middle of an emoji, which leaves a lone surrogate.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from beanie_session_store.app.loopback.replies import Block, Text, ToolUse
from beanie_session_store.app.loopback.requests import ModelRequest

DEFAULT_COMMAND = "echo hello from the tool"
HALF_AN_EMOJI = "\ud83d"


def obedient_script(asked: ModelRequest) -> Sequence[Block]:
    """Do what the prompt's words ask for, one tool call at a time, then say that it is done."""
    steps = _steps(asked)
    done = len(asked.calls)
    if done < len(steps):
        return [Text(f"Step {done + 1} of {len(steps)}."), steps[done]]
    if asked.report is not None:
        return [Text(f"The subagent reports: {asked.report or 'nothing'}")]
    if "RECALL" in asked.prompt:
        first = next(iter(asked.results), "nothing")
        return [Text(f"The first tool result of this conversation was: {first.strip()}")]
    cut = HALF_AN_EMOJI if "SURROGATE" in asked.prompt else ""
    if not done:
        return [Text(f"Understood.{cut}")]
    return [Text(f"Done. The last tool said: {asked.results[-1].strip()}{cut}")]


def _steps(asked: ModelRequest) -> list[ToolUse]:
    prompt = asked.prompt
    if asked.report is not None or not prompt or not asked.tools:
        return []
    if "PLAIN" in prompt or "RECALL" in prompt:
        return []
    own, delegate, rest = prompt.partition("DELEGATE")
    commands = re.findall(r"`([^`]+)`", own) or [DEFAULT_COMMAND]
    steps = [
        ToolUse("Bash", {"command": command, "description": "Run a command"})
        for command in commands
    ]
    if delegate and "Agent" in asked.tools:
        arguments = {
            "description": "Delegated work",
            "prompt": rest.strip(" :.") or "Report.",
            "subagent_type": "general-purpose",
        }
        steps.append(ToolUse("Agent", arguments))
    return steps
