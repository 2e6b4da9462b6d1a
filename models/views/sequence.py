"""Many entries as typed views, of which only those are made that somebody looks at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, cast, overload

from .base import EntryView
from .parsing import parse_entry, view_class

V = TypeVar("V", bound=EntryView)


class EntryViews(Sequence[EntryView]):
    """The views of some entries, in order; each is made when it is first asked for, and kept.

    Args:
        entries: as they were written. They are not copied.
    """

    def __init__(self, entries: Iterable[Mapping[str, Any]]) -> None:
        self._entries = list(entries)
        self._made: list[EntryView | None] = [None] * len(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    @overload
    def __getitem__(self, index: int) -> EntryView: ...
    @overload
    def __getitem__(self, index: slice) -> list[EntryView]: ...
    def __getitem__(self, index: int | slice) -> EntryView | list[EntryView]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        view = self._made[index]
        if view is None:
            view = self._made[index] = parse_entry(self._entries[index])
        return view

    def of(self, kind: type[V]) -> Iterator[V]:
        """The views of one class, in order; no others are made."""
        return self._of(kind, range(len(self)))

    def last(self, kind: type[V]) -> V | None:
        """The last view of one class: of many kinds of entry it alone counts."""
        return next(self._of(kind, range(len(self) - 1, -1, -1)), None)

    def uuids(self) -> set[str]:
        """The uuids of all entries; no views are made."""
        found = (entry.get("uuid") for entry in self._entries)
        return {uuid for uuid in found if isinstance(uuid, str)}

    def _of(self, kind: type[V], places: range) -> Iterator[V]:
        for place in places:
            if issubclass(view_class(self._entries[place]), kind):
                yield cast("V", self[place])
