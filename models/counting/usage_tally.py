"""Tokens and cost by day and model, while they are counted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .bounded import OTHER, bytes_of
from .one_response import NOTHING, Counts, Taken

_MAX_ROWS_BYTES = 80 * 1024
# Of a row in BSON, without the name, with a share of its logged cost.
_ROW_BYTES = 235

Row = tuple[str, str]
"""Day and model."""


class UsageTally:
    """Rows of usage, no more than a summary has room for."""

    __slots__ = ("costs", "counts", "logged")

    def __init__(self) -> None:
        self.counts: dict[Row, Counts] = {}
        self.costs: dict[Row, float] = {}
        """By the agent's own accounts."""
        self.logged: dict[Row, float] = {}
        """The costs that entries of old agents say, see :attr:`Response.cost`."""

    def __len__(self) -> int:
        return len(self.counts) + len(self.costs) + len(self.logged)

    def add(self, taken: Taken, sign: int) -> None:
        """Add what a response took, or with a ``sign`` of -1 take it off again."""
        at = self._row(taken.day, taken.model)
        if taken.cost:
            self.logged[at] = self.logged.get(at, 0.0) + sign * taken.cost
            self.counts.setdefault(at, NOTHING)
        if not taken.counts[0]:
            return
        known = self.counts.get(at, NOTHING)
        counts = taken.counts
        self.counts[at] = (
            known[0] + sign * counts[0],
            known[1] + sign * counts[1],
            known[2] + sign * counts[2],
            known[3] + sign * counts[3],
            known[4] + sign * counts[4],
            known[5] + sign * counts[5],
            known[6] + sign * counts[6],
        )

    def add_cost(self, day: str, model: str, cost: float, before: float = 0.0) -> None:
        """Add to what a model cost on a day by the agent's account, in US dollars.

        ``before`` is what of it was added by then.
        """
        at = self._row(day, model)
        self.counts.setdefault(at, NOTHING)
        self.costs[at] = self.costs.get(at, 0.0) + cost - before

    def _row(self, day: str, model: str) -> Row:
        if (day, model) in self.counts:
            return day, model
        size = sum(_ROW_BYTES + bytes_of(name) for _, name in (*self.counts, (day, model)))
        return ("", OTHER) if size > _MAX_ROWS_BYTES else (day, model)

    def rows(self, logged: Mapping[Row, float]) -> list[dict[str, Any]]:
        """The form in which totals keep it, with those of the logged costs that count."""
        return [
            {
                "day": day,
                "model": model,
                "responses": counts[0],
                "input": counts[1],
                "output": counts[2],
                "cache_creation": counts[3],
                "cache_creation_1h": counts[5],
                "cache_read": counts[4],
                "incomplete": counts[0] - counts[6],
                "cost_usd": self.costs.get((day, model), 0.0) + logged.get((day, model), 0.0),
            }
            for (day, model), counts in self.counts.items()
        ]

    def logged_rows(self) -> list[list[Any]]:
        """The logged costs, each with what the agent's accounts say beside it."""
        return [[*at, cost, self.costs.get(at, 0.0)] for at, cost in self.logged.items()]

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, Any]], logged: Iterable[Sequence[Any]]) -> UsageTally:
        """The tally that :meth:`rows` and :meth:`logged_rows` were made from.

        Raises:
            KeyError: an older release made them, which did not tell so much apart.
        """
        usage = cls()
        for row in rows:
            at = (row["day"], row["model"])
            usage.counts[at] = (
                row["responses"],
                row["input"],
                row["output"],
                row["cache_creation"],
                row["cache_read"],
                row["cache_creation_1h"],
                row["responses"] - row["incomplete"],
            )
            if row["cost_usd"]:
                usage.costs[at] = row["cost_usd"]
        for day, model, cost, accounted in logged:
            usage.logged[day, model] = cost
            usage.costs[day, model] = accounted
        return usage
