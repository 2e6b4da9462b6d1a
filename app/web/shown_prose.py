"""Markdown of the model on a page, as far as it is read in no time."""

from __future__ import annotations

import re

from ..rendering.clamps import clamped
from ..rendering.markup import prose
from ..text import plain
from .piece_markup import Html, PieceContext, clamped_text

# Parts of what reads Markdown go with the square of the length, of the brackets that nothing
# closes, and of a table's empty cells. A window has a hundred texts.
_MAX_CHARACTERS = 20_000
_MAX_LINES = 1_000
_MAX_OPEN_BRACKETS = 1_000
_MAX_CELLS = 5_000
_COLUMNS = re.compile(r"^[ >\t]*[|:-][|: \t-]*$", re.M)


def shown_prose(
    context: PieceContext, seq: int, text: str, *, kind: str = "prose", is_whole: bool = True
) -> Html:
    """A text of the model; of one that takes long to read as Markdown, its ends as written."""
    if is_whole and not is_slow(text):
        return f'<div class="{kind}" dir="auto">{context.found.marked(prose(text))}</div>'
    shown = clamped_text(context, seq, clamped(plain(text)), is_whole=is_whole)
    why = '<p class="notice">Shown as it was written: it is too long for Markdown here.</p>'
    return f'{why if is_whole else ""}<pre class="came" dir="auto" tabindex="0">{shown}</pre>'


def is_slow(text: str) -> bool:
    """Whether a text would take long to be read as Markdown."""
    lines = text.count("\n")
    if len(text) > _MAX_CHARACTERS or lines > _MAX_LINES:
        return True
    columns = max((each.group().count("|") for each in _COLUMNS.finditer(text)), default=0)
    return _open_brackets(text) > _MAX_OPEN_BRACKETS or columns * lines > _MAX_CELLS


def _open_brackets(text: str) -> int:
    """How many brackets nothing behind them closes."""
    count = 0
    for each in re.findall(r"[\[\]]", text):
        count = count + 1 if each == "[" else max(0, count - 1)
    return count
