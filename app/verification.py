"""Verifying many sessions, and mending the summaries that do not say what is stored."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from .errors import SessionStoreError, UnknownSessionError
from .failures import require_asyncio
from .reader import SessionListing
from .repair import Difference
from .store import BeanieSessionStore
from .transfer import ENDS_A_RUN, checked_workers, in_parallel

_KEPT_PROBLEMS = 100


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
    sessions: AsyncIterable[SessionListing],
    *,
    repair: bool = False,
    workers: int = 4,
    on_progress: Callable[[VerificationReport], None] | None = None,
    on_problem: Callable[[UnsoundSession], None] | None = None,
) -> VerificationReport:
    """Compare the summaries of sessions with all that is stored of them, in constant memory.

    Args:
        store: the store of the tenant.
        sessions: which ones; all of the tenant's are ``store.session_keys()``.
        repair: make each summary say what is stored. It is safe while others append.
        workers: sessions to verify at once.
        on_progress: called after each session.
        on_problem: called with each session that is unsound or cannot be read.

    Raises:
        TransferError: ``workers`` is no count.
        SessionStoreError: a server is away or refuses; run it again.
    """
    require_asyncio()
    checked_workers(workers)
    report = VerificationReport()

    async def verify(listing: SessionListing) -> None:
        problem = None
        try:
            found = await (store.repair if repair else store.verify)(listing.key())
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
            if len(report.problems) < _KEPT_PROBLEMS:
                report.problems.append(problem)
            if on_problem is not None:
                on_problem(problem)
        if on_progress is not None:
            on_progress(report)

    await in_parallel(sessions, verify, workers)
    return report
