"""What turns and subagents took, in tokens and by the list of prices, and as bars."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from typing import Final

from ..pricing.price_list import context_of
from ..pricing.price_table import PriceTable
from ..pricing.token_price import has_tokens
from ..rendering.amounts import counted, seconds
from ..transcripts.outline import Outline, OutlinedTurn, used
from ..transcripts.tokens import Tokens
from .costs import Cost
from .wording import dollars, shortened

MOST_BARS: Final = 120
"""Of more turns than so many, several share a bar."""

_FEWEST_SLOTS = 12


def tokens_of(tokens_by_model: Mapping[str, Tokens]) -> int:
    """All tokens, those read from the cache included."""
    return sum(new_tokens(each) + each.cache_read for each in tokens_by_model.values())


def new_tokens(tokens: Tokens) -> int:
    """Tokens that were not read from the cache."""
    return tokens.input + tokens.output + tokens.cache_creation


def cost_of_tokens(
    tokens_by_model: Mapping[str, Tokens], at: datetime | None, prices: PriceTable
) -> Cost:
    """What they cost by the prices of the day of a moment."""
    day = "" if at is None else f"{at:%Y-%m-%d}"
    found = Cost()
    for model, tokens in tokens_by_model.items():
        if has_tokens(tokens):
            price = prices.price_of(model, day)
            known = (
                Cost(unknown=1)
                if price is None
                else Cost(estimated=price.of(tokens), is_estimated=True)
            )
            found += known
    return found


def cost_shown(cost: Cost) -> str:
    """An estimate in a line of text."""
    if cost.is_unknown:
        return "unknown"
    shown = dollars(cost.usd)
    return shown if shown.startswith("<") else f"\N{ALMOST EQUAL TO} {shown}"


@dataclass(frozen=True, slots=True)
class LaneBar:
    """One turn, or several, in the lanes; lengths are in per cent of the width or the lane."""

    first: int
    """The number of its first turn."""
    last: int
    x: float
    width: float
    new: float
    cached: float
    cost: float
    agents: float
    context: float
    cuts: int
    """How many compactions there were in it."""


@dataclass(frozen=True, slots=True)
class Lanes:
    """Tokens, cost and context size over the turns."""

    bars: Sequence[LaneBar]
    most_tokens: int
    most_cost: Cost
    limit: int | None
    """Tokens that the context of the model holds, where anybody knows it."""
    top_context: int


def turn_sum(turn: OutlinedTurn, prices: PriceTable) -> str:
    """What a turn came to, as HTML."""
    said: list[str] = []
    if turn.calls:
        failed = f', <span class="failed">{turn.failures} failed</span>' if turn.failures else ""
        said.append(counted(turn.calls, "tool call") + failed)
    if tokens := tokens_of(used(turn)):
        said.append(f"{shortened(tokens)} tokens")
        cost = cost_shown(cost_of_tokens(used(turn), turn.at, prices))
        said.append(f'<span class="est">{escape(cost)}</span>')
    if turn.at and turn.ended_at and turn.ended_at > turn.at:
        said.append(seconds((turn.ended_at - turn.at).total_seconds()))
    return " · ".join(said)


def lanes_of(outline: Outline, prices: PriceTable) -> Lanes | None:
    """The lanes of a session; ``None`` where there is nothing to draw."""
    turns = [turn for turn in outline.turns if turn.number]
    if not turns:
        return None
    agents = _agents_by_turn(outline)
    size = -(-len(turns) // MOST_BARS)
    groups = [turns[place : place + size] for place in range(0, len(turns), size)]
    tokens: list[tuple[int, int]] = []
    costs: list[tuple[Cost, Cost]] = []
    for group in groups:
        mine = [(used(turn), turn.at) for turn in group]
        theirs = [each for turn in group for each in agents.get(turn.number, ())]
        every = [taken for taken, _ in (*mine, *theirs)]
        tokens.append(
            (
                sum(new_tokens(each) for taken in every for each in taken.values()),
                sum(each.cache_read for taken in every for each in taken.values()),
            )
        )
        costs.append((_sum_of(mine, prices), _sum_of(theirs, prices)))
    if not any(map(sum, tokens)):
        return None
    most_tokens = max(map(sum, tokens))
    most_cost = max((one + other for one, other in costs), key=lambda cost: cost.usd)
    limit = _limit(outline)
    top_context = max([limit or 0, *(turn.context for turn in turns)])
    cuts = [turn.number for each in outline.compactions if (turn := outline.turn_at(each.seq))]
    slot = 100 / max(len(groups), _FEWEST_SLOTS)
    bars = [
        LaneBar(
            group[0].number,
            group[-1].number,
            place * slot,
            slot,
            _part(tokens[place][0], most_tokens),
            _part(tokens[place][1], most_tokens),
            _part(costs[place][0].usd, most_cost.usd),
            _part(costs[place][1].usd, most_cost.usd),
            _part(max(turn.context for turn in group), top_context),
            sum(group[0].number <= number <= group[-1].number for number in cuts),
        )
        for place, group in enumerate(groups)
    ]
    return Lanes(bars, most_tokens, most_cost, limit, top_context)


def _part(amount: float, most: float) -> float:
    return round(100 * amount / most, 2) if most else 0.0


def _sum_of(
    parts: Iterable[tuple[Mapping[str, Tokens], datetime | None]], prices: PriceTable
) -> Cost:
    return sum((cost_of_tokens(tokens, at, prices) for tokens, at in parts), Cost())


def _agents_by_turn(
    outline: Outline,
) -> dict[int, list[tuple[Mapping[str, Tokens], datetime | None]]]:
    found: dict[int, list[tuple[Mapping[str, Tokens], datetime | None]]] = {}
    for subpath, agent in outline.subagents.items():
        above = outline.above(subpath)
        turn = outline.turn_at(above) if above is not None else None
        if turn is not None:
            found.setdefault(turn.number, []).append((used(agent), agent.at))
    return found


def _limit(outline: Outline) -> int | None:
    models = [model for turn in outline.turns for model in turn.taken]
    return context_of(models[-1]) if models else None


def last_context(turns: Sequence[OutlinedTurn]) -> int:
    """How large the context was at last."""
    return next((turn.context for turn in reversed(turns) if turn.context), 0)
