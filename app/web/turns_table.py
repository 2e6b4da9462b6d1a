"""The table of turns beside a session."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from ..transcripts.outline import OutlinedSubagent, OutlinedTurn, used
from .costs import Cost
from .session_view import SessionQuery, SessionView
from .turn_figures import cost_of_tokens, tokens_of
from .windows import Window

TURNS_AT_ONCE: Final = 200
_MAX_AGENTS = 100


@dataclass(frozen=True, slots=True)
class TurnRow:
    """A row of the table of turns."""

    turn: OutlinedTurn
    href: str
    tokens: int
    cost: Cost
    agents: Sequence[tuple[OutlinedSubagent, str]]
    more_agents: int
    """Subagents that there is no room for."""
    is_here: bool
    is_left: bool


def turns_shown(view: SessionView, asked: SessionQuery, window: Window) -> dict[str, Any] | None:
    """The table of turns, as much of it as is shown; ``None`` while they are being counted."""
    outline, links, key = view.outline, view.viewer.links, view.key
    if outline is None:
        return None
    turns = [turn for turn in outline.turns if turn.number]
    here = outline.turn_at(window.first) if window.first and not asked.subpath else None
    start = asked.turns_from or 1
    if asked.turns_from is None and here is not None and len(turns) > TURNS_AT_ONCE:
        start = (max(here.number, 1) - 1) // 100 * 100 + 1
    start = min(max(start, 1), max(len(turns), 1))
    agents: dict[int, list[tuple[OutlinedSubagent, str]]] = {}
    for subpath, agent in outline.subagents.items():
        above = outline.above(subpath)
        turn = outline.turn_at(above) if above is not None else None
        if turn is not None:
            place = links.entry(key, agent.first)
            agents.setdefault(turn.number, []).append((agent, place))
    room = _MAX_AGENTS
    rows: list[TurnRow] = []
    for turn in turns[start - 1 : start - 1 + TURNS_AT_ONCE]:
        started = agents.get(turn.number, [])
        rows.append(
            TurnRow(
                turn,
                _turn_href(view, turn, window),
                tokens_of(used(turn)),
                cost_of_tokens(used(turn), turn.at, view.viewer.store.prices),
                started[:room],
                len(started[room:]),
                turn is here,
                outline.left_at(turn.first) is not None,
            )
        )
        room -= len(started[:room])
    hundreds = range(1, len(turns) + 1, 100) if len(turns) > TURNS_AT_ONCE else ()
    return {
        "rows": rows,
        "count": len(turns),
        "agents": len(outline.subagents),
        "groups": [
            (each, min(each + 99, len(turns)), links.session(key, [("turns", each)]))
            for each in hundreds
        ],
        "compactions": {
            turn.number: each
            for each in outline.compactions
            if (turn := outline.turn_at(each.seq)) is not None
        },
    }


def _turn_href(view: SessionView, turn: OutlinedTurn, window: Window) -> str:
    is_loaded = window.first <= turn.first <= window.last
    if is_loaded:
        return f"#t{turn.number}"
    return view.viewer.links.session(view.key, [("at", f"t{turn.number}")], at=f"t{turn.number}")
