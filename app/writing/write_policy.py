"""What of an append depends on where its entries come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from ..database.driver import ClientSession
from ..storage.codec import EncodedEntry
from ..storage.connection import Connection
from ..transcript_key import TranscriptKey
from .summary_update import SummaryUpdate


class WritePolicy:
    """How a writer stores its batches: as it is for what an agent writes now.

    Each try to store a batch asks for it anew, for what an earlier one did was rolled back.
    """

    shares_commits = True
    """Whether its batches may be stored in one transaction with those of other sessions."""

    others_repeat_too = False
    """Whether what other writers store meanwhile is taken for a part of the same replay."""

    fence: Mapping[str, Any] = MappingProxyType({})
    """What the summary of a session must meet for anything to be written to it; that is looked at
    where it is claimed. What is not there meets nothing."""

    async def confirm(self, connection: Connection, key: TranscriptKey) -> None:
        """Look whether the session still meets the fence, after a try that found another summary.

        An error that is raised here ends the append, or the delete.
        """

    def mtime(self, now: int, last: int | None) -> int:
        """When a session changes that changed at ``last`` before, epoch milliseconds."""
        return now if last is None else max(now, last + 1)

    def begin(
        self, connection: Connection, batch: Sequence[EncodedEntry], update: SummaryUpdate
    ) -> Connection:
        """What to store a batch with; an error that is raised here ends the append."""
        return connection

    async def stored(
        self,
        connection: Connection,
        key: TranscriptKey,
        batch: Sequence[EncodedEntry],
        update: SummaryUpdate,
        session: ClientSession | None,
    ) -> None:
        """Store what belongs to the batch, in the transaction that stored it."""


AS_IT_IS = WritePolicy()
"""The policy where nothing is said."""


class SourceTimePolicy(WritePolicy):
    """Sessions keep the time that they have where they come from."""

    # Its hooks are for a transaction of its own.
    shares_commits = False

    def __init__(self, source_mtime: int | None) -> None:
        """``source_mtime`` is in epoch milliseconds; ``None`` where it is not known."""
        self._source_mtime = source_mtime

    def mtime(self, now: int, last: int | None) -> int:
        """The time of the source, unless the session was changed since."""
        if self._source_mtime is None:
            return super().mtime(now, last)
        # A clock that was ahead, or a time in microseconds, would keep it the newest for ever.
        source = min(self._source_mtime, now)
        return source if last is None else max(last, source)
