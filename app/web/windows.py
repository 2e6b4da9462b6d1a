"""A stretch of a session as HTML: turns with their pieces, subagents in their calls."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from html import escape
from typing import Final

from ...models.views.parsing import parse_entry
from ..pricing.price_table import PriceTable
from ..reading.glimpses import Glimpse, SessionReader
from ..rendering.amounts import counted, seconds
from ..rendering.folded_calls import Told
from ..text import line
from ..transcripts.outline import LeftBehind, Outline, OutlinedSubagent, OutlinedTurn, used
from ..transcripts.subagent_origins import agent_of
from .call_pieces import AnsweredCall
from .joined_answers import JoinedAnswers, Seen
from .piece_markup import Html, PieceContext, said_inline
from .pieces import ShownEntry, TranscriptPieces
from .turn_figures import cost_of_tokens, cost_shown, tokens_of, turn_sum
from .wording import shortened

WINDOW_ENTRIES: Final = 120
WINDOW_CHARACTERS: Final = 300_000
"""A window ends behind the entry with which it comes to so much HTML."""

IN_PLACE: Final = 50
"""A subagent of no more entries is shown whole under its call."""
UNFOLDED: Final = 12
"""One of no more is unfolded there."""

AROUND: Final = 80
"""So many entries from a call its answer is looked for."""

_MAX_BELOW = 400
_MAX_BELOW_CHARACTERS = 100_000
_DEEPEST = 6


@dataclass(slots=True)
class Window:
    """A stretch of one transcript."""

    html: Html = ""
    first: int = 0
    """The position of its first entry; 0 where it is empty."""
    last: int = 0
    previous: int | None = None
    """The position before it, where there is one."""
    next: int | None = None
    """The position behind it, where there is one."""
    left_out: Counter[str] = field(default_factory=Counter[str])


@dataclass(slots=True)
class WindowMaker:
    """Makes windows of one session for one request."""

    reader: SessionReader
    context: PieceContext
    outline: Outline | None
    now: datetime
    prices: PriceTable
    _below: int = 0
    _below_characters: int = 0
    _starts: Mapping[tuple[int, str], list[str]] = field(
        default_factory=dict[tuple[int, str], list[str]]
    )

    def __post_init__(self) -> None:
        if self.outline is not None:
            self._starts = self.outline.starts()

    async def window(
        self,
        at: int,
        *,
        subpath: str = "",
        limit: int = WINDOW_ENTRIES,
        backwards: bool = False,
        shift: int = 0,
    ) -> Window:
        """The window that begins at a position; with ``backwards``, that ends there.

        ``shift`` is how many entries before the position it begins.
        """
        if backwards or shift:
            found = await self.reader.window(
                at, limit if backwards else shift, subpath=subpath, backwards=True
            )
            if found:
                at = found[0].seq
        before, found = await asyncio.gather(
            self.reader.window(at - 1, AROUND, subpath=subpath, backwards=True),
            self.reader.window(at, limit + AROUND, subpath=subpath),
        )
        shown, behind = found[:limit], found[limit:]
        return await self._made(subpath, before, shown, behind, reaches_end=not behind)

    async def _made(
        self,
        subpath: str,
        before: list[Glimpse],
        shown: list[Glimpse],
        behind: list[Glimpse],
        *,
        reaches_end: bool,
    ) -> Window:
        pieces, seen = await self.pieces_of(subpath, before, shown, behind, reaches_end, depth=0)
        # What takes long to render holds up nobody else.
        return await asyncio.to_thread(self._rendered, subpath, before, behind, pieces, seen)

    def _rendered(
        self,
        subpath: str,
        before: Sequence[Glimpse],
        behind: Sequence[Glimpse],
        pieces: TranscriptPieces,
        seen: Sequence[Seen],
    ) -> Window:
        made = Window(previous=before[-1].seq if before else None)
        turns = _Turns(self, subpath, numbered_from=0 if before else 1)
        size = 0
        for place, (glimpse, view) in enumerate(seen):
            entry = pieces.of(glimpse, view)
            size += len(entry.html)
            turns.add(entry)
            made.last = glimpse.seq
            if size > WINDOW_CHARACTERS and place + 1 < len(seen):
                made.next = seen[place + 1][0].seq
                break
        else:
            made.next = behind[0].seq if behind else None
        made.first = seen[0][0].seq if seen else 0
        made.html = turns.end()
        made.left_out = pieces.left_out
        return made

    async def pieces_of(
        self,
        subpath: str,
        before: Sequence[Glimpse],
        shown: Sequence[Glimpse],
        behind: Sequence[Glimpse],
        reaches_end: bool,
        depth: int,
    ) -> tuple[TranscriptPieces, list[Seen]]:
        """What makes pieces of a stretch, and the entries of it with their views."""
        seen = _views(shown)
        answers = JoinedAnswers(
            _views(before),
            seen,
            _views(behind),
            goes_on=self.context.goes_on and reaches_end,
            now=self.now,
        )
        pieces = TranscriptPieces(self.context, answers, is_subagent=bool(subpath))
        pieces.below = await self._agents(answers, subpath, depth + 1)
        return pieces, seen

    async def _agents(
        self, answers: JoinedAnswers, subpath: str, depth: int
    ) -> dict[tuple[int, int], tuple[Html, Sequence[Told], bool]]:
        """What stands below the calls that started subagents."""
        started: list[tuple[AnsweredCall, str]] = []
        for call in answers.calls():
            started += [(call, each) for each in self._started(call, subpath)]
        made = await asyncio.gather(*(self._agent(each, depth) for _, each in started))
        found: dict[tuple[int, int], tuple[Html, Sequence[Told], bool]] = {}
        for (call, agent), (html, is_open) in zip(started, made, strict=True):
            if html:
                known = found.get((call.seq, call.part), ("", (), False))
                told = known[1] or self._told(agent)
                found[call.seq, call.part] = (known[0] + html, told, known[2] or is_open)
        return found

    def _started(self, call: AnsweredCall, subpath: str) -> list[str]:
        answer = getattr(call.result_entry, "tool_use_result", None)
        told = agent_of(answer)
        named = f"subagents/agent-{told}" if told is not None else None
        if self.outline is None:
            return [named] if named is not None and named != subpath else []
        here = self._starts.get((call.seq, subpath), [])
        agents = self.outline.subagents
        mine = [each for each in here if each == named or agents[each].call == call.block.id]
        # The agents of a workflow are of the call that began its run, and name none.
        return mine or ([each for each in here if not agents[each].call] if named is None else [])

    async def _agent(self, subpath: str, depth: int) -> tuple[Html, bool]:
        """A subagent in place, and whether it is unfolded."""
        agent = self.outline.subagents.get(subpath) if self.outline is not None else None
        # Others are read at the same time, and are to know what there is no room for any more.
        reserved = agent.entries if agent is not None else IN_PLACE
        reserved = reserved if reserved <= IN_PLACE else UNFOLDED
        if depth > _DEEPEST or self._below + reserved > _MAX_BELOW:
            return self._agent_head(subpath, depth, [], agent, "Not shown here."), False
        self._below += reserved
        found = await self.reader.window(0, IN_PLACE + 1, subpath=subpath)
        if not found:
            self._below -= reserved
            return "", False
        is_long = len(found) > IN_PLACE
        shown, behind = (found[:UNFOLDED], found[UNFOLDED:]) if is_long else (found, [])
        self._below += len(shown) - reserved
        pieces, seen = await self.pieces_of(subpath, [], shown, behind, not is_long, depth)
        html = await asyncio.to_thread(_joined, pieces, seen)
        # What stands in another one is counted with that.
        known = self._below_characters if depth == 1 else 0
        if known + len(html) > _MAX_BELOW_CHARACTERS:
            return self._agent_head(subpath, depth, [], agent, "Not shown here."), False
        if depth == 1:
            self._below_characters += len(html)
        rest = ""
        if is_long:
            more = counted(agent.entries - len(shown), "more entry") if agent else "More entries"
            rest = more.replace("entrys", "entries") + " are not shown here."
        is_here = self.context.here is not None and any(
            each.seq == self.context.here for each in shown
        )
        return (
            self._agent_head(subpath, depth, found, agent, rest, html),
            is_here
            or len(found) <= UNFOLDED
            or any(self.context.is_open(each.seq) for each in shown),
        )

    def _agent_head(
        self,
        subpath: str,
        depth: int,
        found: Sequence[Glimpse],
        agent: OutlinedSubagent | None,
        rest: str,
        html: Html = "",
    ) -> Html:
        kind = agent.kind if agent else ""
        if not kind:
            kind = next((str(g.entry.get("agentType") or "") for g in found if g.entry), "")
        name = kind or subpath.rpartition("/")[2].removeprefix("agent-")
        address = self.context.addresses.subagent(subpath)
        ident = f"agent-{found[0].seq}" if found else ""
        said = [f"<bdi>{escape(line(agent.model, 80))}</bdi>"] if agent and agent.model else []
        if agent:
            said.append(f"entries {agent.first} to {agent.last}")
        elif found:
            said.append(f"from entry {found[0].seq}")
        if depth > 2:
            said.append(f"level {depth}")
        shown = "".join(f"<span>{each}</span>" for each in said)
        shown_name = said_inline(name, 80)
        seam = f'<a href="{address}">Show all of this subagent</a>'
        seam = f'<p class="seam"><span>{rest}</span>{seam}</p>' if rest else ""
        labelled = f' aria-labelledby="{ident}"' if ident else ""
        named = f' id="{ident}"' if ident else ""
        return (
            f'<div class="sub" role="group"{labelled}>\n<div class="sub-head">'
            f"<h3{named}>Subagent {shown_name}</h3>{shown}"
            f'<a href="{address}">On a page of its own'
            f'<span class="sr">: subagent {shown_name}</span></a></div>\n{html}{seam}</div>\n'
        )

    def _told(self, subpath: str) -> Sequence[Told]:
        """What a subagent came to."""
        agent = self.outline.subagents.get(subpath) if self.outline is not None else None
        if agent is None:
            return ()
        told = [Told(counted(agent.calls, "tool"))]
        tokens = tokens_of(used(agent))
        if tokens:
            told.append(Told(shortened(tokens)))
            cost = cost_of_tokens(used(agent), agent.at, self.prices)
            told.append(Told(cost_shown(cost), "est"))
        if agent.at and agent.ended_at:
            told.append(Told(seconds((agent.ended_at - agent.at).total_seconds())))
        return told

    def left_at(self, seq: int) -> LeftBehind | None:
        """The branch that a position of the main transcript is in."""
        return self.outline.left_at(seq) if self.outline is not None else None


class _Turns:
    """Puts the pieces of a transcript into their turns and branches."""

    def __init__(self, maker: WindowMaker, subpath: str, numbered_from: int) -> None:
        self._maker = maker
        self._subpath = subpath
        self._number = numbered_from
        self._parts: list[Html] = []
        self._closing = ""
        self._branch: LeftBehind | None = None

    def add(self, entry: ShownEntry) -> None:
        """Put an entry into its place."""
        branch = None if self._subpath else self._maker.left_at(entry.seq)
        if branch != self._branch:
            self._close()
            self._branch = branch
            if branch is not None:
                self._open(_branch_opening(self._maker, branch), "</div></details></div>\n")
        if self._branch is None and not self._subpath:
            if entry.is_prompt or (entry.is_seen and not self._closing):
                self._close()
                self._open(self._turn(entry), "</section>\n")
        elif not self._closing and entry.is_seen:
            self._open(
                '<section class="turn" aria-labelledby="agent-name">\n'
                '<h2 class="sr" id="agent-name">What it did</h2>\n',
                "</section>\n",
            )
        self._parts.append(entry.html)

    def end(self) -> Html:
        """All of it."""
        self._close()
        return "".join(self._parts)

    def _open(self, opening: Html, closing: Html) -> None:
        self._parts.append(opening)
        self._closing = closing

    def _close(self) -> None:
        self._parts.append(self._closing)
        self._closing = ""

    def _turn(self, entry: ShownEntry) -> Html:
        outline = self._maker.outline
        turn = outline.turn_at(entry.seq) if outline is not None else None
        if turn is not None:
            number: int | None = turn.number
        elif self._number:
            number = self._number if entry.is_prompt else 0
            self._number += entry.is_prompt
        else:
            number = None
        goes_on = turn is not None and turn.first != entry.seq
        return turn_opening(number, entry.seq, turn, self._maker.prices, goes_on=goes_on)


def turn_opening(
    number: int | None,
    seq: int,
    turn: OutlinedTurn | None,
    prices: PriceTable,
    *,
    goes_on: bool = False,
) -> Html:
    """What a turn begins with; ``number`` is ``None`` where it is not known, 0 before the first."""
    if number is None:
        ident, name = f"t-e{seq}", f"A turn, from entry {seq}"
    elif number == 0:
        ident, name = "t0", "Before the first turn"
    else:
        ident, name = f"t{number}", f"Turn {number}"
    if goes_on:
        ident, name = f"{ident}-e{seq}", f"{name}, continued"
    return (
        f'<section class="turn" id="{ident}" aria-labelledby="{ident}-name">\n'
        f"{turn_head(ident, name, turn, prices)}"
    )


def turn_head(ident: str, name: str, turn: OutlinedTurn | None, prices: PriceTable) -> Html:
    """What stands above a turn: its name, and what it came to."""
    sums = turn_sum(turn, prices) if turn is not None else ""
    return (
        f'<header class="turn-head" id="{ident}-head">'
        f'<h2 id="{ident}-name" tabindex="-1">{name}</h2>'
        f'<span class="sum">{sums}</span></header>\n'
    )


def _branch_opening(maker: WindowMaker, branch: LeftBehind) -> Html:
    who = escape(line(maker.context.who or "Somebody", 80))
    turns = counted(branch.turns, "turn") if branch.turns else "the rest of a turn"
    here = maker.context.here
    is_open = here is not None and branch.first <= here < branch.until
    return (
        f'<div class="branch" id="b{branch.first}"><details{" open" if is_open else ""}>\n'
        f'<summary class="fold"><span><strong><bdi>{who}</bdi> went back to here.</strong> '
        f"Left behind: {turns}, {counted(branch.messages, 'message')} "
        f"(entries {branch.first} to {branch.last}). Not part of what follows.</span></summary>\n"
        '<div class="inside">\n'
    )


def _joined(pieces: TranscriptPieces, seen: Sequence[Seen]) -> Html:
    return "".join(pieces.of(glimpse, view).html for glimpse, view in seen)


def _views(glimpses: Sequence[Glimpse]) -> list[Seen]:
    return [(glimpse, parse_entry(glimpse.entry)) for glimpse in glimpses]
