"""What was worked out for one who looks, kept for a while for the next."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Kept(Generic[K, V]):
    """Values by key, those used last, as many as there is room for, and none for long.

    What was deleted meanwhile is in nobody's memory for longer than ``seconds`` after its last use.

    Args:
        seconds: how long after its last use a value is kept.
        room: how much of them is kept, as ``size`` measures it; one at least.
        size: of a value.
    """

    def __init__(self, seconds: float, room: int, size: Callable[[V], int]) -> None:
        self._seconds = seconds
        self._room = room
        self._size = size
        self._values: OrderedDict[K, V] = OrderedDict()
        self._ends: dict[K, asyncio.TimerHandle] = {}

    def get(self, key: K) -> V | None:
        """A value that is still kept, and is for as long again."""
        value = self._values.get(key)
        if value is not None:
            self.put(key, value)
        return value

    def put(self, key: K, value: V) -> None:
        """Keep a value."""
        self.drop(key)
        self._values[key] = value
        loop = asyncio.get_running_loop()
        self._ends[key] = loop.call_later(self._seconds, self.drop, key)
        while len(self._values) > 1 and sum(map(self._size, self._values.values())) > self._room:
            self.drop(next(iter(self._values)))

    def drop(self, key: K) -> None:
        """Keep it no longer."""
        self._values.pop(key, None)
        if (end := self._ends.pop(key, None)) is not None:
            end.cancel()

    def clear(self) -> None:
        """Keep none of them."""
        for key in list(self._values):
            self.drop(key)

    def __len__(self) -> int:
        return len(self._values)
