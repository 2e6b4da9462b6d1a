"""How much a run measures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum


class Size(Enum):
    """Seconds, minutes, or as long as it takes."""

    QUICK = "quick"
    DEFAULT = "default"
    FULL = "full"


@dataclass(frozen=True)
class Plan:
    """The size of a run, and where its progress is told."""

    size: Size
    say: Callable[[str], None]

    def pick(self, quick: int, default: int, full: int | None = None) -> int:
        """The number for this size; a full run is as large as the default one unless said."""
        if self.size is Size.QUICK:
            return quick
        return default if self.size is Size.DEFAULT or full is None else full
