"""Workflows: scripts that have agents work, each run of which has a folder of its own.

    subagents/workflows/<run>/agent-a1    what an agent of the run did
    subagents/workflows/<run>/journal     which agents it started, and what they returned

The metadata of such an agent names no call; what the call that began the run returned names it.
"""

from __future__ import annotations

import re
from typing import cast

_FOLDER = ["subagents", "workflows"]
_AGENT = "agent-"
_NAMED = re.compile(r"[/\\]subagents[/\\]workflows[/\\]([^/\\\s]+)")


def run_of(subpath: str) -> str | None:
    """The run whose folder a transcript is in."""
    parts = subpath.split("/")
    return parts[2] if len(parts) > 3 and parts[:2] == _FOLDER else None


def is_journal(subpath: str) -> bool:
    """Whether it is what a run keeps beside the transcripts of its agents, and none of these."""
    return run_of(subpath) is not None and not subpath.rpartition("/")[2].startswith(_AGENT)


def run_begun(returned: object) -> str | None:
    """The run that a call began, by what it returned to the agent."""
    if not isinstance(returned, dict):
        return None
    told = cast("dict[str, object]", returned)
    run, folder = told.get("runId"), told.get("transcriptDir")
    if isinstance(run, str):
        return run
    # Releases before the one that names the run name its folder alone.
    named = _NAMED.search(folder) if isinstance(folder, str) else None
    return named.group(1) if named else None
