"""What an import, an export or a copy came to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from ..concurrency.workers import KEPT_PROBLEMS

TransferOutcome = Literal["changed", "unchanged", "failed"]


@dataclass(frozen=True, slots=True)
class TransferProblem:
    """Something that was left out, and why."""

    where: str
    """A file, with the number of a line, or a session."""
    reason: str

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


@dataclass(slots=True)
class TransferReport:
    """What a run did, or has done so far."""

    listed: int = 0
    """Sessions to transfer, as far as they are known."""
    total_bytes: int = 0
    """Bytes to read, where that is known beforehand."""
    changed: int = 0
    """Sessions of which this run wrote something."""
    unchanged: int = 0
    """Sessions of which everything was there before."""
    failed: int = 0
    """Sessions that could not be transferred, or not whole, for a problem that is reported."""
    entries: int = 0
    """Entries that this run wrote."""
    bytes: int = 0
    """Bytes of transcripts that this run read or wrote."""
    skipped_lines: int = 0
    """Lines that are no entries, or not as a whole."""
    problem_count: int = 0
    problems: list[TransferProblem] = field(default_factory=list[TransferProblem])
    """The first 100 of them; ``on_problem`` gets all."""

    @property
    def done(self) -> int:
        """Sessions dealt with."""
        return self.changed + self.unchanged + self.failed

    def as_json(self) -> dict[str, Any]:
        """The report as JSON types."""
        counts = ("listed", "changed", "unchanged", "failed", "entries", "bytes", "skipped_lines")
        return {
            **{name: getattr(self, name) for name in counts},
            "problem_count": self.problem_count,
            "problems": [str(problem) for problem in self.problems],
        }

    def __str__(self) -> str:
        lines = "1 line" if self.skipped_lines == 1 else f"{self.skipped_lines} lines"
        skipped = f", {lines} skipped" if self.skipped_lines else ""
        return (
            f"{self.done} of {self.listed} sessions: {self.changed} written ({self.entries} "
            f"entries), {self.unchanged} unchanged, {self.failed} failed{skipped}"
        )


OnProgress = Callable[[TransferReport], None]
OnProblem = Callable[[TransferProblem], None]


@dataclass(slots=True)
class Progress:
    """A report in the making, and who is told of it."""

    report: TransferReport
    on_progress: OnProgress | None = None
    on_problem: OnProblem | None = None

    def moved(self, size: int = 0, entries: int = 0) -> None:
        """Note what was read or written since."""
        self.report.bytes += size
        self.report.entries += entries
        if self.on_progress is not None:
            self.on_progress(self.report)

    def finished(self, outcome: TransferOutcome) -> None:
        """Note what came of one session."""
        setattr(self.report, outcome, getattr(self.report, outcome) + 1)
        self.moved()

    def problem(self, where: str, reason: str) -> None:
        """Note what was left out."""
        problem = TransferProblem(where, reason)
        self.report.problem_count += 1
        if len(self.report.problems) < KEPT_PROBLEMS:
            self.report.problems.append(problem)
        if self.on_problem is not None:
            self.on_problem(problem)
