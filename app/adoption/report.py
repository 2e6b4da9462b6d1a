"""What an adoption came to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from bson import json_util

from ..text import shown
from .sources import AdoptionSource

AdoptionOutcome = Literal["adopted", "unchanged", "skipped"]


@dataclass(frozen=True, slots=True)
class AdoptionProblem:
    """Something that was not adopted, and why."""

    project_key: Any
    session_id: Any
    document: Any
    """``_id`` of the source's document, ``None`` where it concerns the whole session."""
    reason: str

    def __str__(self) -> str:
        where = f"session {shown(self.session_id, 80)} of project {shown(self.project_key, 80)}"
        what = "" if self.document is None else f", document {json_util.dumps(self.document)}"
        return f"{where}{what}: {self.reason}"


@dataclass(slots=True)
class AdoptionReport:
    """What a run did, or has done so far."""

    source: AdoptionSource
    listed: int = 0
    """Sessions that the source holds."""
    documents: int = 0
    """Documents that they have together."""
    adopted: int = 0
    """Sessions of which this run stored something."""
    unchanged: int = 0
    """Sessions of which everything was stored before."""
    skipped: int = 0
    """Sessions left out, by the caller's choice or for a problem that is reported."""
    entries: int = 0
    """Entries that this run stored."""
    problem_count: int = 0
    problems: list[AdoptionProblem] = field(default_factory=list[AdoptionProblem])
    """The first 100 of them; ``on_problem`` gets all."""

    @property
    def done(self) -> int:
        """Sessions dealt with."""
        return self.adopted + self.unchanged + self.skipped

    def as_json(self) -> dict[str, Any]:
        """The report as JSON types."""
        counts = ("listed", "documents", "adopted", "unchanged", "skipped", "entries")
        return {
            "source": str(self.source),
            **{name: getattr(self, name) for name in counts},
            "problem_count": self.problem_count,
            "problems": [str(problem) for problem in self.problems],
        }

    def __str__(self) -> str:
        return (
            f"{self.done} of {self.listed} sessions: {self.adopted} adopted "
            f"({self.entries} entries), {self.unchanged} unchanged, {self.skipped} skipped, "
            f"{self.problem_count} problems"
        )
