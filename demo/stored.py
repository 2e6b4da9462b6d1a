"""What the store holds of a session, read through its public methods alone."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import Any, cast

from claude_agent_sdk import SessionStore

from .agent import Entry

Transcripts = dict[str, list[Entry]]


async def load_all(store: SessionStore, key: Any) -> Transcripts:
    """All transcripts of a session by subpath; ``""`` is the main one."""
    found: Transcripts = {}
    for subpath in ["", *await store.list_subkeys(key)]:
        place: Any = {**key, "subpath": subpath} if subpath else key
        found[subpath] = cast("list[Entry]", await store.load(place) or [])
    return found


@dataclass(frozen=True)
class Tally:
    """One transcript in numbers."""

    subpath: str
    entries: int
    without_uuid: int
    json_bytes: int
    kinds: Counter[str]

    @classmethod
    def of(cls, subpath: str, entries: list[Entry]) -> Tally:
        return cls(
            subpath=subpath,
            entries=len(entries),
            without_uuid=sum("uuid" not in entry for entry in entries),
            json_bytes=sum(len(json.dumps(entry)) for entry in entries),
            kinds=Counter(entry["type"] for entry in entries),
        )
