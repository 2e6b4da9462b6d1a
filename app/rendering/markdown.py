"""A session as a page of Markdown.

Whatever a transcript says stays within a quotation or a fence of its own. A text of the model is
quoted as it was written, block by block, where any reader of Markdown would show all of its words
and nothing else; else it is written anew without HTML, or stands in a fence.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token
from mdformat.renderer import MDRenderer

from ..text import line, plain
from .pieces import Call, Output, Piece, Prose, Speaker
from .prose import Block, blocks, is_web, parser_of_texts, words

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
        # One that shows HTML, tables and links to anywhere, and takes no more than 20 levels.
        self._reader = MarkdownIt("commonmark").enable(["table", "strikethrough"])
        self._reader.validateLink = lambda url: True

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
            return self._prose(piece)
        if isinstance(piece, Output):
            title = escaped(piece.title)
            about = escaped(piece.about) if isinstance(piece, Call) else ""
            # Without a word between them the asterisks would be a line across the page.
            head = " ".join(filter(None, (f"**{title}**" if title else "", about)))
            return (f"{head}\n\n" if head else "") + _fenced(plain(piece.text), piece.language)
        text = escaped(piece.text)
        return f"*{text}*\n\n" if text else ""

    def foot(self) -> str:
        """Nothing."""
        return ""

    def _prose(self, piece: Prose) -> str:
        text = plain(piece.text).strip("\n")
        if not text.strip():
            return ""
        if piece.is_typed:
            return _quoted(text if self._is_literal(text) else _fenced(text))
        env: dict[str, Any] = {}
        written = "\n\n".join(map(self._block, blocks(self._parser, text, env)))
        # One by one they are harmless, and together too, or else none of them counts.
        return _quoted(written if self._is_whole(written, text) else _fenced(text))

    def _block(self, block: Block) -> str:
        if block.tokens and block.tokens[0].type != "code_block":
            emphasis = _emphasis(block.tokens)
            for written in (block.source, self._written_anew(block.source)):
                if self._is_whole(written, block.source, emphasis):
                    return written
        return _fenced(block.source).rstrip("\n")

    def _is_literal(self, text: str) -> bool:
        """Whether Markdown takes a text for nothing but text, and its lines for lines."""
        tokens = self._reader.parse(text)
        shown = [child for token in tokens for child in token.children or ()]
        return all(token.type.startswith(("paragraph", "inline")) for token in tokens) and (
            "\n\n".join(child.content for child in shown if child.type == "text") == text
        )

    def _is_whole(self, text: str, source: str, emphasis: int | None = None) -> bool:
        """Whether a quoted text is harmless and shows all words of its source.

        With ``emphasis``, no more than so many parts of it are emphasised.
        """
        env: dict[str, Any] = {}
        tokens = self._reader.parse(_quoted(text), env)
        return (
            [token.type for token in tokens if not token.level]
            == ["blockquote_open", "blockquote_close"]
            # They would hold for all of the page.
            and not env.get("references")
            and all(map(_is_harmless, _flat(tokens)))
            and words(source) <= _words_of(tokens)
            and (emphasis is None or _emphasis(tokens) <= emphasis)
        )

    def _written_anew(self, text: str) -> str:
        env: dict[str, object] = {}
        tokens = self._parser.parse(text + "\n", env)
        for child in _flat(tokens):
            if child.type == "text":
                child.content = child.content.translate(_HIDDEN)
        renderer: Any = MDRenderer()
        rendered: str = renderer.render(tokens, self._parser.options, env)
        return rendered.translate(_SHOWN).strip("\n")


def _flat(tokens: Sequence[Token]) -> Iterator[Token]:
    for token in tokens:
        yield token
        yield from token.children or ()


def _is_harmless(token: Token) -> bool:
    if token.type == "link_open":
        return is_web(str(token.attrs.get("href", "")))
    return token.type not in ("html_block", "html_inline", "image")


def _emphasis(tokens: Sequence[Token]) -> int:
    return sum(token.type in ("em_open", "strong_open") for token in _flat(tokens))


def _words_of(tokens: Sequence[Token]) -> Counter[str]:
    """What a reader shows of them, infos of fences and numbers of lists included."""
    shown: list[str] = []
    for token in _flat(tokens):
        if token.type != "inline":
            shown += (token.content, token.info, *map(str, token.attrs.values()))
    return words("\n".join(shown))


def _quoted(text: str) -> str:
    lines = text.rstrip("\n").split("\n")
    return "".join(f"> {each}\n" if each else ">\n" for each in lines) + "\n"


def escaped(text: str) -> str:
    """A text as one line that Markdown takes for nothing but text."""
    return _SPECIAL.sub(r"\\\1", line(text, None))


def _fenced(text: str, language: str = "") -> str:
    # Longer than any run inside, so none of those can end it.
    ticks = "`" * max([3, *(len(run) + 1 for run in _TICKS.findall(text))])
    lines = text.rstrip("\n")
    return f"{ticks}{language}\n{lines}\n{ticks}\n\n"
