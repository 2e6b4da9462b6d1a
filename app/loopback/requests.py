"""What the agent asks the model."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

Json = dict[str, Any]

_REMINDER = "<system-reminder>"
_NOTICE = re.compile(r"<task-notification>.*<result>(.*)</result>", re.DOTALL)


@dataclass(frozen=True)
class ModelRequest:
    """A request for one response of the model: the conversation so far, as the agent sent it."""

    prompt: str
    """What was typed last, by a person or by the agent that started this subagent."""
    report: str | None
    """What a subagent said that has ended since; ``None`` if none has."""
    calls: tuple[str, ...]
    """Names of the tools called since the prompt, or since the report."""
    results: tuple[str, ...]
    """What tools returned, over the whole conversation."""
    tools: frozenset[str]
    """Names of the tools on offer."""
    body: Json = field(repr=False)
    """All that was sent, as the Messages API takes it."""

    @classmethod
    def of(cls, body: Json) -> ModelRequest:
        """Read the body of a request to ``/v1/messages``."""
        prompt, report = "", None
        calls: list[str] = []
        results: list[str] = []
        for message in body.get("messages", []):
            blocks = _blocks(message)
            if message.get("role") == "assistant":
                calls += [block["name"] for block in blocks if block.get("type") == "tool_use"]
            if message.get("role") != "user":
                continue
            answers = [block for block in blocks if block.get("type") == "tool_result"]
            results += [_text_of(block.get("content")) for block in answers]
            if answers:
                continue
            if typed := _typed(blocks):
                prompt, report, calls = typed, None, []
            elif (reported := _reported(blocks)) is not None:
                report, calls = reported, []
        tools = frozenset(str(tool.get("name", "")) for tool in body.get("tools", []))
        return cls(prompt, report, tuple(calls), tuple(results), tools, body)

    @property
    def model(self) -> str:
        """The name of the model that was asked."""
        return str(self.body.get("model", ""))

    @property
    def text(self) -> str:
        """All that the model was told: the system prompt, the messages, tools' calls and results.

        In lines, without the names and descriptions of the tools on offer.
        """
        return "\n".join(_texts([self.body.get("system"), self.body.get("messages")]))


def _blocks(message: Json) -> list[Json]:
    content = message.get("content", "")
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _text_of(content: str | list[Json] | None) -> str:
    if isinstance(content, str):
        return content
    return "".join(block.get("text", "") for block in content or [])


def _typed(blocks: list[Json]) -> str:
    """The text a person typed, without what the agent adds around it."""
    texts = [block["text"] for block in blocks if block.get("type") == "text"]
    return "\n".join(text for text in texts if not text.startswith(_REMINDER))


def _reported(blocks: list[Json]) -> str | None:
    """The outcome in the agent's notice that a subagent ended."""
    texts = "\n".join(block["text"] for block in blocks if block.get("type") == "text")
    found = _NOTICE.search(texts)
    return found[1].strip() if found else None


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for each in cast("Json", value).values():
            yield from _texts(each)
    elif isinstance(value, list):
        for each in cast("list[Any]", value):
            yield from _texts(each)
