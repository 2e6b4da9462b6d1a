"""What each response of a session took, as its totals count it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...models.counting.assistant_entry import calls_in, is_copied, written_in
from ...models.counting.one_response import Response, Taken, chain_of
from ...models.counting.responses import Placed, Responses
from ...models.views.prompts import prompt_of


class ResponseLedger:
    """Tells which response an entry is of; it remembers some hundred bytes of each, no content.

    Args:
        copied_until: up to which position the main transcript is another session's history.
    """

    def __init__(self, copied_until: int = 0) -> None:
        self._copied_until = copied_until
        self._responses = Responses()
        self._apart: dict[int, Response] = {}

    def is_copy(self, entry: Mapping[str, Any], subpath: str, seq: int) -> bool:
        """Whether an entry is of another session, whose trace has it."""
        return (seq <= self._copied_until and not subpath) or is_copied(entry)

    def add(self, entry: Mapping[str, Any], subpath: str, seq: int) -> None:
        """Take in one more entry, in the order of writing."""
        kind = entry.get("type")
        if kind == "user":
            self.prompted(entry, subpath)
        elif kind == "assistant" and not self.is_copy(entry, subpath, seq):
            self.place(entry, subpath, seq)

    def prompted(self, entry: Mapping[str, Any], subpath: str) -> str | None:
        """Note the prompt of a user entry, and return it, if it is a person's."""
        text = prompt_of(entry)
        if text is not None:
            self._responses.prompted(chain_of(subpath, entry))
        return text

    def place(self, entry: Mapping[str, Any], subpath: str, seq: int) -> Placed | None:
        """The response that an assistant entry is of; ``None`` if it is of none."""
        if not isinstance(entry.get("message"), dict):
            return None
        written = written_in(entry, subpath)
        if not written.counts[0] and not calls_in(entry):
            return None
        placed = self._responses.place(written, seq)
        if written.identity is None:
            self._apart[seq] = placed.response
        return placed

    def taken(self) -> dict[int, Taken]:
        """What each response took, by the position of the entry that began it."""
        found = [*self._responses.all(), *self._apart.values()]
        return {each.first: each.taken for each in found if each.counts[0]}
