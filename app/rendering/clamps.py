"""How much of a long text a page shows, and what it says of the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MAX_LINES: Final = 24
MAX_CHARACTERS: Final = 4_000
"""Up to so much of a tool's output is shown whole."""

MAX_TYPED_LINES: Final = 120
MAX_TYPED_CHARACTERS: Final = 12_000
"""The same for what a person typed."""

_FIRST, _LAST = 6, 6
# Of a failure the end tells most.
_FIRST_OF_FAILURE, _LAST_OF_FAILURE = 4, 16
_MAX_LINE = 2_000


@dataclass(frozen=True, slots=True)
class Clamped:
    """A text as a page shows it."""

    first: str
    last: str = ""
    hidden_lines: int = 0
    """Lines between them."""
    hidden_characters: int = 0
    lines: int = 0
    """All lines that there are."""

    @property
    def is_whole(self) -> bool:
        """Whether nothing is hidden between."""
        return not self.hidden_lines


def clamped(
    text: str,
    *,
    of_failure: bool = False,
    max_lines: int = MAX_LINES,
    max_characters: int = MAX_CHARACTERS,
) -> Clamped:
    """The first and the last lines of a text that is long, and all of one that is not.

    A line that is very long is cut in its middle, and says so.
    """
    text = text.strip("\n")
    lines = text.split("\n")
    count = len(lines)
    if count <= max_lines and len(text) <= max_characters:
        return Clamped(text, lines=count)
    first, last = (_FIRST_OF_FAILURE, _LAST_OF_FAILURE) if of_failure else (_FIRST, _LAST)
    if count <= first + last:
        return Clamped("\n".join(map(cut_line, lines)), lines=count)
    hidden = lines[first:-last]
    return Clamped(
        "\n".join(map(cut_line, lines[:first])),
        "\n".join(map(cut_line, lines[-last:])),
        len(hidden),
        sum(map(len, hidden)) + len(hidden),
        count,
    )


def cut_line(line: str) -> str:
    """A line, without the middle of one that is very long."""
    if len(line) <= _MAX_LINE:
        return line
    half = _MAX_LINE // 2
    hidden = len(line) - 2 * half
    return (
        f"{line[:half]} … [{hidden:,} characters of this line are not shown here] … {line[-half:]}"
    )
