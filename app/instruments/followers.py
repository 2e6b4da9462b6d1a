"""Who follows sessions in this process, and how far behind each of them is."""

from __future__ import annotations

from time import monotonic
from typing import Literal

Kind = Literal["watch", "feed"]
KINDS: tuple[Kind, ...] = ("watch", "feed")


class Follower:
    """A reader of what comes, counted for as long as it is entered."""

    __slots__ = ("kind", "since")

    def __init__(self, kind: Kind) -> None:
        self.kind: Kind = kind
        self.since: float | None = None
        """When what it is at came to this process, by the monotonic clock; ``None`` while it waits
        for more."""

    def __enter__(self) -> Follower:
        _followers.add(self)
        return self

    def __exit__(self, *failure: object) -> None:
        _followers.discard(self)


_followers: set[Follower] = set()


def numbers_of_followers() -> list[tuple[Kind, int]]:
    """How many there are of each kind; any thread may ask."""
    # Taken at once: the event loop's thread may add one meanwhile.
    found = [each.kind for each in tuple(_followers)]
    return [(kind, found.count(kind)) for kind in KINDS]


def longest_waits() -> list[tuple[Kind, float]]:
    """Seconds that the slowest of each kind is behind, 0 where all wait for more."""
    now = monotonic()
    longest: dict[Kind, float] = dict.fromkeys(KINDS, 0.0)
    for follower in tuple(_followers):
        since = follower.since
        if since is not None:
            longest[follower.kind] = max(longest[follower.kind], now - since)
    return list(longest.items())
