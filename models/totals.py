"""What a session did so far, as its summary has it."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, Field, PrivateAttr, model_validator

from ..app.pricing.estimates import DayTokens, Estimate, estimate
from ..app.pricing.price_table import PUBLIC_PRICES, PriceTable
from .mapped import Mapped, mapped

TEXTS = ("title", "first_prompt", "branch", "cwd", "tag")
"""The fields of a summary that say what the session is about."""


_SUMS = (
    *("responses", "input", "output", "cache_creation", "cache_creation_1h", "cache_read"),
    *("incomplete", "cost_usd"),
)


class UsageRow(BaseModel):
    """What one model took on one day, in tokens and US dollars."""

    day: Mapped[str] = Field(
        description='UTC, such as "2026-11-25"; "" where no entry tells the time.'
    )
    model: Mapped[str]
    responses: Mapped[int] = mapped(default=0, description="Responses of the API.")
    input: Mapped[int] = mapped(0)
    output: Mapped[int] = mapped(0)
    cache_creation: Mapped[int] = mapped(
        default=0, description="Written to the prompt cache, for however long."
    )
    cache_creation_1h: Mapped[int | None] = mapped(
        default=None,
        description="Those of them that the cache keeps for an hour, the others for five minutes; "
        "None where an older release counted, which did not tell them apart.",
    )
    cache_read: Mapped[int] = mapped(0)
    incomplete: Mapped[int | None] = mapped(
        default=None,
        description="Responses whose final count never came, such as one that was interrupted: "
        "their output is more than what is counted. None where an older release counted.",
    )
    cost_usd: Mapped[float | None] = mapped(
        default=0.0,
        description="By the agent's own account, on the day on which the agent wrote it; None "
        "where it has written none in the session.",
    )

    @property
    def tokens(self) -> DayTokens:
        """The tokens alone, to be priced."""
        return DayTokens(
            self.day,
            self.model,
            self.input,
            self.output,
            self.cache_creation,
            self.cache_creation_1h,
            self.cache_read,
        )


class ToolRow(BaseModel):
    """How often a tool was called, and how often it failed."""

    name: Mapped[str]
    calls: Mapped[int] = mapped(0)
    errors: Mapped[int] = mapped(0)


class SessionTotals(BaseModel):
    """What a session did so far, its subagents included.

    What a fork has copied from the session that it was forked from, or a resume of an older agent
    from another session, counts as entries and turns, but not as usage or calls of tools.
    """

    next_seq: Mapped[int] = mapped(
        default=0,
        description="The summary's next_seq when they were counted, 0 if they never were. Where it "
        "differs, an older release has written since; the next append or a repair counts anew.",
    )
    entries: Mapped[int] = mapped(0)
    turns: Mapped[int] = mapped(default=0, description="Prompts of a person.")
    usage: Mapped[list[UsageRow]] = mapped([])
    tools: Mapped[list[ToolRow]] = mapped([])
    cost_usd: Mapped[float | None] = mapped(
        default=None,
        description="US dollars by the agent's own account, without what a fork took over from "
        "the session that it was forked from; absent until the agent writes it.",
    )
    forked_from: Mapped[str | None] = mapped(
        default=None, description="The session that it was forked from."
    )
    carried_usd: Mapped[float | None] = mapped(
        default=None,
        description="US dollars of a fork's account that were spent in the session that it was "
        "forked from, and are not in cost_usd.",
    )
    has_source_cost: Mapped[bool] = mapped(
        default=False,
        description="Whether cost_usd also has what was spent before in the session that it was "
        "forked from, for it could not be told how much that was.",
    )
    copied_until: Mapped[int | None] = mapped(
        default=None,
        description="Up to which position the main transcript is the history of another session, "
        "which a resume of an older agent copied; told when files are imported.",
    )
    first_at: Mapped[datetime | None] = mapped(
        default=None, description="Earliest entry, by its own time."
    )
    last_at: Mapped[datetime | None] = mapped(
        default=None, description="Latest entry, by its own time."
    )

    _prices: PriceTable | None = PrivateAttr(None)

    def priced_by(self, prices: PriceTable) -> None:
        """Estimate by these prices from now on, as a store with a table of its own does."""
        self._prices = prices

    @property
    def estimate(self) -> Estimate:
        """What the tokens cost by the prices of their days, and which models have none.

        It is there while the agent runs and where it was killed, and without what the agent's own
        account has besides; docs/money.md says where either can be wrong.
        """
        if not self.is_counted:
            return Estimate(None)
        return estimate([row.tokens for row in self.usage], self._prices or PUBLIC_PRICES)

    @property
    def estimated_usd(self) -> float | None:
        """The estimate in US dollars, without models that have no price; ``None`` without any."""
        return self.estimate.usd

    @property
    def is_counted(self) -> bool:
        """Whether they were ever counted; an older release stored none, and all of it is 0 then."""
        return self.next_seq > 0

    @model_validator(mode="after")
    def _without_unknown_costs(self) -> SessionTotals:
        # They are stored as 0, to count on with.
        if self.cost_usd is None:
            for row in self.usage:
                row.cost_usd = None
        return self

    @property
    def by_model(self) -> dict[str, UsageRow]:
        """The usage of all days together, by model; ``day`` is empty."""
        found: dict[str, UsageRow] = {}
        for row in self.usage:
            known = found.get(row.model)
            if known is None:
                found[row.model] = row.model_copy(update={"day": ""})
                continue
            for name in _SUMS:
                one, other = getattr(known, name), getattr(row, name)
                setattr(known, name, None if one is None or other is None else one + other)
        return found

    @property
    def tool_calls(self) -> dict[str, int]:
        """Calls by name of the tool."""
        return {row.name: row.calls for row in self.tools}
