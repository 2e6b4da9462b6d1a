"""Which of the summaries in a transcript are about its own conversation.

Older agents sum up a conversation in one line, by which it is listed, and name its last message
in ``leafUuid``. They write such lines into the files of other sessions too, many of them at the
top. A summary is the session's own where its leaf is an entry of the main transcript, before it
or behind it, or where it names none; the last of those counts.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import Any, NamedTuple

_MAX_PENDING = 64
_MAX_LEAF = 128


class _Asked(NamedTuple):
    """A summary of the last batch, of which it is not known yet whether it is an own one."""

    entry: Mapping[str, Any]
    leaf: str
    place: int
    text: str


class OwnSummaries:
    """Finds the last own summary of a transcript whose entries come batch after batch.

    What it remembers is bounded: only the latest summaries wait for a leaf that is still to come.
    A leaf may have come in an earlier batch; those are :attr:`asked`, and :meth:`settle` takes the
    ones that did. What comes of it is the same whichever way the entries are cut into batches.
    """

    __slots__ = ("_asked", "_count", "_found_at", "found", "waiting")

    def __init__(self, pending: Iterable[tuple[str, str]] = ()) -> None:
        self.found: str | None = None
        """The last own summary among those that were added here."""
        self.waiting = {leaf: (place, text) for place, (leaf, text) in enumerate(pending, 1)}
        """Place and text of the summaries whose leaf did not come yet, by the leaf."""
        self._count = len(self.waiting)
        self._found_at = 0
        self._asked: list[_Asked] = []

    def __len__(self) -> int:
        return len(self.waiting)

    @property
    def pending(self) -> list[tuple[str, str]]:
        """Leaves that did not come yet, each with its summary, in order."""
        return [(leaf, text) for leaf, (_, text) in self.waiting.items()]

    @property
    def asked(self) -> list[str]:
        """The leaves of the last batch's summaries that may have come before that batch."""
        return [summary.leaf for summary in self._asked]

    def begin(self) -> None:
        """A batch begins."""
        self._asked.clear()

    def add(self, entry: Mapping[str, Any], leaf: object, text: str) -> None:
        """A summary in the batch."""
        self._count += 1
        if not isinstance(leaf, str) or not leaf:
            self._take(self._count, text)
            return
        self._asked.append(_Asked(entry, leaf, self._count, text))
        if len(leaf) <= _MAX_LEAF and leaf.isascii():
            self.waiting.pop(leaf, None)
            self.waiting[leaf] = (self._count, text)
            if len(self.waiting) > _MAX_PENDING:
                del self.waiting[next(iter(self.waiting))]

    def meet(self, uuid: object) -> None:
        """An entry of the main transcript that may be a leaf."""
        if isinstance(uuid, str) and (summary := self.waiting.get(uuid)) is not None:
            self._take(*summary)

    def end(self, batch: Iterable[Mapping[str, Any]]) -> None:
        """The batch is over."""
        if not self._asked:
            return
        asked = iter(self._asked)
        summary = next(asked, None)
        before: set[str] = set()
        for entry in batch:
            if summary is not None and summary.entry is entry:
                if summary.leaf in before:
                    self._take(summary.place, summary.text)
                summary = next(asked, None)
            elif isinstance(uuid := entry.get("uuid"), str):
                before.add(uuid)
        self._asked = [summary for summary in self._asked if summary.leaf not in before]

    def settle(self, stored: Container[str]) -> None:
        """Take those of the summaries that were asked for whose leaf came before the batch."""
        for summary in self._asked:
            if summary.leaf in stored:
                self._take(summary.place, summary.text)
        self._asked.clear()

    def _take(self, place: int, text: str) -> None:
        if place > self._found_at:
            self.found, self._found_at = text, place
            # What comes before it does not count any more, wherever its leaf is.
            later = {leaf: found for leaf, found in self.waiting.items() if found[0] > place}
            self.waiting = later
