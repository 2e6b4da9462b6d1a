"""Usage and cost as the pages show them: what agents accounted for, and estimates for the rest."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Any

from ..pricing.token_price import has_tokens
from ..queries.statistics import Days, ToolStatistics, UsageStatistics
from ..store import BeanieSessionStore
from .costs import Cost
from .figure_filters import FigureFilters
from .list_filters import LIVE_SECONDS
from .session_rows import is_live

TOO_FEW_CALLS = 20
"""Of fewer calls no error rate can be told."""

MOST_LIVE = 1000
"""So many are counted."""

_WITHOUT_ACCOUNT: dict[str, Any] = {"totals.cost_usd": {"$not": {"$type": "number"}}}


@dataclass(frozen=True, slots=True)
class UsageGroup:
    """What the sessions of a group took: of a day, a model, a project, somebody."""

    name: str
    usage: UsageStatistics
    cost: Cost

    @property
    def new_tokens(self) -> int:
        """Tokens but for those that were read from the cache."""
        return self.usage.input + self.usage.output + self.usage.cache_creation

    @property
    def tokens(self) -> int:
        """Tokens of all kinds."""
        return self.new_tokens + self.usage.cache_read


@dataclass(frozen=True, slots=True)
class UsageFigures:
    """All figures of a page."""

    total: UsageGroup
    days: Sequence[UsageGroup]
    models: Sequence[UsageGroup]
    projects: Sequence[UsageGroup]
    whose: Sequence[UsageGroup]
    tools: Sequence[ToolStatistics]
    live: int
    """Sessions that an agent is at work in now."""

    @property
    def of_known_cost(self) -> int:
        """Sessions that have a part in the sum."""
        return max(self.total.usage.sessions - self.total.cost.unknown, 0)

    @property
    def calls(self) -> int:
        """Calls of tools."""
        return sum(tool.calls for tool in self.tools)

    @property
    def failures(self) -> int:
        """Those of them that failed."""
        return sum(tool.errors for tool in self.tools)


NOTHING = UsageStatistics({}, 0, 0, 0, 0, 0, 0, None, 0, 0)


async def usage_figures(
    store: BeanieSessionStore, wanted: FigureFilters, now: datetime
) -> UsageFigures:
    """All figures of the sessions that are wanted; only summaries are read."""
    estimates = await _Estimates.of(store, wanted)
    groups = asyncio.gather(
        estimates.groups(()),
        estimates.groups("day"),
        estimates.groups("model"),
        estimates.groups("project_key"),
        estimates.groups(f"metadata.{wanted.who}") if wanted.who else _nobody(),
    )
    (total, days, models, projects, whose), tools, live = await asyncio.gather(
        groups, tools_of(store, wanted), _live(store, wanted, now)
    )
    return UsageFigures(
        total[0] if total else UsageGroup("", NOTHING, Cost()),
        sorted(days, key=lambda group: group.name),
        models,
        projects,
        whose,
        tools,
        live,
    )


async def _live(store: BeanieSessionStore, wanted: FigureFilters, now: datetime) -> int:
    since = now - timedelta(seconds=LIVE_SECONDS)
    found = await store.sessions(
        *wanted.criteria(), **wanted.sessions(), since=since, limit=MOST_LIVE, figures_only=True
    )
    return sum(is_live(session, now) for session in found.sessions)


async def usage_groups(
    store: BeanieSessionStore, wanted: FigureFilters, by: str
) -> list[UsageGroup]:
    """One table of the figures."""
    found = await (await _Estimates.of(store, wanted)).groups(by)
    return sorted(found, key=lambda group: group.name) if by == "day" else found


async def tools_of(store: BeanieSessionStore, wanted: FigureFilters) -> list[ToolStatistics]:
    """Tools of the sessions that used something on the days that are wanted."""
    days = {"$gte": wanted.since.isoformat(), "$lt": wanted.until.isoformat()}
    used: dict[str, Any] = {"totals.usage": {"$elemMatch": {"day": days}}}
    # What was imported since is of these days too, but nothing that was active before them.
    active = Days(wanted.since, wanted.until).active_since
    return await store.tools(used, *wanted.criteria(), **wanted.sessions(), since=active)


async def _nobody() -> list[UsageGroup]:
    return []


@dataclass(frozen=True, slots=True)
class _Estimates:
    """What sessions without an account cost by the prices of their tokens, by any group."""

    store: BeanieSessionStore
    wanted: FigureFilters
    unpriced: Sequence[str]
    """Models that took something in sessions without an account, and have no price."""

    @classmethod
    async def of(cls, store: BeanieSessionStore, wanted: FigureFilters) -> _Estimates:
        made = cls(store, wanted, ())
        rows = await made._usage((), _WITHOUT_ACCOUNT)
        return replace(made, unpriced=rows[0].unpriced if rows else ())

    async def groups(self, by: str | tuple[()]) -> list[UsageGroup]:
        """Groups with their cost, the most expensive first."""
        names = [by] if by else []
        found = await self._usage(names)
        # What is known of a part of a session is no estimate of it.
        priced = {"totals.usage.model": {"$nin": [*self.unpriced]}} if self.unpriced else {}
        rows = await self._usage(names, {**_WITHOUT_ACCOUNT, **priced})
        estimated = {
            _name(row, names): row.estimated_usd
            for row in rows
            if row.estimated_usd is not None and has_tokens(row)
        }
        unknown = await self._unknown(names) if self.unpriced else dict[str, int]()
        groups = [
            UsageGroup(
                name,
                row,
                Cost(
                    row.cost_usd or 0.0,
                    estimated.get(name, 0.0),
                    name in estimated,
                    unknown.get(name, 0),
                ),
            )
            for row in found
            for name in [_name(row, names)]
        ]
        return sorted(groups, key=lambda group: (-group.cost.usd, -group.tokens, group.name))

    async def _unknown(self, names: Sequence[str]) -> dict[str, int]:
        """Sessions of which neither an account nor a price of all their models is known."""
        of_models = {"totals.usage.model": {"$in": [*self.unpriced]}}
        rows = await self._usage(names, {**_WITHOUT_ACCOUNT, **of_models})
        return {_name(row, names): row.sessions for row in rows}

    async def _usage(self, by: Sequence[str], *criteria: dict[str, Any]) -> list[UsageStatistics]:
        wanted = self.wanted
        return await self.store.usage(
            *criteria,
            *wanted.criteria(),
            by=by,
            since=wanted.since,
            until=wanted.until,
            **wanted.sessions(),
        )


def _name(row: UsageStatistics, by: Iterable[str]) -> str:
    """The name of a group; values of metadata may be of any type."""
    return " ".join("" if row.group[each] is None else str(row.group[each]) for each in by)


def days_between(first: date, end: date) -> list[date]:
    """The days from the first on and before the end."""
    return [first + timedelta(days=n) for n in range((end - first).days)]
