"""What an examination of a database finds, as values."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Verdict = Literal["good", "warning", "bad", "unknown"]
"""``bad``: the store does not work, or does not keep a promise; ``warning``: it works, but somebody
should act; ``unknown``: it could not be looked at."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found."""

    check: str
    """What was looked at, in one word, such as ``transactions``."""
    verdict: Verdict
    found: str
    """One line, with names of hosts, users, collections and indexes; never a password."""
    advice: str | None = None
    """What to do, where there is something to do."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was found of a database and its servers."""

    database: str
    hosts: str
    """``host:port, host:port``."""
    findings: tuple[Finding, ...]
    """One per check, in the order in which one rests on another."""

    @property
    def is_healthy(self) -> bool:
        """Whether the store works there and keeps its promises."""
        return all(finding.verdict != "bad" for finding in self.findings)

    @property
    def is_clean(self) -> bool:
        """Whether there is nothing to do either, and all could be looked at."""
        return all(finding.verdict == "good" for finding in self.findings)

    def of(self, check: str) -> Finding | None:
        """What a check found; ``None`` if it was not made, for an earlier one failed."""
        return next((found for found in self.findings if found.check == check), None)

    def as_json(self) -> dict[str, Any]:
        """The same as JSON types."""
        return {**asdict(self), "is_healthy": self.is_healthy, "is_clean": self.is_clean}
