"""Transcripts of subagents that older agents wrote beside the file of the session.

They are named ``agent-<id>.jsonl`` in the folder of the project, as if each were a session; which
session it belongs to is said by its entries alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from ..errors import InvalidKeyError
from ..transcript_key import checked_name
from .jsonl import batches

AGENT = "agent-"


def owner_of(path: Path) -> str | None:
    """The session whose subagent wrote a file; ``None`` of a file that is a session itself.

    The first entry that names a session tells, if a subagent wrote it. A file without one, such
    as an empty one or one of broken lines alone, is a session of its own name.
    """
    with suppress(OSError), closing(batches(path, lambda _: None)) as found:
        for batch in found:
            for entry in batch.entries:
                owner = entry.get("sessionId")
                if isinstance(owner, str):
                    is_agents = entry.get("isSidechain") is True or entry.get("agentId")
                    is_other = owner != path.stem and _is_usable(owner)
                    return owner if is_agents and is_other else None
    return None


def others_named(entries: Iterable[Mapping[str, Any]], session_id: str) -> set[str]:
    """The sessions that entries name instead of one."""
    named = (entry.get("sessionId") for entry in entries)
    return {each for each in named if isinstance(each, str) and each != session_id}


def _is_usable(session_id: str) -> bool:
    try:
        checked_name("session_id", session_id)
    except InvalidKeyError:
        return False
    return True
