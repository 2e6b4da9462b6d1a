"""What a session's summary says, for people and for scripts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ...leases.lease import Lease
from ...stored_times import moment_of_ms
from ...text import line
from .figures import stamp

if TYPE_CHECKING:
    from ....models import SessionSummary


@dataclass(frozen=True, slots=True)
class SessionFigures:
    """A session in figures; nothing but its summary is read for them."""

    summary: SessionSummary
    now: datetime | None = None
    """The server's time when it was read; without it, nobody is known to hold the session."""

    @property
    def title(self) -> str:
        """Its title, or how it begins."""
        return self.summary.title or self.summary.first_prompt or ""

    @property
    def at(self) -> datetime | None:
        """When the main transcript changed last, where it was written."""
        return moment_of_ms(self.summary.mtime) or self.summary.active_at

    @property
    def turns(self) -> int | None:
        """Prompts of a person; ``None`` where an older release wrote last."""
        totals = self.summary.totals
        return totals.turns if totals.is_counted else None

    @property
    def calls(self) -> int | None:
        """Calls of tools."""
        totals = self.summary.totals
        return sum(row.calls for row in totals.tools) if totals.is_counted else None

    @property
    def failures(self) -> int | None:
        """Those of them that failed."""
        totals = self.summary.totals
        return sum(row.errors for row in totals.tools) if totals.is_counted else None

    @property
    def tokens(self) -> dict[str, int] | None:
        """Tokens by kind."""
        totals = self.summary.totals
        if not totals.is_counted:
            return None
        kinds = ("input", "output", "cache_creation", "cache_read")
        return {kind: sum(getattr(row, kind) for row in totals.usage) for kind in kinds}

    @property
    def cache_creation_1h(self) -> int | None:
        """Those of the tokens written to the cache that it keeps for an hour, where known."""
        return self._sum_where_known("cache_creation_1h")

    @property
    def incomplete(self) -> int | None:
        """Responses whose final count never came, where known."""
        return self._sum_where_known("incomplete")

    def _sum_where_known(self, name: str) -> int | None:
        totals = self.summary.totals
        found = [getattr(row, name) for row in totals.usage]
        return sum(found) if totals.is_counted and None not in found else None

    @property
    def all_tokens(self) -> int | None:
        """Tokens of all kinds, those read from the cache included."""
        return None if self.tokens is None else sum(self.tokens.values())

    @property
    def cost(self) -> float | None:
        """US dollars, by the agent's own account."""
        return self.summary.totals.cost_usd

    @property
    def estimated(self) -> float | None:
        """US dollars, by the prices of the tokens."""
        return self.summary.totals.estimated_usd

    @property
    def lease(self) -> Lease | None:
        """Who holds it."""
        lease = Lease.of(self.summary.lease)
        return lease if lease and self.now and lease.until > self.now else None

    def as_json(self) -> dict[str, Any]:
        """All of it, in JSON types and dates."""
        summary = self.summary
        texts = ("session_id", "project_key", "title", "first_prompt", "branch", "cwd", "tag")
        dates = ("created_at", "active_at", "expires_at", "held_at")
        return {
            **{name: getattr(summary, name) for name in texts},
            "changed_at": None if self.at is None else self.at.isoformat(),
            **{name: _iso(getattr(summary, name)) for name in dates},
            "turns": self.turns,
            "tool_calls": self.calls,
            "tool_errors": self.failures,
            "tokens": self.tokens,
            "cache_creation_1h": self.cache_creation_1h,
            "cost_usd": self.cost,
            "estimated_usd": self.estimated,
            "unpriced": self.summary.totals.estimate.unpriced,
            "incomplete": self.incomplete,
            "metadata": summary.metadata,
            "lease": lease_as_json(self.lease),
        }


def held(lease: Lease) -> str:
    """Who holds a session, in words."""
    return (
        f"held by {line(lease.owner)} since {stamp(lease.since)}, until {stamp(lease.until)} "
        "unless that is renewed"
    )


def lease_as_json(lease: Lease | None) -> dict[str, str | None] | None:
    """A lease in JSON types."""
    if lease is None:
        return None
    return {"owner": lease.owner, "since": _iso(lease.since), "until": _iso(lease.until)}


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
