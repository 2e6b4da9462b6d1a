"""How a text of the model is read as Markdown: without HTML, images and odd links.

Markdown drops words: addresses behind links, definitions of references, what is nested too deep,
cells that a table has no column for. A page shows every word, so what is rendered is compared
with what was written, block by block, and a block that lost a word is shown as it was written.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token

SCHEMES = {"http", "https", "mailto"}
_LINK = re.compile(f"({'|'.join(sorted(SCHEMES))}):", re.I)
_WORD = re.compile(r"[^\W_]+")
_DUNDER = re.compile(r"__[A-Za-z0-9_]{0,100}?[A-Za-z0-9]__(?!_)")
_RUN = re.compile(r"[*~]+")


@dataclass(frozen=True, slots=True)
class Block:
    """A part of a text that begins and ends with a line."""

    source: str
    tokens: Sequence[Token]
    """Empty of what Markdown only reads, such as the definition of a reference."""


def parser_of_texts(**options: Any) -> MarkdownIt:
    """A parser of CommonMark, with options of its own library.

    A link to anywhere else stays a text: a relative one would lead to other files of the reader's
    disk, or to another machine. So do ``2*3*4``, ``__init__`` and ``&copy;``.
    """
    parser = MarkdownIt("commonmark", {"html": False, **options})
    parser.validateLink = is_web
    # An address is shown as it was written.
    parser.normalizeLink = lambda url: url
    parser.inline.ruler.before("strikethrough", "literal", _literal)
    # An image would be fetched, and tell its server who reads the page.
    return parser.disable(["image", "entity"])


def is_web(url: str) -> bool:
    """Whether an address leads to nowhere on the reader's own machine."""
    return _LINK.match(url) is not None


def words(text: str) -> Counter[str]:
    """The words of a text, and how often each is there."""
    return Counter(_WORD.findall(text))


def blocks(parser: MarkdownIt, text: str, env: dict[str, Any]) -> Iterator[Block]:
    """The parts of a text, which together are all of its lines but empty ones."""
    lines = text.split("\n")
    # Without the newline a fence that is never closed would not be closed when written anew.
    tokens = parser.parse(text.rstrip("\n") + "\n", env)
    end = 0
    begun = 0
    for index, token in enumerate(tokens):
        if token.level or token.nesting == 1:
            continue
        first = tokens[begun].map or [end, end]
        yield from _unrendered(lines[end : first[0]])
        end = first[1]
        yield Block("\n".join(lines[first[0] : end]).strip("\n"), tokens[begun : index + 1])
        begun = index + 1
    yield from _unrendered(lines[end:])


def _unrendered(lines: Sequence[str]) -> Iterator[Block]:
    source = "\n".join(lines).strip("\n")
    if source.strip():
        yield Block(source, ())


def _literal(state: StateInline, silent: bool) -> bool:
    """Take for text what Markdown would take for emphasis in the middle of an expression."""
    found = _DUNDER.match(state.src, state.pos)
    if found is None:
        found = _RUN.match(state.src, state.pos)
        if found is None or not (
            _is_of_a_name(state.src, state.pos - 1) and _is_of_a_name(state.src, found.end())
        ):
            return False
    if not silent:
        state.pending += found.group()
    state.pos = found.end()
    return True


def _is_of_a_name(text: str, at: int) -> bool:
    # Of ASCII alone, for where words are not set apart, emphasis is in the middle of them.
    return 0 <= at < len(text) and text[at].isascii() and text[at].isalnum()
