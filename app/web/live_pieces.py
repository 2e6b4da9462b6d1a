"""What comes to a session while one looks: new pieces, and those that are others now."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Final

from ...models.views.blocks import ToolResultBlock
from ...models.views.messages import UserEntry
from ..pricing.price_table import PriceTable
from ..reading.glimpses import Glimpse
from ..sdk import SessionKey
from ..transcripts.outline import Outline
from .joined_answers import Seen
from .piece_markup import Html
from .pieces import TranscriptPieces
from .responses import fragment
from .session_page import head_of
from .session_view import SessionView
from .viewer import Viewer
from .windows import AROUND, WindowMaker, turn_head, turn_opening

ENTRIES_AT_ONCE: Final = 100


async def live_fragments(viewer: Viewer, key: SessionKey, after: int) -> list[tuple[int, Html]]:
    """What the entries behind a position look like, by the position that each comes with.

    Each is of elements with ids, which stand for those that have the same on the page: a call comes
    again with its answer, and with what its subagents did. An element says by ``data-in`` into
    which other it belongs. The last position is that of the last entry that was read.

    Raises:
        Refused: 404, there is no such session any more.
        SessionStoreError: as for the store.
    """
    view = await SessionView.of(viewer)
    came = await view.reader.since(after, ENTRIES_AT_ONCE)
    if not came:
        return []
    maker = view.maker()
    found: dict[int, list[Html]] = {}
    async for seq, html in _changes(maker, view.outline, came):
        found.setdefault(seq, []).append(html)
    last = came[-1].seq
    figures = fragment(viewer, "session_figures.html", **head_of(view), view=view)
    found.setdefault(last, []).append(figures)
    return [(seq, "".join(parts)) for seq, parts in sorted(found.items())]


async def _changes(
    maker: WindowMaker, outline: Outline | None, came: list[Glimpse]
) -> AsyncIterator[tuple[int, Html]]:
    main = [each for each in came if not each.subpath]
    callers = _callers(outline, came)
    first = min([*(each.seq for each in main), *callers], default=None)
    if first is None:
        return
    before = await maker.reader.window(first - 1, AROUND, backwards=True)
    shown = await maker.reader.window(first, ENTRIES_AT_ONCE + AROUND)
    pieces, seen = await maker.pieces_of("", [], [*before, *shown], [], True, depth=0)
    by_seq = {glimpse.seq: (glimpse, view) for glimpse, view in seen}
    again = {**callers, **_answered(pieces, by_seq, {each.seq for each in main})}
    heads: dict[str, tuple[int, Html]] = {}
    for glimpse in main:
        if glimpse.seq not in by_seq:
            continue
        html, ident = _placed(pieces, outline, by_seq[glimpse.seq], maker.prices)
        yield glimpse.seq, html
        if outline is not None and (turn := outline.turn_at(glimpse.seq)) and turn.number:
            heads[ident] = (
                glimpse.seq,
                turn_head(ident, f"Turn {turn.number}", turn, maker.prices),
            )
    for call, seq in again.items():
        if call in by_seq and call not in {each.seq for each in main}:
            yield seq, _placed(pieces, outline, by_seq[call], maker.prices)[0]
    for seq, html in heads.values():
        yield seq, html


def _callers(outline: Outline | None, came: list[Glimpse]) -> dict[int, int]:
    """The calls whose subagents wrote something, each with the position of the last of it."""
    found: dict[int, int] = {}
    for each in came:
        above = outline.above(each.subpath) if outline is not None and each.subpath else None
        if above is not None:
            found[above] = each.seq
    return found


def _answered(pieces: TranscriptPieces, by_seq: dict[int, Seen], new: set[int]) -> dict[int, int]:
    """The calls that were answered, each with the position of its answer."""
    found: dict[int, int] = {}
    for seq in sorted(new):
        view = by_seq[seq][1] if seq in by_seq else None
        for block in view.blocks if isinstance(view, UserEntry) else ():
            if isinstance(block, ToolResultBlock):
                call = pieces.answers.call_answered_by(seq, block)
                if call is not None:
                    found[call] = seq
    return found


def _placed(
    pieces: TranscriptPieces, outline: Outline | None, seen: Seen, prices: PriceTable
) -> tuple[Html, str]:
    """The pieces of an entry, in the turn that it is of or begins, and the name of that turn."""
    glimpse, view = seen
    turn = outline.turn_at(glimpse.seq) if outline is not None else None
    ident = f"t{turn.number}" if turn is not None else ""
    begins = turn is not None and turn.first == glimpse.seq and turn.number > 0
    pieces.context = replace(pieces.context, inside="" if begins else ident)
    html = pieces.of(glimpse, view).html
    if begins and turn is not None:
        html = f"{turn_opening(turn.number, glimpse.seq, turn, prices)}{html}</section>\n"
    return html, ident
