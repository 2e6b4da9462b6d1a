"""A session in the order in which a person reads it: subagents below the calls that started them.

Nothing but which subagent belongs where is remembered, so it takes no more memory for a long
session than for a short one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from ...reading.listings import SessionListing
from ...reading.stream import StreamedEntry
from ...rendering.pieces import Piece, Pieces, Result, journals_left_out, subagent_title
from ...store import BeanieSessionStore
from ...transcripts.workflows import is_journal, run_of


@dataclass(frozen=True, slots=True)
class Heading:
    """From here on, it is a subagent's transcript."""

    text: str


Shown = tuple[int, Piece | Heading]
"""What is shown, and how deep it is below the main transcript."""


class NestedTranscripts:
    """All transcripts of a session, one piece after the other."""

    def __init__(self, store: BeanieSessionStore, session: SessionListing) -> None:
        self._store = store
        self._session = session
        self._pieces: dict[str, Pieces] = {}
        self._by_call: dict[str, list[str]] = {}
        self._by_run: dict[str, list[str]] = {}
        self._titles: dict[str, str] = {}
        self._left: dict[str, None] = {}
        self._last = ""

    async def stored(self, until: int) -> AsyncIterator[Shown]:
        """What is stored up to position ``until``.

        Raises:
            SessionStoreError: as for :meth:`BeanieSessionStore.stream`.
        """
        subpaths = sorted(await self._store.list_subkeys(self._session.subkeys_key))
        journals = [subpath for subpath in subpaths if is_journal(subpath)]
        for subpath in subpaths:
            if not is_journal(subpath):
                await self._announce(subpath)
                self._left[subpath] = None
        async for shown in self._transcript("", 0, until):
            yield shown
        # Their call is not known, or is still to come.
        for subpath in list(self._left):
            if subpath in self._left:
                async for shown in self._subagent(subpath, 1, until):
                    yield shown
        if journals:
            entries = 0
            for subpath in journals:
                async for entry in self._store.stream(self._session.key(subpath)):
                    entries += entry.seq <= until
            yield 0, journals_left_out(len(journals), entries)

    async def added(self, entry: StreamedEntry) -> AsyncIterator[Shown]:
        """What an entry adds that was written while others looked on."""
        subpath = entry.subpath
        if is_journal(subpath):
            return
        if subpath and subpath not in self._titles:
            await self._announce(subpath)
        depth = 1 if subpath else 0
        if subpath != self._last:
            self._last = subpath
            self._of(subpath).turn_to_another()
            if subpath:
                yield depth, Heading(self._titles[subpath])
        for piece in self._of(subpath).of(entry):
            yield depth, piece

    async def _transcript(self, subpath: str, depth: int, until: int) -> AsyncIterator[Shown]:
        pieces = self._of(subpath)
        async for entry in self._store.stream(self._session.key(subpath)):
            if entry.seq > until:
                break
            for piece in pieces.of(entry):
                for started in self._started(piece):
                    # One of them may have started another, which is below it then.
                    if started not in self._left:
                        continue
                    async for shown in self._subagent(started, depth + 1, until):
                        yield shown
                yield depth, piece
        for piece in pieces.rest():
            yield depth, piece

    async def _subagent(self, subpath: str, depth: int, until: int) -> AsyncIterator[Shown]:
        # Taken out before it is read, so that nobody comes below itself.
        del self._left[subpath]
        yield depth, Heading(self._titles[subpath])
        async for shown in self._transcript(subpath, depth, until):
            yield shown

    def _started(self, piece: Piece) -> Sequence[str]:
        """The subagents that belong above a result, for its call started them."""
        if not isinstance(piece, Result):
            return ()
        # Taken out, for where ids are not unique each result would go over all of them again.
        named = self._by_call.pop(piece.call_id or "", [])
        ran = self._by_run.pop(piece.run or "", [])
        told = f"subagents/agent-{piece.agent_id}"
        return [subpath for subpath in dict.fromkeys((*named, told, *ran)) if subpath in self._left]

    async def _announce(self, subpath: str) -> None:
        metadata = await self._store.agent_metadata(self._session.key(subpath)) or {}
        self._titles[subpath] = subagent_title(subpath, metadata)
        call = metadata.get("toolUseId")
        if isinstance(call, str):
            self._by_call.setdefault(call, []).append(subpath)
        if (run := run_of(subpath)) is not None:
            self._by_run.setdefault(run, []).append(subpath)

    def _of(self, subpath: str) -> Pieces:
        return self._pieces.setdefault(subpath, Pieces(is_subagent=bool(subpath)))
