"""What the model answers to one request: blocks of a message, or a failure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


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
class Failure:
    """An HTTP error in place of a message.

    The agent takes the kind of it, such as ``"overloaded_error"``, into account when it decides
    whether to try again.
    """

    status: int
    kind: str
    message: str


@dataclass(frozen=True)
class Cut:
    """A message whose stream breaks off behind its blocks, before the last count of tokens."""

    blocks: Sequence[Block]


Reply = Sequence[Block] | Cut | Failure
