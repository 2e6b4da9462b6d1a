"""Which user entries a person wrote, told from the entry as the agent wrote it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

# What the agent puts where a person would type, seen at the start of the text.
_NOT_TYPED = (
    "<local-command-stdout>",
    "<local-command-stderr>",
    "<local-command-caveat>",
    "<bash-stdout>",
    "<bash-stderr>",
    "<task-notification>",
    "[Request interrupted by user",
)
_NOT_SAID = ("isMeta", "isCompactSummary", "isVisibleInTranscriptOnly")


def prompt_of(entry: Mapping[str, Any]) -> str | None:
    """The text of a ``user`` entry that a person wrote, or ``None`` if it is not a person's.

    Neither a tool's result nor what the agent itself says is a prompt. A slash command is one;
    what it printed is none.
    """
    if any(entry.get(flag) is True for flag in _NOT_SAID):
        return None
    origin = entry.get("origin")
    if isinstance(origin, dict) and cast("dict[str, Any]", origin).get("kind") != "human":
        return None
    message = entry.get("message")
    content = cast("dict[str, Any]", message).get("content") if isinstance(message, dict) else ""
    if isinstance(content, list):
        texts: list[str] = []
        for block in blocks_of(cast("list[Any]", content)):
            if block.get("type") == "tool_result":
                return None
            text = block.get("text")
            if block.get("type") == "text" and isinstance(text, str):
                texts.append(text)
        content = "\n".join(texts)
    text = content if isinstance(content, str) else ""
    return None if text.startswith(_NOT_TYPED) else text


def blocks_of(content: object) -> list[dict[str, Any]]:
    """The content blocks of a message, without what is none."""
    items = cast("list[Any]", content) if isinstance(content, list) else []
    return [cast("dict[str, Any]", item) for item in items if isinstance(item, dict)]
