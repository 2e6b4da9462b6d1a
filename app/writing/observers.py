"""Telling a team's own code what was appended, once it is committed."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import NamedTuple

from ..errors import ObserverError
from ..sdk import SessionKey
from ..text import shown
from ..transcript_key import TranscriptKey

logger = logging.getLogger("beanie_session_store.writing")


@dataclass(frozen=True, slots=True)
class CommittedAppend:
    """Entries that were stored together, whole and for good."""

    tenant: str
    project_key: str
    session_id: str
    subpath: str
    """The transcript: ``""`` for the main one."""
    first_seq: int
    """The position of the first of the entries within the session."""
    entries: int
    """How many they are; those that were stored before are not among them."""
    is_new_session: bool
    """Whether the session began with them."""

    @property
    def last_seq(self) -> int:
        """The position of the last of the entries."""
        return self.first_seq + self.entries - 1

    def key(self) -> SessionKey:
        """The key of the transcript; its entries are behind ``first_seq - 1``."""
        key: SessionKey = {"project_key": self.project_key, "session_id": self.session_id}
        if self.subpath:
            key["subpath"] = self.subpath
        return key


OnCommitted = Callable[[CommittedAppend], Awaitable[object] | object]
"""Is called, and awaited if it returns something to await, after each append that stored."""


class StoredBatch(NamedTuple):
    """What an append has stored."""

    first_seq: int
    entries: int
    is_new_session: bool


class Observer:
    """Calls a team's function, whose failures are its own.

    Raises:
        ObserverError: it cannot be called.
    """

    def __init__(self, function: OnCommitted) -> None:
        if not callable(function):
            raise ObserverError(
                "on_committed must be a function or coroutine function that takes a "
                f"CommittedAppend, not {shown(function)}."
            )
        self._function = function
        self._calls: set[asyncio.Task[None]] = set()

    async def tell(self, key: TranscriptKey, stored: StoredBatch) -> None:
        """Call the function and wait for it; what it raises is logged."""
        # A task of its own: were it cancelled by itself, that would else look like ours.
        call = asyncio.ensure_future(self._call(CommittedAppend(*key, *stored)))
        self._calls.add(call)
        try:
            await asyncio.wait((call,))
        finally:
            self._calls.discard(call)
            call.cancel()
        if call.cancelled():
            logger.error("The on_committed function was cancelled by itself at %s.", key)

    async def _call(self, committed: CommittedAppend) -> None:
        try:
            outcome = self._function(committed)
            if inspect.isawaitable(outcome):
                await outcome
        except Exception:
            logger.exception(
                "The on_committed function failed; the append to session %s of project %s that "
                "it was told of is stored all the same.",
                shown(committed.session_id, 80),
                shown(committed.project_key, 80),
            )

    def refuse_itself(self) -> None:
        """Refuse a call from within the function, for which the function would wait for ever.

        Raises:
            ObserverError: it is one.
        """
        if self._calls and asyncio.current_task() in self._calls:
            raise ObserverError(
                "An on_committed function awaited an append, or a change, of the store that it "
                "observes, which waits for the function; nothing was stored. Begin it in a task "
                "of its own (asyncio.create_task), or use another store."
            )
