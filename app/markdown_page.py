"""A session as a page of Markdown.

Whatever a transcript says stays within a quotation or a fence of its own: it is parsed, without
HTML, and written anew, so that nothing in it can end what it stands in.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mdformat.renderer import MDRenderer

from .page import Output, Piece, Prose, Speaker
from .plain_text import line, plain
from .prose import parser_of_texts

_SPECIAL = re.compile(r"([\\`*_{}\[\]()<>#~|&$])")
_TICKS = re.compile(r"`+")
# What the renderer leaves alone at times, so that "<<b>" would become a tag, goes past it under
# the name of characters that no text has.
_HIDDEN = {ord("<"): 0xFDD0, ord("\\"): 0xFDD1, 0xFDD0: 0xFFFD, 0xFDD1: 0xFFFD}
_SHOWN = {0xFDD0: "\\<", 0xFDD1: "\\\\"}


class MarkdownPage:
    """Writes pieces as CommonMark."""

    ending = ".md"

    def __init__(self) -> None:
        self._parser = parser_of_texts()

    def head(self, title: str, facts: Mapping[str, str]) -> str:
        """The title, and a list of facts."""
        listed = "".join(f"- {escaped(name)}: {escaped(value)}\n" for name, value in facts.items())
        return f"# {escaped(title)}\n\n{listed}\n"

    def subagent(self, title: str) -> str:
        """A heading."""
        return f"## {escaped(title)}\n\n"

    def piece(self, piece: Piece) -> str:
        """A heading, a quotation, a fence or a line."""
        if isinstance(piece, Speaker):
            at = f", {piece.at:%Y-%m-%d %H:%M:%S}" if piece.at else ""
            return f"### {escaped(piece.name + at)}\n\n"
        if isinstance(piece, Prose):
            return self._quoted(plain(piece.text))
        if isinstance(piece, Output):
            title = escaped(piece.title)
            # Without a word between them the asterisks would be a line across the page.
            head = f"**{title}**\n\n" if title else ""
            return head + _fenced(plain(piece.text), piece.language)
        return f"*{escaped(piece.text)}*\n\n" if piece.text.strip() else ""

    def foot(self) -> str:
        """Nothing."""
        return ""

    def _quoted(self, text: str) -> str:
        env: dict[str, object] = {}
        # Without the newline a fence that is never closed would not be closed here either.
        tokens = self._parser.parse(text.rstrip("\n") + "\n", env)
        for child in (child for token in tokens for child in token.children or ()):
            if child.type == "text":
                child.content = child.content.translate(_HIDDEN)
        renderer: Any = MDRenderer()
        rendered: str = renderer.render(tokens, self._parser.options, env)
        written = rendered.translate(_SHOWN)
        if not written.strip():
            return ""
        return "".join(f"> {each}".rstrip() + "\n" for each in written.rstrip().split("\n")) + "\n"


def escaped(text: str) -> str:
    """A text as one line that Markdown takes for nothing but text."""
    return _SPECIAL.sub(r"\\\1", line(text))


def _fenced(text: str, language: str) -> str:
    # Longer than any run inside, so none of those can end it.
    ticks = "`" * max([3, *(len(run) + 1 for run in _TICKS.findall(text))])
    return f"{ticks}{language}\n{text.rstrip()}\n{ticks}\n\n"
