"""What was spent of a budget, from summaries alone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any

from ..database.reads import retried
from ..pricing.estimates import estimate
from ..pricing.price_list import price_list_read
from ..pricing.price_table import PriceTable
from ..queries.filters import SessionFilter
from ..queries.statistics import HAS_ACCOUNT, Days, count_of, number_of, sum_of
from ..storage.connection import Connection
from .budget import Budget, Spending, Subject

_LIMIT_MS = 2_000
"""Whoever asks has a turn to begin, so the server ends what takes longer."""

_TOKENS = ("input", "output", "cache_creation", "cache_creation_1h", "cache_read")


@dataclass(frozen=True, slots=True)
class _Spent:
    """What one model took on one day in sessions with an account, or in those without."""

    day: str
    model: str
    has_account: bool
    own_usd: float
    input: int
    output: int
    cache_creation: int
    cache_creation_1h: int
    cache_read: int


async def spending(
    connection: Connection,
    tenant: str,
    budget: Budget,
    subject: Subject | None,
    today: date,
    prices: PriceTable,
) -> Spending:
    """What a subject has spent in the period that a day is in."""
    await price_list_read()
    since, until = budget.period(today)
    rows = await _spent(connection, tenant, _sessions(budget, subject, since), Days(since, until))
    accounted = [row for row in rows if row.has_account]
    rest = [row for row in rows if not row.has_account]
    own = sum(row.own_usd for row in accounted) if accounted else None
    whole = estimate(rows, prices)
    return Spending(
        budget,
        subject,
        since,
        until,
        max(own or 0.0, estimate(accounted, prices).usd or 0.0) + (estimate(rest, prices).usd or 0),
        own,
        whole.usd,
        whole.unpriced,
    )


def _sessions(budget: Budget, subject: Subject | None, since: date) -> SessionFilter:
    active = Days(since).active_since
    if budget.field is not None:
        return SessionFilter(metadata={budget.field: subject}, since=active)
    project = None if budget.by is None else str(subject)
    return SessionFilter(project_key=project, since=active)


async def _spent(
    connection: Connection, tenant: str, wanted: SessionFilter, days: Days
) -> list[_Spent]:
    usage = "$totals.usage"
    pipeline: list[dict[str, Any]] = [
        # For the order there is an index, and so it is taken, which has no other sessions.
        {"$sort": {"active_at": -1}},
        # The rest of a summary may be large.
        {"$project": {"totals.usage": 1, "totals.cost_usd": 1}},
        {"$unwind": usage},
        {"$match": days.rows},
        {
            "$group": {
                "_id": {"day": f"{usage}.day", "model": f"{usage}.model", "own": HAS_ACCOUNT},
                "cost_usd": sum_of(f"{usage}.cost_usd"),
                **{name: sum_of(f"{usage}.{name}") for name in _TOKENS},
            }
        },
    ]
    query = wanted.query(tenant)

    async def attempt() -> list[dict[str, Any]]:
        found = connection.summaries.find(query)
        return await found.aggregate(pipeline, maxTimeMS=_LIMIT_MS).to_list()

    return [
        _Spent(
            str(row["_id"].get("day", "")),
            str(row["_id"].get("model", "")),
            bool(row["_id"].get("own")),
            number_of(row["cost_usd"]),
            **{name: count_of(row[name]) for name in _TOKENS},
        )
        for row in await retried(connection.client, attempt)
    ]
