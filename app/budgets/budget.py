"""What may be spent in a period, and what was."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import date, timedelta
from hashlib import blake2b
from typing import Literal, TypeAlias, cast, get_args

from ..errors import InvalidBudgetError, InvalidQueryError
from ..pricing.token_price import BEYOND_USD
from ..queries.filters import checked_field
from ..queries.statistics import METADATA
from ..text import shown

Period: TypeAlias = Literal["day", "week", "month", "year"]
Subject: TypeAlias = str | int | float | bool
"""Whose spending it is: a project key, or a value in the metadata of sessions."""

_PROJECT = "project_key"


@dataclass(frozen=True, slots=True)
class Budget:
    """What may be spent in a period by each subject, or by all sessions of a tenant.

    ``Budget(usd=50, per="month", by="metadata.user_id")``

    Raises:
        InvalidBudgetError: it is none.
    """

    usd: float
    """US dollars, more than 0."""
    per: Period = "month"
    """A calendar day, week (from Monday), month or year, UTC."""
    by: str | None = None
    """``metadata.<field>`` or ``project_key``; ``None`` is the tenant."""

    def __post_init__(self) -> None:
        usd = self.usd
        # NaN is nowhere between.
        if type(usd) not in (int, float) or not 0 < usd < BEYOND_USD:
            raise InvalidBudgetError(
                f"usd must be a number of US dollars above 0, not {shown(usd, 40)}."
            )
        if self.per not in get_args(Period):
            raise InvalidBudgetError(
                f"per must be one of {', '.join(get_args(Period))}, not {shown(self.per)}."
            )
        by = cast("object", self.by)
        if by is None or by == _PROJECT:
            return
        if not isinstance(by, str) or not by.startswith(METADATA):
            raise InvalidBudgetError(
                f"by must be metadata.<field>, {_PROJECT} or None, not {shown(by)}."
            )
        try:
            checked_field("by", by.removeprefix(METADATA))
        except InvalidQueryError as error:
            raise InvalidBudgetError(str(error)) from None

    @property
    def field(self) -> str | None:
        """The field of metadata that says whose a session is, if one does."""
        if self.by is None or self.by == _PROJECT:
            return None
        return self.by.removeprefix(METADATA)

    def period(self, day: date) -> tuple[date, date]:
        """The first day of the period that a day is in, and the first day behind it."""
        if self.per == "day":
            return day, day + timedelta(days=1)
        if self.per == "week":
            first = day - timedelta(days=day.weekday())
            return first, first + timedelta(days=7)
        if self.per == "month":
            first = day.replace(day=1)
            return first, (first + timedelta(days=31)).replace(day=1)
        return date(day.year, 1, 1), date(day.year + 1, 1, 1)

    def checked_subject(self, subject: object) -> Subject | None:
        """Refuse what is nobody's name.

        Raises:
            InvalidBudgetError: the budget is by subject, and this is none, or the other way round.
        """
        if self.by is None:
            if subject is not None:
                raise InvalidBudgetError(
                    f"the budget is the tenant's, and of nobody else, so not of {shown(subject)}; "
                    'nothing was read. Make it Budget(..., by="metadata.user_id"), say.'
                )
            return None
        if self.by == _PROJECT and not isinstance(subject, str):
            raise InvalidBudgetError(
                f"the subject must be a project key, not {shown(subject)}; nothing was read."
            )
        if not isinstance(subject, (str, int, float, bool)):
            raise InvalidBudgetError(
                f"the subject must be a value of {self.by} (a string, number or boolean), not "
                f"{shown(subject)}; nothing was read."
            )
        return subject


@dataclass(frozen=True, slots=True)
class Spending:
    """What was spent of a budget in a period."""

    budget: Budget
    subject: Subject | None
    """Whose it is; ``None`` of a budget of the tenant."""
    since: date
    """The first day of the period, UTC."""
    until: date
    """The first day behind it."""
    usd: float
    """What counts, in US dollars: of sessions in which an agent has written its account, the
    larger of that and of the estimate; of the others the estimate. Models without a price are not
    in it."""
    own_usd: float | None
    """By the agents' own accounts; ``None`` where no agent has written any."""
    estimated_usd: float | None
    """By the prices of all tokens; ``None`` where no model has a price."""
    unpriced: tuple[str, ...]
    """Models that took tokens and have no price: more was spent than ``usd`` by them."""

    @property
    def is_passed(self) -> bool:
        """Whether the budget is used up."""
        return self.usd >= self.budget.usd

    @property
    def left_usd(self) -> float:
        """What is left, never less than 0."""
        return max(self.budget.usd - self.usd, 0.0)

    def mark(self, tenant: str) -> str:
        """Names the period, the subject and the budget, and tells none of them."""
        budget = self.budget
        kind = type(self.subject).__name__
        named = [tenant, budget.by, kind, self.subject, budget.per, str(self.since), budget.usd]
        return blake2b(json.dumps(named).encode(), digest_size=20).hexdigest()


OnPassed: TypeAlias = Callable[[Spending], Awaitable[object] | object]
"""Is called, and awaited if it returns something to await, when a budget is passed."""


def checked_budget(budget: object) -> Budget:
    """Refuse what is no budget.

    Raises:
        InvalidBudgetError: it is none.
    """
    if not isinstance(budget, Budget):
        raise InvalidBudgetError(
            f"the budget must be a Budget, such as Budget(usd=50), not {shown(budget)}."
        )
    return budget
