"""Agents that a test leaves behind: one that fails in the middle closes nothing."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

# The SDK puts it into the environment of each agent, which hands it on to its tools.
_OF_THE_SDK = b"CLAUDE_CODE_ENTRYPOINT="
_PROCESSES = Path("/proc")
_POLL_SECONDS = 0.02


def end_agents(api_url: str, timeout: float) -> None:
    """End the agents that ask the model at ``api_url``, with what their tools have started.

    Where the system does not show the environments of processes (it does on Linux), they end with
    the process that started them. Gives up after ``timeout`` seconds.
    """
    deadline = time.monotonic() + timeout
    while (left := _agents(api_url)) and time.monotonic() < deadline:
        for process in left:
            with suppress(OSError):
                os.kill(process, signal.SIGKILL)
        time.sleep(_POLL_SECONDS)


def _agents(api_url: str) -> list[int]:
    """The ids of the processes that still run."""
    model = f"ANTHROPIC_BASE_URL={api_url}\0".encode()
    found: list[int] = []
    with suppress(OSError):
        for folder in _PROCESSES.iterdir():
            if folder.name.isdigit() and int(folder.name) != os.getpid():
                # Of others' processes, and of those that have ended, there is nothing to read.
                with suppress(OSError):
                    environment = (folder / "environ").read_bytes()
                    if model in environment and _OF_THE_SDK in environment:
                        found.append(int(folder.name))
    return found
