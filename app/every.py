"""Every tenant, or every project: an object, for whatever is a string may be somebody's name."""

from __future__ import annotations

from enum import Enum
from typing import Final, Literal


class Every(Enum):
    """The type of :data:`EVERY`."""

    EVERY = "*"
    """Its value is what stored policies say."""

    def __str__(self) -> str:
        return self.value

    def __repr__(self) -> str:
        return self.name


EVERY: Final[Literal[Every.EVERY]] = Every.EVERY
"""Stands for every tenant, or every project, that has no policy of its own.

No string does, so that nobody's name and no slip of the hand can mean all of them."""
