"""The real agent, offline, with a model that says what a test tells it to."""

from __future__ import annotations

import os
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from claude_agent_sdk import ClaudeAgentOptions

from ..app.loopback.environment import leads_elsewhere, loopback_settings
from ..app.loopback.messages_api import LoopbackMessagesApi
from ..app.loopback.replies import Failure, Reply
from ..app.loopback.requests import ModelRequest
from ..app.text import shown
from .leftovers import end_agents
from .script import Script, Subject, checked_text, described

# Two more tries take two seconds; the ten that are usual take minutes.
_RETRIES = "2"
_BACK_SECONDS = 5.0


class ScriptedAgent(Script):
    """A script for the model, and all that makes the real agent ask this model and no other.

    Its own turns answer every conversation that has no script of its own (:meth:`on`,
    :meth:`delegates`). A request for which no turn is left is refused, so that the agent ends,
    and fails the test, as turns do that nobody asked for.
    """

    def __init__(self, folder: Path) -> None:
        """A script without turns; ``folder`` is an empty one that the agent may write to."""
        super().__init__("scripted_agent", self._script_of)
        self._lock = threading.Lock()
        self._scripts: dict[Subject, Script] = {}
        self._log: list[str] = []
        self._unscripted: list[str] = []
        self._api = LoopbackMessagesApi(self._answer)
        self.home = folder / "home"
        """The home of the agent, empty at the beginning."""
        self.directory = (folder / "project").resolve()
        """An empty folder to run in: a ``cwd``."""
        for each in (self.home / "tmp", self.directory):
            each.mkdir(parents=True)

    @contextmanager
    def running(self) -> Generator[ScriptedAgent]:
        """Let the model answer; at the end, what is left of the agents is ended."""
        with self._api:
            try:
                yield self
            finally:
                end_agents(self._api.url, _BACK_SECONDS)

    @property
    def env(self) -> dict[str, str]:
        """The variables that make an agent ask this model, in an empty home, with a dummy key.

        They are in the environment of the test's process already, and what would lead an agent
        elsewhere is not. A process that clears its environment needs them.
        """
        return loopback_settings(self.home, self._api.url) | {"CLAUDE_CODE_MAX_RETRIES": _RETRIES}

    def options(self, options: ClaudeAgentOptions | None = None) -> ClaudeAgentOptions:
        """Options to run the agent in the test itself: those given, with :attr:`env`.

        Without ``cwd`` it runs in :attr:`directory`; without any options also with leave to use
        all of its tools. For a session in the store, hand them on to ``store.agent_options``.
        """
        given = options or ClaudeAgentOptions(permission_mode="bypassPermissions")
        return replace(given, env={**given.env, **self.env}, cwd=given.cwd or self.directory)

    def on(self, prompt: str) -> Script:
        """The script for conversations whose last prompt has this text in it.

        For agents that run at the same time. Of several scripts that fit a prompt, the one with
        the longest text answers.

        Raises:
            TypeError: it is no text.
            ValueError: it is empty.
        """
        return self._script_of(Subject(checked_text("prompt", prompt), is_whole=False))

    @property
    def requests(self) -> list[ModelRequest]:
        """What the model was asked so far, oldest first, from all conversations."""
        return [ModelRequest.of(body) for body in self._api.requests]

    def problem(self) -> str | None:
        """What the agent did that is not in the script, or the other way round; to read."""
        with self._lock:
            scripts = [self, *self._scripts.values()]
            unused = [f"{script}: {turn}" for script in scripts for turn in script.unused()]
            if self._unscripted:
                what = ["The agent asked the model for a turn that the test has not scripted:"]
                what += self._unscripted
                what += ["Script it with scripted_agent.says(...) or .calls(...)."]
            elif unused:
                what = ["The agent did not ask the model for turns that the test has scripted:"]
                what += unused
                what += ["Did it end early, or did another script answer?"]
            else:
                return None
            return "\n".join([*what, *self._account()])

    def account(self) -> str:
        """What the model was asked and said, to read."""
        with self._lock:
            return "\n".join(self._account())

    def _account(self) -> list[str]:
        return ["What the model was asked and said:", *(self._log or ["nothing"])]

    def _script_of(self, subject: Subject) -> Script:
        with self._lock:
            if subject not in self._scripts:
                self._scripts[subject] = Script(f"on({subject})", self._script_of)
            return self._scripts[subject]

    def _answer(self, request: ModelRequest) -> Reply:
        with self._lock:
            # A whole prompt is more to the point than a part of it.
            fitting = [subject for subject in self._scripts if subject.covers(request)]
            best = max(fitting, key=lambda each: (each.is_whole, len(each.text)), default=None)
            script = self if best is None else self._scripts[best]
            reply = script.next(request)
            asked = f"{len(self._log) + 1}. {_asked(request)}"
            if reply is None:
                self._unscripted.append(f"{asked}, with no turn of {script} left")
                # Of all errors the one that the agent does not try again.
                reply = Failure(
                    402,
                    "invalid_request_error",
                    f"The test has scripted no turn for this ({script}): {asked}",
                )
                self._log.append(f"{asked} -> no turn left")
            else:
                self._log.append(f"{asked} -> {described(reply)}")
            return reply


@contextmanager
def surroundings(variables: dict[str, str]) -> Generator[None]:
    """Set these variables in this process, and take away what would lead an agent elsewhere."""
    before = dict(os.environ)
    for name in [name for name in os.environ if leads_elsewhere(name)]:
        del os.environ[name]
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in {*os.environ, *before}:
            if name in variables or leads_elsewhere(name):
                os.environ.pop(name, None)
                if name in before:
                    os.environ[name] = before[name]


def _asked(request: ModelRequest) -> str:
    """What a request is about, in short."""
    prompt = f"prompt {shown(request.prompt, 80)}"
    if request.report is not None:
        return f"report of a subagent {shown(request.report, 80)} ({prompt})"
    if request.calls and request.results:
        return f"result of {request.calls[-1]} {shown(request.results[-1], 80)} ({prompt})"
    return prompt
