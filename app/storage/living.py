"""Which of the stored entries are of the session that lives.

Beside them there may be remains, which are swept in the background: entries of an expired or
deleted session of the same key, and of deleted subagents. The summary tells them apart by their
positions; a new session counts on from where the old one stopped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeGuard, cast

from bson import ObjectId
from pydantic import Field

from ...models.entry import MAX_SEQ
from ...models.views.lenient import Position
from ..database.documents import Row
from ..database.driver import ClientSession
from ..transcript_key import TranscriptKey
from .connection import Connection
from .criteria import NOT_EXPIRED

MARKED = 1000
"""Of a deleted session, entries up to this position go together with its summary.

The very first one stays until the others are swept, but has a date then.

A reader that meets none behind it, and none with a date, need not look at the summary: what it
has read is of a session that lives.
"""


def removed_in(stored: object) -> list[tuple[str, int]]:
    """The deleted transcripts that a summary names: subpath, and where a new one would begin.

    What is none of that was written by something else, and is passed over.
    """
    removed: list[tuple[str, int]] = []
    for each in cast("list[object]", stored) if isinstance(stored, list) else ():
        if isinstance(each, Mapping):
            named = cast("Mapping[str, object]", each)
            subpath, before = named.get("subpath"), named.get("before")
            if isinstance(subpath, str) and is_position(before):
                removed.append((subpath, int(before)))
    return removed


def is_position(stored: object) -> TypeGuard[float]:
    """Whether something is a position, as a tool may write it back: as a float too."""
    # MongoDB, unlike Python, holds that true is no 1: what is read must be found again.
    if isinstance(stored, bool) or not isinstance(stored, (int, float)):
        return False
    return 0 < stored < MAX_SEQ and stored == int(stored)


LIVE_FIELDS: dict[str, Any] = {"first_seq": 1, "removed": 1}


class LiveRow(Row):
    """What a summary says of where its session begins."""

    id: Any = Field(default=None, alias="_id")
    first_seq: Position = 1
    removed: Any = None


@dataclass(frozen=True, slots=True)
class Live:
    """Where the entries of a living session begin."""

    id: ObjectId | None
    first_seq: int = 1
    removed: Mapping[str, int] = field(default_factory=dict[str, int])
    """Per subpath of a deleted transcript, where a new one of that name would begin."""

    @classmethod
    def of(cls, row: LiveRow) -> Live:
        """What a summary says of it."""
        removed: dict[str, int] = {}
        for subpath, before in removed_in(row.removed):
            removed[subpath] = max(removed.get(subpath, 0), before)
        return cls(row.id, row.first_seq, removed)

    def first_of(self, subpath: str) -> int:
        """Where a transcript begins."""
        return max(self.first_seq, self.removed.get(subpath, 1))

    def in_transcript(self, subpath: str) -> dict[str, Any]:
        """What the query for a transcript must say of positions, if anything."""
        first = self.first_of(subpath)
        return {"seq": {"$gte": first}} if first > 1 else {}

    def in_session(self) -> dict[str, Any]:
        """What the query for all of a session must say, if anything."""
        conditions: dict[str, Any] = {}
        if self.first_seq > 1:
            conditions["seq"] = {"$gte": self.first_seq}
        if self.removed:
            conditions["$nor"] = [
                {"subpath": subpath, "seq": {"$lt": before}}
                for subpath, before in self.removed.items()
            ]
        return conditions


async def live_of(
    connection: Connection, key: TranscriptKey, session: ClientSession | None
) -> Live | None:
    """Where the entries of a session begin; ``None`` if there is no living one."""
    row = await connection.summaries.find_one(
        key.of_session, NOT_EXPIRED, rows=LiveRow, session=session
    )
    return None if row is None else Live.of(row)
