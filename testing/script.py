"""What the model is to say, a turn for each time that it is asked."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from ..app.loopback.replies import Block, Cut, Failure, Reply, Text, ToolUse
from ..app.loopback.requests import ModelRequest
from ..app.text import shown

_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}
_SUBAGENT_TOOL = "Agent"
_OVERLOADED = 529


@dataclass(frozen=True)
class Subject:
    """The conversations that a script is for: those whose last prompt has a text in it."""

    text: str
    is_whole: bool
    """Whether the text must be all of the prompt."""

    def covers(self, request: ModelRequest) -> bool:
        if self.is_whole:
            return request.prompt.strip() == self.text.strip()
        return self.text in request.prompt

    def __str__(self) -> str:
        return shown(self.text, 60)


@dataclass
class _ScriptedTurn:
    reply: Reply
    lasts: bool = False
    """Whether it answers all tries of the request that it answers first."""
    answered: tuple[str, int] | None = None
    """Which request that was."""


class Script:
    """The turns of the model in some conversations, said in the order in which they are added.

    Each method adds a turn and returns the script, so that calls can be chained; turns may be
    added at any time, also between two runs of the agent.
    """

    def __init__(self, name: str, open_script: Callable[[Subject], Script]) -> None:
        self._name = name
        self._open_script = open_script
        self._turns: deque[_ScriptedTurn] = deque()

    def says(self, text: str) -> Script:
        """Answer with a text; the agent's turn is over then.

        Raises:
            TypeError: it is no text.
            ValueError: it is empty, and the agent would ask again.
        """
        return self.replies(Text(text))

    def calls(self, tool: str, arguments: Mapping[str, Any], *, text: str | None = None) -> Script:
        """Call a tool of the agent's, such as ``calls("Bash", {"command": "ls"})``.

        The agent runs it, for real, if its permissions allow that, and asks again with the
        result: the next turn answers that.

        Args:
            tool: its name, as the agent has it (``ModelRequest.tools``).
            arguments: a JSON object.
            text: what is said before it.

        Raises:
            TypeError: an argument is of another type.
        """
        if not isinstance(cast("object", arguments), Mapping):
            raise TypeError(
                f"The arguments of a tool are a JSON object, not {shown(arguments)}: "
                'calls("Bash", {"command": "ls"})'
            )
        use = ToolUse(tool, dict(arguments))
        return self.replies(use) if text is None else self.replies(Text(text), use)

    def delegates(self, prompt: str, *, subagent_type: str = "general-purpose") -> Script:
        """Start a subagent, and wait for it; returns the *subagent's* script, empty so far.

        What it says last comes to the one that started it as the result of the tool, which the
        next turn of this script answers.

        Args:
            prompt: what the subagent is asked, all of it: its requests are told by that.
            subagent_type: one of the agent's, or of ``ClaudeAgentOptions.agents``.

        Raises:
            TypeError: an argument is no text.
            ValueError: the prompt is empty.
        """
        checked_text("subagent_type", subagent_type)
        subagent = self._open_script(Subject(checked_text("prompt", prompt), is_whole=True))
        arguments = {
            "description": "Work for a subagent",
            "prompt": prompt,
            "subagent_type": subagent_type,
            # Else it would be told in between, at a moment that is another one each time.
            "run_in_background": False,
        }
        self.calls(_SUBAGENT_TOOL, arguments)
        return subagent

    def replies(self, *blocks: Block) -> Script:
        """Answer with several blocks: texts, and tools that are called at the same time.

        Raises:
            TypeError: one is neither ``Text`` nor ``ToolUse`` with what belongs in them.
            ValueError: there is none.
        """
        if not blocks:
            raise ValueError("A turn needs something to say: replies(Text('...'), ToolUse(...))")
        for block in blocks:
            _check(block)
        self._turns.append(_ScriptedTurn(blocks))
        return self

    def fails(
        self,
        status: int = _OVERLOADED,
        message: str = "Scripted failure",
        *,
        times: int | None = None,
    ) -> Script:
        """Answer with an HTTP error; 529, overloaded, unless told otherwise.

        The agent tries most of them again by itself, here twice and within about two seconds,
        before it gives up and its run ends with an error.

        Args:
            status: 400 to 599.
            message: what the error says.
            times: how many tries fail before the next turn is said; without it all of one
                request, so that the agent gives up.

        Raises:
            ValueError: there is no such status, or there are no times.
            TypeError: the message is no text.
        """
        if type(status) is not int or not 400 <= status <= 599:
            raise ValueError(f"An error has a status of 400 to 599, not {shown(status)}.")
        if times is not None and (type(times) is not int or times < 1):
            raise ValueError(f"times is how many tries fail, 1 or more, not {shown(times)}.")
        checked_text("message", message)
        failure = Failure(status, _KINDS.get(status, "api_error"), message)
        if times is None:
            self._turns.append(_ScriptedTurn(failure, lasts=True))
        else:
            self._turns.extend(_ScriptedTurn(failure) for _ in range(times))
        return self

    def next(self, request: ModelRequest) -> Reply | None:
        """Take the turn that answers a request; ``None`` when all are said."""
        while self._turns:
            turn = self._turns[0]
            if not turn.lasts:
                return self._turns.popleft().reply
            if turn.answered in (None, _identity(request)):
                turn.answered = _identity(request)
                return turn.reply
            self._turns.popleft()
        return None

    def unused(self) -> list[str]:
        """The turns that the model was not asked for, to read."""
        return [described(turn.reply) for turn in self._turns if turn.answered is None]

    def __str__(self) -> str:
        return self._name


def described(reply: Reply) -> str:
    """A turn as the test wrote it, shortened."""
    if isinstance(reply, Failure):
        return f"fails({reply.status})"
    blocks = reply.blocks if isinstance(reply, Cut) else reply
    return " ".join(
        f"says({shown(block.text, 80)})"
        if isinstance(block, Text)
        else f"calls({shown(block.name)}, {shown(block.arguments, 80)})"
        for block in blocks
    )


def _identity(request: ModelRequest) -> tuple[str, int]:
    """What the tries of one request have in common: the run of the agent, and how far it is."""
    messages = request.body.get("messages", [])
    return str(request.body.get("metadata")), len(messages)


def _check(block: object) -> None:
    if isinstance(block, Text):
        checked_text("what the model says", block.text)
        return
    if not isinstance(block, ToolUse):
        raise TypeError(f"A turn is made of Text and ToolUse, not of {shown(block)}.")
    checked_text("the name of a tool", block.name)
    try:
        json.dumps(block.arguments, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"The arguments of a tool are a JSON object, not {shown(block.arguments)}: {error}."
        ) from None


def checked_text(name: str, value: object) -> str:
    """A text that is not empty; anything else is refused by its name."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a text, not {shown(value)}.")
    if not value.strip():
        raise ValueError(f"{name} must not be empty.")
    return value
