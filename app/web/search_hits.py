"""Where something was said: what full-text search found, with the words around it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from ...models.views.messages import UserEntry
from ..queries.search import SearchHit
from ..text import plain
from .list_filters import ListFilters
from .session_rows import SessionRow
from .viewer import Viewer

MOST_HITS = 50
"""Hits that are shown."""

_BEFORE, _AFTER = 80, 240
# Longer texts are not looked through to the end, only for where to cut.
_LOOKED_THROUGH = 1_000_000


@dataclass(frozen=True, slots=True)
class Excerpt:
    """Some words, and which of them were looked for."""

    parts: Sequence[tuple[str, bool]]


@dataclass(frozen=True, slots=True)
class Hit:
    """An entry that says what was looked for."""

    session: SessionRow
    seq: int
    by: str
    at: datetime | None
    excerpt: Excerpt


async def hits_of(viewer: Viewer, wanted: ListFilters, now: datetime) -> tuple[list[Hit], bool]:
    """The best hits in sessions that meet the other conditions, and whether there may be more.

    Raises:
        SchemaOutdatedError: there is no index for it.
    """
    store = viewer.store
    found = await store.search(wanted.q, project_key=wanted.project or None, limit=4 * MOST_HITS)
    ids = {"session_id": {"$in": sorted({hit.session_id for hit in found})}}
    page = await store.sessions(ids, *wanted.criteria(), **wanted.arguments(now), limit=1000)
    sessions = {
        (each.project_key, each.session_id): SessionRow.of(each, viewer.who, now)
        for each in page.sessions
    }
    words = looked_for(wanted.q)
    hits = [
        _hit(hit, sessions[hit.project_key, hit.session_id], words)
        for hit in found
        if (hit.project_key, hit.session_id) in sessions
    ]
    return hits[:MOST_HITS], len(hits) > MOST_HITS or len(found) == 4 * MOST_HITS


def looked_for(text: str) -> list[str]:
    """The words that search looks for, without those that must not occur."""
    return re.findall(r"\w+", re.sub(r"(?<!\S)-\S+", " ", text))


def excerpt(text: str, words: Sequence[str]) -> Excerpt:
    """The words around the first that was looked for, in one line."""
    text = text[:_LOOKED_THROUGH]
    # Whole words are found, in upper or lower case; the longest first.
    wanted = "|".join(map(re.escape, sorted(words, key=len, reverse=True)))
    pattern = re.compile(rf"(?<!\w)(?:{wanted})(?!\w)", re.IGNORECASE) if words else None
    first = pattern.search(text) if pattern else None
    begin = max((first.start() if first else 0) - _BEFORE, 0)
    shown = text[begin : begin + _BEFORE + _AFTER]
    parts: list[tuple[str, bool]] = []
    at = 0
    for match in pattern.finditer(shown) if pattern else ():
        parts += [(shown[at : match.start()], False), (match[0], True)]
        at = match.end()
    parts.append((shown[at:], False))
    if begin:
        parts.insert(0, ("… ", False))
    if begin + len(shown) < len(text):
        parts.append((" …", False))
    return Excerpt([(_in_line(part), marked) for part, marked in parts if part])


def _in_line(text: str) -> str:
    return re.sub(r"\s+", " ", plain(text))


def _hit(found: SearchHit, session: SessionRow, words: Sequence[str]) -> Hit:
    entry = found.parsed
    if found.subpath:
        by = f"subagent {found.subpath.rpartition('/')[2].removeprefix('agent-')}"
    elif not isinstance(entry, UserEntry):
        by = "answer"
    else:
        by = "prompt" if entry.is_prompt else "added by the agent"
    return Hit(session, found.seq, by, entry.timestamp, excerpt(entry.text, words))
