"""A session as a row of the list."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from ...models import SessionSummary
from ..sdk import SessionKey
from ..stored_times import moment_of_ms
from ..text import line
from .costs import Cost, cost_of
from .list_filters import LIVE_SECONDS
from .responses import fragment
from .viewer import Viewer
from .wording import ago

_TELLING_PART = 8
# Agents' clocks differ by less, and what is imported is older.
_RECENT = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class SessionRow:
    """What the list says of a session."""

    summary: SessionSummary
    who: str
    """By the chosen field of metadata, empty where there is none."""
    at: datetime | None
    """When something was last written, where it was written."""
    now: datetime
    cost: Cost

    @classmethod
    def of(cls, summary: SessionSummary, who: str | None, now: datetime) -> SessionRow:
        """The row of a summary."""
        named = (summary.metadata or {}).get(who) if who is not None else None
        totals = summary.totals
        return cls(
            summary,
            "" if named is None else line(str(named)),
            _last_written(summary),
            now,
            cost_of(totals),
        )

    @property
    def anchor(self) -> str:
        """Names the row in the page, always the same."""
        return anchor_of(self.summary.key())

    @property
    def short_id(self) -> str:
        """Enough of the id for people to tell it from others."""
        return line(self.summary.session_id[:_TELLING_PART])

    @property
    def title(self) -> str:
        """Its title, or how it begins."""
        return line(self.summary.title or self.summary.first_prompt or "", None)

    @property
    def is_live(self) -> bool:
        """Whether an agent is at work in it, as far as its summary tells."""
        return is_live(self.summary, self.now)

    @property
    def activity(self) -> str:
        """How long ago something was written, where that was within the last hour."""
        if self.at is None or self.now - self.at >= timedelta(hours=1):
            return ""
        return ago(self.at, self.now)

    @property
    def is_counted(self) -> bool:
        """Whether there are figures; an older release stored none."""
        return self.summary.totals.is_counted

    @property
    def turns(self) -> int:
        """Prompts of a person."""
        return self.summary.totals.turns

    @property
    def calls(self) -> int:
        """Calls of tools."""
        return sum(row.calls for row in self.summary.totals.tools)

    @property
    def failures(self) -> int:
        """Those of them that failed."""
        return sum(row.errors for row in self.summary.totals.tools)

    @property
    def tokens(self) -> int:
        """Tokens of all kinds, those read from the cache included."""
        return sum(
            row.input + row.output + row.cache_creation + row.cache_read
            for row in self.summary.totals.usage
        )


def anchor_of(key: SessionKey) -> str:
    """The name of a session's row, which does not tell its id."""
    named = f"{len(key['project_key'])} {key['project_key']} {key['session_id']}"
    return f"s-{hashlib.sha256(named.encode('utf-8', 'replace')).hexdigest()[:16]}"


def row_html(viewer: Viewer, summary: SessionSummary, now: datetime | None = None) -> str:
    """The row as the list has it, for whoever sees it change."""
    row = SessionRow.of(summary, viewer.who, now or datetime.now(timezone.utc))
    template = "session_row.html" if viewer.access.contents else "figures_row.html"
    return fragment(viewer, template, row=row)


def is_live(summary: SessionSummary, now: datetime) -> bool:
    """Whether something was written within the last minute, and not merely imported."""
    stored, written = summary.active_at, summary.totals.last_at
    if stored is None or now - stored > timedelta(seconds=LIVE_SECONDS):
        return False
    return written is None or now - written <= _RECENT


def _last_written(summary: SessionSummary) -> datetime | None:
    """The time of the transcript, which for what was imported is not that of the store."""
    stored = summary.active_at
    said = [each for each in (moment_of_ms(summary.mtime), summary.totals.last_at) if each]
    if not said or stored is None:
        return stored or max(said, default=None)
    # No agent writes what is not stored yet, whatever its clock says.
    return min(max(said), stored)
