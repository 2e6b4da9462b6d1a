"""Verifying many sessions, and mending the summaries that do not say what is stored."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from ..concurrency.workers import ENDS_A_RUN, KEPT_PROBLEMS, checked_workers, in_parallel
from ..database.failures import require_asyncio
from ..errors import SessionStoreError, TransferError, UnknownSessionError
from ..reading.listings import SessionListing
from ..store import BeanieSessionStore
from ..writing.repair import Difference


@dataclass(frozen=True, slots=True)
class UnsoundSession:
    """A session whose summary does not say what is stored, or that cannot be read."""

    listing: SessionListing
    differences: tuple[Difference, ...] = ()
    is_repaired: bool = False
    error: str | None = None
    """Why it could not be verified or repaired."""

    def as_json(self) -> dict[str, Any]:
        """The same as JSON types and dates."""
        return {
            "project_key": self.listing.project_key,
            "session_id": self.listing.session_id,
            "differences": [asdict(each) for each in self.differences],
            "is_repaired": self.is_repaired,
            "error": self.error,
        }


@dataclass(slots=True)
class VerificationReport:
    """What came of verifying sessions, or has come so far."""

    sessions: int = 0
    """Sessions looked at."""
    entries: int = 0
    """Entries read for it."""
    repaired: int = 0
    """Unsound sessions that were repaired."""
    unsound: int = 0
    """Unsound sessions that are left as they were."""
    failed: int = 0
    """Sessions that could not be read whole, or not be repaired."""
    problems: list[UnsoundSession] = field(default_factory=list[UnsoundSession])
    """The first 100 of the last three kinds; ``on_problem`` gets all."""

    @property
    def is_sound(self) -> bool:
        """Whether all is now as it should be."""
        return not (self.unsound or self.failed)

    def as_json(self) -> dict[str, Any]:
        """The report as JSON types and dates."""
        counts = ("sessions", "entries", "repaired", "unsound", "failed", "is_sound")
        return {
            **{name: getattr(self, name) for name in counts},
            "problems": [problem.as_json() for problem in self.problems],
        }

    def __str__(self) -> str:
        return (
            f"{self.sessions} sessions ({self.entries} entries) looked at: {self.unsound} unsound, "
            f"{self.repaired} repaired, {self.failed} failed"
        )


async def verify_sessions(
    store: BeanieSessionStore,
    sessions: AsyncIterable[SessionListing] | None = None,
    *,
    repair: bool = False,
    bring_back: bool = False,
    workers: int = 4,
    on_progress: Callable[[VerificationReport], None] | None = None,
    on_problem: Callable[[UnsoundSession], None] | None = None,
) -> VerificationReport:
    """Compare the summaries of sessions with all that is stored of them, in constant memory.

    Args:
        store: the store of the tenant.
        sessions: which ones; default is all of the tenant, also those that have entries but no
            summary (``store.all_sessions()`` and ``store.lost_sessions()``).
        repair: make each summary say what is stored. It is safe while others append.
        bring_back: with ``repair``, as for ``store.repair``; for sessions that were chosen.
        workers: sessions to verify at once.
        on_progress: called after each session.
        on_problem: called with each session that is unsound or cannot be read.

    Raises:
        TransferError: ``workers`` is no count, or ``bring_back`` is for no session in particular.
        SessionStoreError: a server is away or refuses; run it again.
    """
    require_asyncio()
    checked_workers(workers)
    if bring_back and (sessions is None or not repair):
        raise TransferError(
            "bring_back makes sessions anew that may have expired or been deleted, so it is for "
            "those that are named, with repair=True; nothing was changed."
        )
    report = VerificationReport()

    async def verify(listing: SessionListing) -> None:
        problem = None
        try:
            key = listing.key()
            if repair:
                found = await store.repair(key, bring_back=bring_back)
            else:
                found = await store.verify(key)
        except UnknownSessionError:
            # Deleted or expired since it was listed.
            return
        except ENDS_A_RUN:
            raise
        except SessionStoreError as error:
            report.failed += 1
            problem = UnsoundSession(listing, error=str(error))
        else:
            report.entries += found.entries
            if not found.is_sound:
                report.repaired += repair
                report.unsound += not repair
                problem = UnsoundSession(listing, found.differences, repair)
        report.sessions += 1
        if problem is not None:
            if len(report.problems) < KEPT_PROBLEMS:
                report.problems.append(problem)
            if on_problem is not None:
                on_problem(problem)
        if on_progress is not None:
            on_progress(report)

    await in_parallel(sessions or with_lost(store), verify, workers)
    return report


async def with_lost(
    store: BeanieSessionStore, project_key: str | None = None
) -> AsyncIterator[SessionListing]:
    """The sessions of a tenant, then those that have entries but no summary."""
    async for listing in store.all_sessions(project_key):
        yield listing
    async for listing in store.lost_sessions(project_key):
        yield listing
