"""Texts that are folded to a line."""

from __future__ import annotations

from html import escape

from ..reading.glimpses import Glimpse
from ..rendering.clamps import clamped
from ..text import plain
from .piece_markup import (
    Html,
    PieceContext,
    clamped_text,
    entry_piece,
    facts,
    folded,
    hits_shown,
    line_of,
    said_inline,
)


def folded_text(
    context: PieceContext,
    glimpse: Glimpse,
    tool: str,
    text: str,
    out: str,
    part: int,
    fact: str,
    what: str = "",
) -> Html:
    """A text as it is, below a line that says whose it is, what it is about and how long."""
    shown = clamped_text(context, glimpse.seq, clamped(plain(text)), is_whole=glimpse.is_whole)
    inside = f'<pre class="came" dir="auto" tabindex="0">{shown}</pre>' + facts(
        context, glimpse.seq, escape(fact)
    )
    return fold(
        context,
        glimpse,
        "meta",
        said_inline(tool, 80),
        said_inline(what or text),
        out,
        inside,
        text,
        part,
    )


def fold(
    context: PieceContext,
    glimpse: Glimpse,
    kind: str,
    tool: Html,
    what: Html,
    out: str,
    inside: Html,
    text: str,
    part: int,
) -> Html:
    """What unfolds, with how often what is looked for stands in it."""
    found = context.found
    told = found.marked(what) + hits_shown(context, found.count(text))
    is_open = context.is_open(glimpse.seq)
    body = folded(line_of(tool, told, escape(out)), inside, is_open=is_open)
    return entry_piece(context, glimpse.seq, kind, body, part=part)
