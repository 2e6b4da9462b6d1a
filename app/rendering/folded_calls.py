"""A call as its line sees it, and the parts that a line has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, cast

TIMES: Final = "\N{MULTIPLICATION SIGN}"
MINUS: Final = "\N{MINUS SIGN}"


class LinePart(NamedTuple):
    """A part of a line."""

    text: str
    is_code: bool = False


class Told(NamedTuple):
    """A part of an outcome; its tone is ``failed``, ``add``, ``del``, ``live`` or nothing."""

    text: str
    tone: str = ""


@dataclass(frozen=True, slots=True)
class FoldedCall:
    """A call and what came back, as far as a line tells of it."""

    name: str
    input: Mapping[str, Any]
    output: str = ""
    """What the model was told."""
    structured: Any = None
    """What the tool returned to the agent."""
    pictures: int = 0
    """How many pictures came back."""
    cwd: str = ""
    who: str = ""
    seconds: float | None = None
    is_whole: bool = True
    """Whether all of what came back is known here."""
    size: int = 0
    """Bytes that it takes, where it is not."""

    def text(self, *names: str) -> str:
        """The first of some arguments that is a text."""
        return next((v for n in names if isinstance(v := self.input.get(n), str) and v), "")

    def told(self, *path: str) -> Any:
        """A part of what the tool returned to the agent."""
        found: Any = self.structured
        for name in path:
            found = cast("dict[str, Any]", found).get(name) if isinstance(found, dict) else None
        return found

    def number(self, *path: str) -> int | None:
        """A part of it that is a whole number."""
        found = self.told(*path)
        return found if type(found) is int and 0 <= found < 2**53 else None

    @property
    def lines(self) -> int:
        """Lines of the output."""
        return len(self.output.rstrip("\n").split("\n")) if self.output.strip() else 0
