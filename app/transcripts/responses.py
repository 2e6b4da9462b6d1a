"""Which response of the API each entry of some transcripts is of."""

from __future__ import annotations

from collections.abc import Iterable

from ...models.counting.assistant_entry import is_copied, written_in
from ...models.counting.one_response import Response, Written, chain_of
from ...models.counting.responses import Responses
from ...models.views.messages import AssistantEntry, ConversationEntry, UserEntry


class CountedResponses:
    """The responses in some transcripts, given by subpath, each of them once.

    What was copied from another session is apart from what was made here.
    """

    def __init__(
        self,
        transcripts: Iterable[tuple[str, Iterable[ConversationEntry]]],
        copied: frozenset[int] = frozenset(),
    ) -> None:
        """``copied`` has the ids of views that are copies though they do not say so."""
        self._copied = copied
        self._ledgers = {False: Responses(), True: Responses()}
        self._placed: dict[int, tuple[Written, Response]] = {}
        seq = 0
        for subpath, entries in transcripts:
            for entry in entries:
                seq += 1
                if isinstance(entry, AssistantEntry):
                    ledger = self._ledgers[self._is_copy(entry)]
                    written = written_in(entry.raw, subpath)
                    self._placed[id(entry)] = (written, ledger.place(written, seq).response)
                elif isinstance(entry, UserEntry) and entry.is_prompt:
                    for ledger in self._ledgers.values():
                        ledger.prompted(chain_of(subpath, entry.raw))

    def of(self, entry: AssistantEntry) -> Response:
        """The response that an entry of the transcripts is of."""
        written, response = self._placed[id(entry)]
        # Two can have turned out to be one since.
        known = self._ledgers[self._is_copy(entry)].of_instant(written)
        return known if known is not None and response.instants else response

    def _is_copy(self, entry: AssistantEntry) -> bool:
        return id(entry) in self._copied or is_copied(entry.raw)

    def all(self, *, are_copied: bool = False) -> list[Response]:
        """Those that took tokens: what was made here, or what was copied."""
        ledger = self._ledgers[are_copied]
        apart = [r for w, r in self._placed.values() if w.identity is None]
        found = ledger.all() if are_copied else [*ledger.all(), *apart]
        return [response for response in found if response.counts[0]]
