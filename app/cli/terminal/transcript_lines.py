"""A transcript as lines: wrapped and coloured on a terminal, as it is in a pipe."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from rich.text import Text

from ...rendering.pieces import Call, Note, Output, Piece, Prose, Result, Speaker
from ...text import line, plain
from .figures import counted
from .tables import console
from .transcript_order import Heading

_BAR = "| "
_LEAST_WIDTH = 20
_WHOLE = 100_000

# What tells most about a call, whichever of the agent's tools it is.
_TELLING = ("command", "file_path", "path", "pattern", "url", "query", "description", "prompt")

_SPEAKERS = {"User": "bold cyan", "Assistant": "bold green"}


class TranscriptLines:
    """Prints pieces of transcripts.

    Args:
        is_full: print what tools were given and returned, and what was thought, instead of one
            line of each.
    """

    def __init__(self, *, is_full: bool) -> None:
        self._is_full = is_full
        self._console = console()
        self._call: str | None = None

    def head(self, title: str, facts: str) -> None:
        """The title of the session, and what else is known of it."""
        self._text(0, "", title, "bold")
        self._text(0, "", facts, "dim")

    def write(self, depth: int, piece: Piece | Heading) -> None:
        """One piece, so deep below the main transcript."""
        if isinstance(piece, Heading):
            self._call = None
            self._text(depth, "", f"\n{line(piece.text)}", "bold magenta")
        elif isinstance(piece, Speaker):
            at = f"  {piece.at:%Y-%m-%d %H:%M:%S}" if piece.at else ""
            self._text(depth, "", f"\n{piece.name}{at}", _SPEAKERS.get(piece.name, "bold"))
        elif isinstance(piece, Prose):
            self._text(depth, "  ", piece.text.strip("\n"), "")
        elif isinstance(piece, Note):
            self._line(depth, "  - ", piece.text, "dim italic")
        else:
            self._output(depth, piece)

    def _output(self, depth: int, piece: Output) -> None:
        if isinstance(piece, Call):
            self._call = piece.id
            shown = piece.title if self._is_full else f"{piece.title}: {_telling(piece.arguments)}"
            self._line(depth, "  > ", shown, "yellow")
            if self._is_full and piece.about:
                self._text(depth, "    ", piece.about, "dim")
        elif isinstance(piece, Result):
            # Only what stands right below its call needs no name.
            name = "" if piece.call_id == self._call else f"{piece.name}, "
            kind = "  ! " if piece.is_error else "  < "
            self._line(depth, kind, name + self._folded(piece), "red" if piece.is_error else "dim")
        else:
            self._line(depth, "  ~ ", f"{piece.title.lower()}, {self._folded(piece)}", "dim")
        if self._is_full and piece.text.strip():
            self._text(depth, "    ", piece.text.strip("\n"), "")

    def _folded(self, piece: Output) -> str:
        lines = piece.text.strip("\n").count("\n") + 1 if piece.text.strip() else 0
        count = counted(lines, "line")
        if self._is_full or not lines:
            return count
        return f"{count}: {piece.text.strip().partition(chr(10))[0]}"

    def _line(self, depth: int, indentation: str, text: str, style: str) -> None:
        """One line, cut to the width of a terminal."""
        prefix = _BAR * depth + indentation
        shown = line(text, _WHOLE)
        if not self._console.is_terminal:
            print(prefix + shown)
            return
        cut = Text.assemble((prefix, "dim"), (shown, style))
        cut.truncate(self._console.width, overflow="ellipsis")
        self._console.print(cut, soft_wrap=True)

    def _text(self, depth: int, indentation: str, text: str, style: str) -> None:
        """Any number of lines, wrapped to the width of a terminal."""
        prefix = _BAR * depth + indentation
        if not self._console.is_terminal:
            for each in plain(text).split("\n"):
                print((prefix + each).rstrip())
            return
        width = max(self._console.width - len(prefix), _LEAST_WIDTH)
        lines = Text(plain(text), style).wrap(self._console, width, tab_size=4)
        marked = [Text.assemble((prefix, "dim"), each) for each in lines]
        self._console.print(Text("\n").join(marked), soft_wrap=True)


def _telling(arguments: Mapping[str, Any]) -> str:
    for name in _TELLING:
        if isinstance(value := arguments.get(name), str):
            return value
    return json.dumps(arguments, ensure_ascii=False)
