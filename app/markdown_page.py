"""A session as a page of Markdown.

Whatever a transcript says stays within a quotation or a fence of its own: it is parsed, without
HTML, and written anew, so that nothing in it can end what it stands in.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from markdown_it import MarkdownIt
from mdformat.renderer import MDRenderer

from .page import Output, Piece, Prose, Speaker
from .plain_text import line, plain

_SPECIAL = re.compile(r"([\\`*_{}\[\]()<>#~|&$])")
_TICKS = re.compile(r"`+")


class MarkdownPage:
    """Writes pieces as CommonMark."""

    ending = ".md"

    def __init__(self) -> None:
        # An image would be fetched, and tell its server who reads the page.
        self._parser = MarkdownIt("commonmark", {"html": False}).disable("image")

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
            return f"**{escaped(piece.title)}**\n\n{_fenced(plain(piece.text), piece.language)}"
        return f"*{escaped(piece.text)}*\n\n" if piece.text.strip() else ""

    def foot(self) -> str:
        """Nothing."""
        return ""

    def _quoted(self, text: str) -> str:
        env: dict[str, object] = {}
        # Without the newline a fence that is never closed would not be closed here either.
        tokens = self._parser.parse(text.rstrip("\n") + "\n", env)
        renderer: Any = MDRenderer()
        written: str = renderer.render(tokens, self._parser.options, env)
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
