"""Sealing what is stored plain of all sessions of a tenant."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from ..concurrency.workers import ENDS_A_RUN, KEPT_PROBLEMS, checked_workers, in_parallel
from ..database.failures import require_asyncio
from ..errors import SessionStoreError, TransferError, UnknownSessionError
from ..reading.listings import SessionListing
from ..store import BeanieSessionStore
from .report import TransferProblem


@dataclass(slots=True)
class SealingReport:
    """What came of sealing sessions, or has come so far."""

    sessions: int = 0
    """Sessions looked at."""
    entries: int = 0
    """Entries that were sealed."""
    failed: int = 0
    """Sessions of which something plain may be left."""
    problems: list[TransferProblem] = field(default_factory=list[TransferProblem])
    """The first 100 of them."""

    def as_json(self) -> dict[str, Any]:
        """The same as JSON types."""
        return {
            "sessions": self.sessions,
            "entries": self.entries,
            "failed": self.failed,
            "problems": [str(each) for each in self.problems],
        }

    def __str__(self) -> str:
        return f"{self.sessions} sessions, {self.entries} entries encrypted, {self.failed} failed"


async def seal_sessions(
    store: BeanieSessionStore,
    *,
    workers: int = 4,
    on_progress: Callable[[SealingReport], None] | None = None,
) -> SealingReport:
    """Encrypt what is stored plain of a tenant's sessions, while others read and write.

    It may be cut off at any time and run again. Let all who write encrypt first: what comes plain
    behind it stays plain. What the server wrote before is in its journal, its log, free space of
    its files and its backups until those are gone.

    Args:
        store: a store of the tenant, with ``encryption``.
        workers: sessions at once.
        on_progress: called whenever a session is done.

    Raises:
        TransferError: the store has no encryption.
        SessionStoreError: a server or the key service is away or refuses; run it again.
    """
    require_asyncio()
    checked_workers(workers, TransferError)
    if not store.encrypts:
        raise TransferError(
            "The store has no encryption, so there is no key to encrypt with; nothing was changed. "
            "Make it with encryption=Encryption(...)."
        )
    report = SealingReport()

    async def seal(listing: SessionListing) -> None:
        try:
            sealed = await store.seal(listing.key())
            # Only now, for others count meanwhile.
            report.entries += sealed
        except UnknownSessionError:
            # It was deleted meanwhile, or has expired.
            pass
        except ENDS_A_RUN:
            raise
        except SessionStoreError as error:
            report.failed += 1
            if len(report.problems) < KEPT_PROBLEMS:
                report.problems.append(TransferProblem(str(listing), str(error)))
        report.sessions += 1
        if on_progress is not None:
            on_progress(report)

    await in_parallel(_listed(store), seal, workers)
    return report


async def _listed(store: BeanieSessionStore) -> AsyncIterator[SessionListing]:
    async for listing in store.all_sessions():
        yield listing
