"""Kills its own process at a step of the write path, without a hook in the product's code.

The driver tells a listener of every command it is about to send and of every answer; a point is
``"before"`` or ``"after"`` one kind of command.
"""

from __future__ import annotations

import os
import signal

from pymongo import monitoring

_ENTRIES = "claude_transcript_entries"
_SUMMARIES = "claude_transcript_summaries"
_CHUNKS = "claude_transcript_chunks"

_ERASURES = "claude_transcript_erasures"

_WRITES = {
    "update": ("update", _SUMMARIES),
    "insert": ("insert", _ENTRIES),
    "commit": ("commitTransaction", None),
    "create session": ("insert", _SUMMARIES),
    "delete entries": ("delete", _ENTRIES),
    "delete summary": ("delete", _SUMMARIES),
    "move entries": ("update", _ENTRIES),
    "delete chunks": ("delete", _CHUNKS),
    "move chunks": ("update", _CHUNKS),
}
POINTS = [f"{when} {what}" for what in _WRITES for when in ("before", "after")]

_COMMANDS = {
    **_WRITES,
    "insert erasure": ("insert", _ERASURES),
    "put tombstone": ("update", _SUMMARIES),
    "count erased": ("update", _ERASURES),
}


class CrashPoint(monitoring.CommandListener):
    """SIGKILLs this process at the ``nth`` passing of a point."""

    def __init__(self, point: str, nth: int) -> None:
        self._when, what = point.split(" ", 1)
        self._command, self._collection = _COMMANDS[what]
        self._left = nth
        self._requests: set[int] = set()

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        name = event.command_name
        collection = event.command.get(name) if self._collection else None
        if (name, collection) == (self._command, self._collection):
            self._requests.add(event.request_id)
            self._pass("before")

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        if event.request_id in self._requests:
            self._requests.discard(event.request_id)
            self._pass("after")

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        self._requests.discard(event.request_id)

    def _pass(self, when: str) -> None:
        if when == self._when:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
