"""A session that is looked at, and what an address asks for of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any, Final

from ...models import SessionSummary
from ..reading.glimpses import SessionReader
from ..sdk import SessionKey
from ..text import line
from ..transcripts.outline import Outline
from .finding import SEARCHES
from .found_words import FoundWords
from .outlines import Outlines
from .piece_markup import PieceAddresses, PieceContext
from .refusals import no_such_session
from .viewer import Viewer
from .windows import WindowMaker

SESSION_PATH: Final = "/s/{project}/{session}"

LIVE_SECONDS: Final = 60
"""So long after its last entry a session is taken for one at work."""
RUNNING_SECONDS: Final = 600
"""So long a call without an answer is taken for one that runs."""

_PLACE = re.compile(r"(t?)(\d{1,15})")

OUTLINES = Outlines()


@dataclass(frozen=True, slots=True)
class SessionView:
    """A session and who looks at it."""

    viewer: Viewer
    key: SessionKey
    summary: SessionSummary
    reader: SessionReader
    outline: Outline | None
    now: datetime

    @classmethod
    async def of(cls, viewer: Viewer, *, is_awaited: bool = False) -> SessionView:
        """The session that an address names.

        Raises:
            Refused: 404, there is no such session.
            SessionStoreError: as for the store.
        """
        key = viewer.session_key
        summary = await viewer.store.summary(key)
        if summary is None:
            raise no_such_session()
        reader = viewer.store.reader(key)
        outline = await OUTLINES.of(reader, summary, is_awaited=is_awaited)
        return cls(viewer, key, summary, reader, outline, datetime.now(timezone.utc))

    @property
    def who(self) -> str:
        """Whose session it is, where the metadata says so."""
        field, metadata = self.viewer.who, self.summary.metadata
        value = metadata.get(field) if field and metadata else None
        return value if isinstance(value, str) else ""

    @property
    def is_live(self) -> bool:
        """Whether an entry came within the last minute."""
        return self._is_active(LIVE_SECONDS)

    @property
    def goes_on(self) -> bool:
        """Whether a call without an answer may still be running."""
        return self._is_active(RUNNING_SECONDS)

    def _is_active(self, seconds: int) -> bool:
        at, told = self.summary.active_at, self.summary.totals.last_at
        # What was imported just now may have been said long ago.
        is_recent = told is None or self.now - told < timedelta(seconds=RUNNING_SECONDS)
        return at is not None and self.now - at < timedelta(seconds=seconds) and is_recent

    @property
    def title(self) -> str:
        """What the page is called."""
        return line(
            self.summary.title or self.summary.first_prompt or self.summary.session_id, None
        )

    @property
    def last(self) -> int:
        """The position of its last entry."""
        return self.summary.next_seq - 1

    def context(self, **told: Any) -> PieceContext:
        """What its pieces have in common."""
        return PieceContext(
            PieceAddresses(self.viewer.links, self.key),
            who=self.who,
            cwd=self.summary.cwd or "",
            goes_on=self.goes_on,
            **told,
        )

    def maker(self, **told: Any) -> WindowMaker:
        """Makes windows of it."""
        return WindowMaker(
            self.reader, self.context(**told), self.outline, self.now, self.viewer.store.prices
        )


@dataclass(frozen=True, slots=True)
class SessionQuery:
    """What of a session an address asks for."""

    at: int | None = None
    turn: int | None = None
    first: int | None = None
    to: int | None = None
    subpath: str = ""
    find: FoundWords = field(default_factory=lambda: FoundWords(""))
    search: str = "everything"
    hit: int | None = None
    turns_from: int | None = None

    @classmethod
    def of(cls, query: Mapping[str, str]) -> SessionQuery:
        """What a query says; what it says wrong counts as not said."""
        place = _PLACE.fullmatch(query.get("at", ""))
        number = int(place[2]) if place else None
        inside = query.get("in", "")
        search = inside if inside in SEARCHES else "everything"
        subpath = "" if inside in SEARCHES or not inside else _subpath(inside)
        return cls(
            None if place is None or place[1] else number,
            number if place and place[1] else None,
            _number(query, "from"),
            _number(query, "to"),
            subpath,
            FoundWords(query.get("find", "").strip()[:200]),
            search,
            _number(query, "hit"),
            _number(query, "turns"),
        )


def _number(query: Mapping[str, str], name: str) -> int | None:
    found = query.get(name, "")
    return int(found) if found.isascii() and found.isdigit() and len(found) <= 15 else None


def _subpath(written: str) -> str:
    try:
        written.encode()
    except UnicodeEncodeError:
        raise no_such_session() from None
    if "\0" in written or len(written) > 1_000:
        raise no_such_session()
    return written if written.startswith("subagents/") else f"subagents/{written}"
