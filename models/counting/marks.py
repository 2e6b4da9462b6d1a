"""What tells entries that were counted before from new ones."""

from __future__ import annotations

from typing import NamedTuple


class Mark(NamedTuple):
    """What a stored entry carries besides, so that its copies are told from new ones."""

    counted: tuple[bytes, ...]
    """Digests of what was counted with it, each of which only one entry of a session has."""
    response: int | None
    """The position of the entry that began its response, ``None`` if that is itself."""


class Wanted(NamedTuple):
    """What must be looked up where it turns out that not all that was counted is new."""

    instants: dict[bytes, set[bytes]]
    """The entries of responses that were counted, by the identity of each."""
    failures: set[bytes]
    """The digests of the failures that were counted."""
    calls: set[tuple[str, str]]
    """Failed calls that are not known, by subpath and id."""
