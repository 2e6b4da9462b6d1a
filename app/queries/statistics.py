"""What agents took and did, added up over sessions; entries are not read."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone
from typing import Any

import bson

from ..database.reads import retried
from ..errors import InvalidQueryError
from ..pricing.estimates import estimate
from ..pricing.price_list import price_list_read
from ..pricing.price_table import PriceTable
from ..storage.connection import Connection
from ..text import shown
from .filters import SessionFilter, checked_field
from .sealed_queries import refuse_groups, refuse_sealed

_GROUPS = {
    "day": "$totals.usage.day",
    "model": "$totals.usage.model",
    "project_key": "$project_key",
    "branch": "$branch",
    "tag": "$tag",
}
METADATA = "metadata."
"""Begins what names a field of metadata."""
_COUNTS = (
    *("responses", "input", "output", "cache_creation", "cache_creation_1h", "cache_read"),
    "incomplete",
)
_BEYOND = 1e16
"""More than totals ever count. Other types are above or below all numbers."""

_SETS = ("sessions", "without_cost", "with_source_cost", "with_older_counts")

# A row is nothing where the agent has written no account yet, and where all of that is nothing.
_HAS_COST: dict[str, Any] = {
    "$or": [{"$ne": ["$totals.usage.cost_usd", 0]}, {"$eq": ["$totals.cost_usd", 0]}]
}


def _is_number(field: str) -> dict[str, Any]:
    return {"$and": [{"$gt": [field, -_BEYOND]}, {"$lt": [field, _BEYOND]}]}


def _sessions_where(condition: dict[str, Any]) -> dict[str, Any]:
    return {"$addToSet": {"$cond": [condition, "$_id", "$$REMOVE"]}}


HAS_ACCOUNT = _is_number("$totals.cost_usd")
"""Whether an agent has written an account of cost in a session."""
_HAS_SOURCE_COST: dict[str, Any] = {
    "$and": [
        {"$eq": ["$totals.has_source_cost", True]},
        {"$ne": ["$totals.usage.cost_usd", 0]},
    ]
}


_HAS_OLDER_COUNTS: dict[str, Any] = {
    "$and": [
        {"$gt": ["$totals.usage.responses", 0]},
        {"$not": [_is_number("$totals.usage.incomplete")]},
    ]
}


@dataclass(frozen=True, slots=True)
class UsageStatistics:
    """Tokens and cost of a group of sessions, by model or day where it was asked for."""

    group: dict[str, Any]
    """The values that make the group, by the names it was asked for with."""
    sessions: int
    responses: int
    """Responses of the API."""
    input: int
    output: int
    cache_creation: int
    cache_read: int
    cost_usd: float | None
    """US dollars, by the agents' own account; what the agent has not written yet is missing.
    ``None`` where no agent has written any."""
    without_cost: int
    """In how many of the sessions no agent has written an account of cost, for it runs yet or
    ended before: what they took is not in ``cost_usd``."""
    with_source_cost: int
    """In how many of the sessions ``cost_usd`` also has what was spent in the session that they
    were forked from, for it could not be told how much that was."""
    estimated_usd: float | None = None
    """US dollars, by the prices of each day for the tokens that are counted, whether an agent has
    accounted for them or not; without ``unpriced`` models. ``None`` where no model has a price."""
    unpriced: tuple[str, ...] = ()
    """Models that took tokens and have no price: what they cost is not in ``estimated_usd``."""
    cache_creation_1h: int = 0
    """Those of ``cache_creation`` that the cache keeps for an hour, the others for five minutes."""
    incomplete: int = 0
    """Responses whose final count never came, such as interrupted ones: ``output`` is too low."""
    with_older_counts: int = 0
    """In how many of the sessions an older release counted: all that they wrote to the cache is
    taken for written for five minutes, and none of their responses is ``incomplete``. Their next
    append, or a repair, counts them anew."""


@dataclass(frozen=True, slots=True)
class ToolStatistics:
    """How often a tool was called."""

    name: str
    sessions: int
    """In how many sessions."""
    calls: int
    errors: int

    @property
    def error_rate(self) -> float:
        """The part of the calls that failed, from 0 to 1."""
        return self.errors / self.calls if self.calls else 0.0


@dataclass(frozen=True, slots=True)
class Days:
    """A range of days, UTC; ``until`` is not in it.

    Raises:
        InvalidQueryError: a bound is no date.
    """

    since: date | None = None
    until: date | None = None

    def __post_init__(self) -> None:
        for name in ("since", "until"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, date) or isinstance(value, datetime)):
                raise InvalidQueryError(
                    f"{name} must be a datetime.date (a day, UTC) or None, not {shown(value)}; "
                    "nothing was read."
                )

    @property
    def active_since(self) -> datetime | None:
        """The earliest last activity of a session with usage on these days.

        Days are by the agents' clocks and activity by the server's, so a day is allowed between
        the two.
        """
        if self.since is None:
            return None
        midnight = datetime.combine(self.since, time(), timezone.utc)
        return midnight - timedelta(days=1) if self.since > date(1971, 1, 1) else None

    @property
    def rows(self) -> dict[str, Any]:
        """A query for usage on these days."""
        bounds: dict[str, str] = {}
        if self.since is not None:
            bounds["$gte"] = self.since.isoformat()
        if self.until is not None:
            bounds["$lt"] = self.until.isoformat()
        return {"totals.usage.day": bounds} if bounds else {}


def checked_groups(by: object) -> list[str]:
    """Refuse what usage cannot be grouped by.

    Raises:
        InvalidQueryError: it is none of them.
    """
    names: list[Any] = [by] if isinstance(by, str) or not isinstance(by, Iterable) else [*by]
    for name in names:
        if isinstance(name, str) and name.startswith(METADATA):
            checked_field("a field of metadata", name.removeprefix(METADATA))
        elif not isinstance(name, str) or name not in _GROUPS:
            raise InvalidQueryError(
                f"usage cannot be grouped by {shown(name)}; nothing was read. Use some of "
                f"{', '.join(_GROUPS)} or metadata.<field>."
            )
    return names


@dataclass(frozen=True, slots=True)
class _UsagePart:
    """Tokens of a group by one model on one day."""

    day: str
    model: str
    responses: int
    input: int
    output: int
    cache_creation: int
    cache_creation_1h: int
    cache_read: int
    incomplete: int


async def usage(
    connection: Connection,
    tenant: str,
    wanted: SessionFilter,
    days: Days,
    by: Sequence[str],
    prices: PriceTable,
) -> list[UsageStatistics]:
    """Usage by group, the most expensive first."""
    refuse_groups(connection, by)
    await price_list_read()
    groups = await _groups(connection, tenant, wanted, days, by)
    if {"day", "model"} <= {*by}:
        day, model = (f"k{list(by).index(name)}" for name in ("day", "model"))
        parts = {_key(row["_id"]): [_part_of(row, day, model)] for row in groups}
    else:
        # After them, so that what is added meanwhile has no group more often than no tokens.
        parts = await _parts(connection, tenant, wanted, days, by)
    found: list[UsageStatistics] = []
    for row in groups:
        key = _key(row["_id"])
        of_group = parts.get(key, [])
        estimated = estimate(of_group, prices)
        found.append(
            UsageStatistics(
                group={name: row["_id"].get(f"k{number}") for number, name in enumerate(by)},
                **{name: row[name] for name in _SETS},
                **{name: sum(getattr(part, name) for part in of_group) for name in _COUNTS},
                cost_usd=None if row["cost_usd"] is None else number_of(row["cost_usd"]),
                estimated_usd=estimated.usd,
                unpriced=estimated.unpriced,
            )
        )
    return found


def _key(group: dict[str, Any]) -> Hashable:
    """Tells groups apart as the server does, whatever their values are."""
    return tuple((name, _told(value)) for name, value in sorted(group.items()) if name[0] == "k")


def _told(value: object) -> Hashable:
    # To the server 1 and 1.0 are one group, and neither is true.
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value == value:
        return value
    return bson.encode({"": value})


async def _parts(
    connection: Connection, tenant: str, wanted: SessionFilter, days: Days, by: Sequence[str]
) -> dict[Hashable, list[_UsagePart]]:
    """Tokens by group, day and model, for each day has its price."""
    pipeline: list[dict[str, Any]] = [
        {"$unwind": "$totals.usage"},
        {"$match": days.rows},
        {
            "$group": {
                "_id": {**_keys(by), "day": "$totals.usage.day", "model": "$totals.usage.model"},
                **{name: sum_of(f"$totals.usage.{name}") for name in _COUNTS},
            }
        },
    ]
    found: dict[Hashable, list[_UsagePart]] = {}
    for row in await _rows(connection, tenant, wanted, pipeline):
        found.setdefault(_key(row["_id"]), []).append(_part_of(row, "day", "model"))
    return found


def _part_of(row: dict[str, Any], day: str, model: str) -> _UsagePart:
    group = row["_id"]
    counts = {name: count_of(row[name]) for name in _COUNTS}
    return _UsagePart(str(group.get(day)), str(group.get(model)), **counts)


def _keys(by: Sequence[str]) -> dict[str, Any]:
    # To the server what is missing is null where it is the only key, and else another group.
    fields = [_GROUPS.get(name, f"${name}") for name in by]
    return {f"k{number}": {"$ifNull": [field, None]} for number, field in enumerate(fields)}


async def _groups(
    connection: Connection, tenant: str, wanted: SessionFilter, days: Days, by: Sequence[str]
) -> list[dict[str, Any]]:
    """The groups with what the agents accounted for, the most expensive first."""
    pipeline: list[dict[str, Any]] = [
        {"$unwind": "$totals.usage"},
        {"$match": days.rows},
        {
            "$group": {
                "_id": _keys(by),
                "sessions": {"$addToSet": "$_id"},
                **{name: sum_of(f"$totals.usage.{name}") for name in ("cost_usd", *_COUNTS)},
                "is_known": {"$max": _HAS_COST},
                "without_cost": _sessions_where({"$not": [HAS_ACCOUNT]}),
                "with_source_cost": _sessions_where(_HAS_SOURCE_COST),
                "with_older_counts": _sessions_where(_HAS_OLDER_COUNTS),
            }
        },
        {
            "$set": {
                **{name: {"$size": f"${name}"} for name in _SETS},
                "cost_usd": {"$cond": ["$is_known", "$cost_usd", None]},
            }
        },
        {"$sort": {"cost_usd": -1, "output": -1, "_id": 1}},
    ]
    return await _rows(connection, tenant, wanted, pipeline)


async def tools(connection: Connection, tenant: str, wanted: SessionFilter) -> list[ToolStatistics]:
    """Calls by tool, the most called first."""
    pipeline: list[dict[str, Any]] = [
        {"$unwind": "$totals.tools"},
        {
            "$group": {
                "_id": "$totals.tools.name",
                "sessions": {"$sum": 1},
                "calls": sum_of("$totals.tools.calls"),
                "errors": sum_of("$totals.tools.errors"),
            }
        },
        {"$sort": {"calls": -1, "_id": 1}},
    ]
    return [
        ToolStatistics(
            str(row["_id"]), row["sessions"], count_of(row["calls"]), count_of(row["errors"])
        )
        for row in await _rows(connection, tenant, wanted, pipeline)
    ]


def sum_of(field: str) -> dict[str, Any]:
    """The sum of a field, without what is no number, or no finite one."""
    return {"$sum": {"$cond": [_is_number(field), field, 0]}}


def count_of(total: object) -> int:
    return total if isinstance(total, int) else int(number_of(total))


def number_of(total: object) -> float:
    # Of decimals the server makes one.
    return float(str(total))


async def _rows(
    connection: Connection, tenant: str, wanted: SessionFilter, pipeline: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    refuse_sealed(connection, wanted)
    limit: dict[str, Any] = {} if wanted.time_limit is None else {"maxTimeMS": wanted.time_limit}
    summaries = connection.summaries

    async def attempt() -> list[dict[str, Any]]:
        return await summaries.find(wanted.query(tenant)).aggregate(pipeline, **limit).to_list()

    return await retried(connection.client, attempt)
