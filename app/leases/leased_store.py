"""The store that whoever holds the lease of a session writes with."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from ..database.failures import require_asyncio
from ..sdk import (
    SessionStore,
    SessionStoreEntry,
    SessionStoreListEntry,
    SessionSummaryEntry,
)
from ..transcript_key import AnyKey, TranscriptKey
from .held_lease import HeldLease
from .lease import Lease

Append = Callable[[TranscriptKey, Sequence[Mapping[str, Any]]], Awaitable[None]]
Delete = Callable[[TranscriptKey, bool], Awaitable[None]]


class Store(Protocol):
    """The store that a leased one comes from."""

    async def append(self, key: AnyKey, entries: Sequence[Mapping[str, Any]]) -> None: ...
    async def load(self, key: AnyKey) -> list[SessionStoreEntry] | None: ...
    async def list_sessions(self, project_key: str) -> list[SessionStoreListEntry]: ...
    async def list_session_summaries(self, project_key: str) -> list[SessionSummaryEntry]: ...
    async def delete(self, key: AnyKey, *, wait: bool = False) -> None: ...
    async def list_subkeys(self, key: AnyKey) -> list[str]: ...


class LeasedStore(SessionStore):
    """A session's store for the holder of its lease, as :meth:`BeanieSessionStore.lease` gives it.

    It is a ``SessionStore`` for the SDK. What it appends to the session or deletes of it is written
    only as long as the lease holds; other sessions, such as a fork, and all that is read it leaves
    to the store it came from.
    """

    def __init__(
        self,
        store: Store,
        session: TranscriptKey,
        held: HeldLease,
        append: Append,
        delete: Delete,
    ) -> None:
        self.store = store
        """The store it came from."""
        self._session = session
        self._held = held
        self._append = append
        self._delete = delete

    @property
    def lost(self) -> asyncio.Event:
        """Set when the lease was lost, before the end of its block: nothing is written any more."""
        return self._held.lost

    @property
    def lease(self) -> Lease:
        """The lease, as it was taken or renewed last."""
        return self._held.lease

    @property
    def owner(self) -> str:
        """Who holds it, as it was asked for."""
        return self._held.lease.owner

    @property
    def until(self) -> datetime:
        """When it ends unless it is renewed again, UTC, by the server's clock."""
        return self._held.lease.until

    async def append(self, key: AnyKey, entries: Sequence[Mapping[str, Any]]) -> None:
        """As :meth:`BeanieSessionStore.append`, for this session under the lease.

        Raises:
            LeaseLostError: the lease was lost, or its block has ended; this call stored nothing.
            SessionStoreError: as there.
        """
        require_asyncio()
        transcript = self._parsed(key)
        if not self._is_own(transcript):
            await self.store.append(key, entries)
            return
        self._held.require()
        await self._append(transcript, entries)

    async def delete(self, key: AnyKey, *, wait: bool = False) -> None:
        """As :meth:`BeanieSessionStore.delete`; who deletes the session itself ends the lease.

        Raises:
            LeaseLostError: the lease was lost, or its block has ended; this call deleted nothing.
            SessionStoreError: as there.
        """
        require_asyncio()
        transcript = self._parsed(key)
        if self._is_own(transcript):
            self._held.require()
            await self._delete(transcript, wait)
        else:
            await self.store.delete(key, wait=wait)

    async def load(self, key: AnyKey) -> list[SessionStoreEntry] | None:
        """As :meth:`BeanieSessionStore.load`."""
        return await self.store.load(key)

    async def list_sessions(self, project_key: str) -> list[SessionStoreListEntry]:
        """As :meth:`BeanieSessionStore.list_sessions`."""
        return await self.store.list_sessions(project_key)

    async def list_session_summaries(self, project_key: str) -> list[SessionSummaryEntry]:
        """As :meth:`BeanieSessionStore.list_session_summaries`."""
        return await self.store.list_session_summaries(project_key)

    async def list_subkeys(self, key: AnyKey) -> list[str]:
        """As :meth:`BeanieSessionStore.list_subkeys`."""
        return await self.store.list_subkeys(key)

    def _parsed(self, key: object) -> TranscriptKey:
        return TranscriptKey.parse(self._session.tenant, key)

    def _is_own(self, transcript: TranscriptKey) -> bool:
        return transcript.session == self._session
