"""A session that comes from elsewhere, from its start: what is stored of it already is skipped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from ..concurrency.cancellation import completed
from ..database.failures import reported
from ..database.reads import confirmed
from ..errors import ContentionError, InvalidEntryError, UnreachableError
from ..instruments.operations import counted, measured
from ..reading.load import last_agent_metadata
from ..storage.codec import EncodedEntry, EncodedValue, encode_entries
from ..storage.connection import Connection
from ..storage.read_state import read_state
from ..text import shown
from ..transcript_key import TranscriptKey, checked_name
from .observers import StoredBatch
from .replay import ReplayPosition, recognise
from .sound_state import sound_state
from .write_policy import SourceTimePolicy
from .writer import Writer

# A killed run's open transaction blocks its session for up to 90 seconds where the server does not
# let others end it; one try takes 25.
_TRIES = 4


class SessionReplay:
    """Stores the transcripts of one session again, each from its start and in order.

    Unlike :meth:`BeanieSessionStore.append`, which sees one batch, it knows where a transcript
    begins, so it recognises entries without uuid that have no neighbour with one. Use one per
    session and run. See :meth:`BeanieSessionStore.replay`.
    """

    def __init__(
        self,
        connection: Connection,
        session: TranscriptKey,
        metadata: EncodedValue | None,
        mtime: int | None,
    ) -> None:
        self.added = 0
        """Entries stored so far."""
        self._connection = connection
        self._session = session
        self._writer = Writer(metadata, SourceTimePolicy(mtime))
        self._positions: dict[str, ReplayPosition] = {}
        self._free: int | None = None

    async def add(
        self, entries: Sequence[Mapping[str, Any]], subpath: str = "", *, copied: int = 0
    ) -> int:
        """Store the next entries of a transcript, all at once, and return how many were new.

        The first ``copied`` of them are the history of another session that is stored too, which
        goes on from the start of the main transcript: its usage and calls are not counted again.

        What other writers store meanwhile is never taken for a part of the transcript.

        Raises:
            InvalidKeyError: the subpath is no usable name.
            InvalidEntryError: an entry is no JSON object; nothing of the batch was stored.
            SessionStoreError: as for :meth:`BeanieSessionStore.append`.
        """
        if subpath:
            checked_name("subpath", subpath)
        key = self._session.with_subpath(subpath)
        return await completed(self._add(entries, key, copied), "append to", key)

    async def add_metadata(self, metadata: Mapping[str, Any], subpath: str) -> int:
        """Store what the agent keeps beside a subagent's transcript, unless it is the last known.

        The agent hands it to a store as an entry of type ``agent_metadata``, whose last one counts.
        """
        if not isinstance(cast("object", metadata), Mapping):
            raise InvalidEntryError(
                f"metadata must be a JSON object (dict), not {shown(metadata)}; nothing was "
                "stored. Pass what the agent keeps beside the transcript."
            )
        entry = {**metadata, "type": "agent_metadata"}
        key = self._session.with_subpath(checked_name("subpath", subpath))
        with reported(self._connection.client, "read", key):
            if await last_agent_metadata(self._connection, key) == entry:
                return 0
        return await completed(self._add_alone(key, entry), "append to", key)

    async def _add_alone(self, key: TranscriptKey, entry: Mapping[str, Any]) -> int:
        stored = await self._append(key, await encode_entries([entry]), is_fresh=True)
        return 0 if stored is None else stored.entries

    async def _add(
        self, entries: Sequence[Mapping[str, Any]], key: TranscriptKey, copied: int
    ) -> int:
        batch = await encode_entries(entries)
        for encoded in batch[:copied]:
            encoded.is_copied = True
        if not batch:
            return 0
        # To look takes a while, in which the caller may change its dicts.
        is_fresh = self._free == 1
        with measured("replay", key.session_id) as operation:
            operation.on_collection(self._connection.entries.collection)
            operation.note(entries=len(batch))
            with reported(self._connection.client, "read", key):
                missing = await self._missing(key, batch)
            counted("append.replays", len(batch) - len(missing))
            stored = await self._append(key, missing, is_fresh=is_fresh)
        if stored is None:
            return 0
        if missing[-1] is batch[-1]:
            # The transcript goes on behind what was stored now, which no later batch repeats.
            last_seq = stored.first_seq + stored.entries - 1
            self._positions[key.subpath] = ReplayPosition(last_seq, self._free)
        return stored.entries

    async def _missing(
        self, key: TranscriptKey, batch: Sequence[EncodedEntry]
    ) -> Sequence[EncodedEntry]:
        connection = self._connection
        if self._free is None:
            state = await read_state(connection, self._session)
            if state is None or not state.next_seq:
                state = await sound_state(connection, self._session)
            self._free = 1 if state is None or state.is_expired else state.next_seq
        if self._free == 1:
            return batch
        after = self._positions.get(key.subpath) or ReplayPosition(0, self._free)
        recognised = await confirmed(
            connection.client,
            connection.server,
            lambda session: recognise(connection, key, batch, after, session, until=self._free),
        )
        if recognised.last is not None:
            self._positions[key.subpath] = ReplayPosition(recognised.last, self._free)
        return [entry for entry, stored in zip(batch, recognised.stored, strict=True) if not stored]

    async def _append(
        self, key: TranscriptKey, batch: Sequence[EncodedEntry], *, is_fresh: bool
    ) -> StoredBatch | None:
        if not batch:
            return None
        left = _TRIES
        while True:
            left -= 1
            try:
                with reported(self._connection.client, "append to", key):
                    stored = await self._writer.append(
                        self._connection, key, batch, is_fresh=is_fresh
                    )
            except (UnreachableError, ContentionError):
                is_fresh = False
                # An election may just be over.
                if not left:
                    raise
            else:
                self.added += 0 if stored is None else stored.entries
                return stored
