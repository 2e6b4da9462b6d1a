"""What something cost: by the agents' own accounts, or else by the prices of its tokens."""

from __future__ import annotations

from dataclasses import dataclass

from ...models.totals import SessionTotals
from ..pricing.token_price import has_tokens


@dataclass(frozen=True, slots=True)
class Cost:
    """What something cost, and how that is known."""

    own: float = 0.0
    """US dollars by the agents' own accounts."""
    estimated: float = 0.0
    """US dollars by the prices of tokens, for those that no agent has accounted for."""
    is_estimated: bool = False
    """Whether some of it is an estimate, be it of nothing."""
    unknown: int = 0
    """Sessions of which neither is known; they are in neither sum."""

    @property
    def usd(self) -> float:
        """Both together."""
        return self.own + self.estimated

    @property
    def is_unknown(self) -> bool:
        """Whether nothing is known, so that there is no sum to show."""
        return bool(self.unknown) and not self.usd

    @property
    def is_partly_estimated(self) -> bool:
        """Whether one part is the agents' own and another an estimate."""
        return self.is_estimated and self.own != 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.own + other.own,
            self.estimated + other.estimated,
            self.is_estimated or other.is_estimated,
            self.unknown + other.unknown,
        )


def cost_of(totals: SessionTotals) -> Cost:
    """The cost of one session: the agent's own account, or else an estimate from its tokens."""
    if totals.cost_usd is not None:
        return Cost(totals.cost_usd)
    estimated = totals.estimate
    if estimated.unpriced or estimated.usd is None:
        # What is known of a part of a session is no estimate of it.
        return Cost(unknown=1)
    return Cost(
        estimated=estimated.usd, is_estimated=any(has_tokens(row.tokens) for row in totals.usage)
    )
