"""What was said, in the words of the conventions for generative AI."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ...models.counting.assistant_entry import is_call


def part_of(block: Mapping[str, Any]) -> dict[str, Any] | None:
    """A content block as the conventions have it; ``None`` for what they have no part for."""
    if block.get("type") == "text":
        return {"type": "text", "content": block.get("text")}
    if block.get("type") == "thinking":
        return {"type": "reasoning", "content": block.get("thinking")}
    if is_call(block):
        return {
            "type": "tool_call",
            "id": block.get("id"),
            "name": block.get("name"),
            "arguments": block.get("input"),
        }
    return None


def json_text(value: object) -> str:
    """A value as JSON; empty for what is none."""
    try:
        # Lone surrogates stay escaped.
        return json.dumps(value)
    except (RecursionError, TypeError, ValueError):
        return ""
