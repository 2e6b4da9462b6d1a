"""What the log says: which scripts are applied, and every run of one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ...migrations._log import log_of
from ..database.driver import Database


@dataclass(frozen=True, slots=True)
class AppliedScript:
    """A script that ran last forward."""

    name: str
    applied_at: datetime | None
    checksum: str | None


@dataclass(frozen=True, slots=True)
class SchemaRun:
    """One run of a script, to its end."""

    script: str
    direction: str
    """``forward`` or ``backward``."""
    at: datetime
    """When it ended, UTC, by the server's clock."""
    host: str
    pid: int
    by: str
    """``upgrade_schema``, ``downgrade_schema`` or ``beanie migrate``."""
    seconds: float


async def applied_scripts(database: Database, entries: str) -> Mapping[str, AppliedScript]:
    """By name, the scripts applied to the collections that belong to ``entries``."""
    query = {"entries": entries, "applied_at": {"$ne": None}}
    # Runs are many, and nobody's business at start-up.
    found = log_of(database).find(query, {"runs": 0})
    return {
        record["script"]: AppliedScript(
            record["script"], record["applied_at"], record.get("checksum")
        )
        async for record in found
    }


async def script_runs(database: Database, entries: str) -> list[SchemaRun]:
    """Every run of every script, oldest first."""
    runs: list[SchemaRun] = []
    async for record in log_of(database).find({"entries": entries}):
        stored: list[dict[str, Any]] = record.get("runs", [])
        runs += [_run(record["script"], run) for run in stored]
    return sorted(runs, key=lambda run: (run.at, run.script))


def _run(script: str, run: Mapping[str, Any]) -> SchemaRun:
    return SchemaRun(
        script=script,
        direction=run["direction"],
        at=run["at"],
        host=run["host"],
        pid=run["pid"],
        by=run["by"],
        seconds=run["seconds"],
    )
