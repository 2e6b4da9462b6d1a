"""Attacks the store for a while and reports: ``python -m faults.run --seconds 180 --seed 1``.

The time is spent in rounds of a minute, each on a database of its own, with the same servers.
The seed decides the faults, their order and length, where writers are killed, their clocks and
connection options, and what each task asks for in which order. It does not decide how many
operations fit into the time, how they interleave, nor which member gets elected.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

from pymongo import MongoClient
from pymongo.errors import PyMongoError

from . import schedule
from .checker import FINAL, OF_THE_PAST, SESSION_ORDER, Finding, check
from .cluster import Cluster
from .crew import Crew
from .history import Recorder, read_history
from .stored import check_documents, check_summaries, fill, prepare, read_all, sweep
from .worker import small_steps

_ROUND_SECONDS = 60.0
_HUGE_EVERY = 3
_READY_SECONDS = 4.0
# Every session gets another date with its next append after such a change.
_POLICIES = cycle((3600, 7200, None))
_POLICY_SECONDS = 4.0


@dataclass
class Report:
    """What was done and what was found."""

    seed: int
    seconds: float = 0.0
    rounds: int = 0
    operations: Counter[str] = field(default_factory=Counter)
    """By kind and outcome."""
    errors: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    crashes: Counter[str] = field(default_factory=Counter)
    slowest_append_seconds: float = 0.0
    stored_entries: int = 0
    stale_reads: int = 0
    """Reads that a primary answered which did not know yet that it was deposed."""
    findings: list[Finding] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """A writer that failed in an unforeseen way, or an operation that never ended."""

    def as_json(self) -> str:
        values = {**vars(self), "findings": [asdict(finding) for finding in self.findings]}
        return json.dumps(values, indent=2)

    def text(self) -> str:
        found = _counts(Counter(finding.kind for finding in self.findings))
        lines = [
            f"{self.rounds} rounds, {self.seconds:.0f} s, seed {self.seed}",
            f"operations: {_counts(self.operations)}",
            f"errors: {_counts(self.errors)}",
            f"faults: {_counts(self.faults)}",
            f"writers killed: {_counts(self.crashes)}",
            f"entries stored at the end of the rounds: {self.stored_entries}",
            f"slowest append: {self.slowest_append_seconds:.1f} s",
            f"reads answered by a deposed primary: {self.stale_reads}",
            f"findings: {found}",
        ]
        lines += [f"  {f.kind}: {'/'.join(f.key)}: {f.what}" for f in self.findings[:20]]
        lines += [f"  problem: {problem}" for problem in self.problems]
        return "\n".join(lines)


def attack(seconds: float, seed: int, keep: Path | None = None, huge: int = 100_000) -> Report:
    """Run rounds until the time is over, or until one has findings.

    Every third one begins with sessions of ``huge`` entries; in the others work on large
    sessions goes by handfuls, so that every session is a large one.
    """
    report = Report(seed)
    steps: list[schedule.Step] = []
    with Cluster() as cluster:
        began = time.monotonic()
        while not report.rounds or seconds - (time.monotonic() - began) > _ROUND_SECONDS / 2:
            report.rounds += 1
            if len(steps) < len(schedule.FAULTS):
                steps += schedule.plan(f"{seed}/{report.rounds}")
            directory = (keep or cluster.root) / f"round-{report.rounds}"
            directory.mkdir(parents=True)
            left = max(min(_ROUND_SECONDS, seconds - (time.monotonic() - began)), 10)
            entries = 0 if report.rounds % _HUGE_EVERY else huge
            with contextlib.nullcontext() if entries else small_steps():
                _round(cluster, report, directory, left, steps, entries)
            report.seconds = time.monotonic() - began
            if report.findings or report.problems:
                break
            if keep is None:
                for path in directory.iterdir():
                    path.unlink()
            print(report.text(), file=sys.stderr, flush=True)
    return report


def _round(
    cluster: Cluster,
    report: Report,
    directory: Path,
    seconds: float,
    steps: list[schedule.Step],
    huge: int,
) -> None:
    database = f"faults_{report.rounds}"
    asyncio.run(prepare(cluster.url, database))
    if huge:
        asyncio.run(fill(cluster.url, database, Recorder(directory / "fill.jsonl"), huge))
    start = time.monotonic() + _READY_SECONDS
    stop = start + seconds
    seed = f"{report.seed}/{report.rounds}"
    crew = Crew(cluster.url, database, directory, seed, start, stop, is_huge=bool(huge))
    over = threading.Event()
    policies = threading.Thread(target=_change_policies, args=(cluster, database, over))
    crew.start()
    policies.start()
    try:
        time.sleep(_READY_SECONDS)
        report.faults += schedule.play(cluster, steps, stop, directory / "faults")
        cluster.wait_healthy()
    finally:
        over.set()
        policies.join()
        crew.finish()
    report.crashes += crew.crashes
    report.problems += crew.problems
    paths = sorted(directory.glob("*.jsonl"))
    keys = {op.key for op in read_history(paths) if op.kind == "append"}
    final = directory / "final.jsonl"
    asyncio.run(read_all(cluster.url, database, keys, Recorder(final)))
    ops = read_history([*paths, final])
    during = [op for op in ops if op.process != FINAL]
    report.operations += Counter(f"{op.kind} {op.outcome}" for op in during)
    report.errors += Counter(op.error.split(":")[0] for op in during if op.error)
    appends = [op.took for op in during if op.kind == "append" and op.process != "fill"]
    report.slowest_append_seconds = max([report.slowest_append_seconds, *appends])
    report.stored_entries += sum(len(op.tokens) for op in ops if op.kind == SESSION_ORDER)
    findings = check(ops)
    deposed = schedule.deposed_times(directory / "faults")
    past = [finding for finding in findings if _is_excused(finding, deposed)]
    report.stale_reads += len({finding.read for finding in past})
    report.findings += [finding for finding in findings if finding not in past]
    report.findings += check_documents(cluster.url, database)
    asyncio.run(sweep(cluster.url, database))
    report.findings += check_documents(cluster.url, database, is_swept=True)
    report.findings += asyncio.run(check_summaries(cluster.url, database, keys))
    with MongoClient[dict[str, Any]](cluster.url) as client:
        client.drop_database(database)


def _is_excused(finding: Finding, deposed: list[tuple[float, float]]) -> bool:
    if finding.kind not in OF_THE_PAST or finding.read is None:
        return False
    began, ended = finding.read
    return any(began < end and ended > start for start, end in deposed)


def _change_policies(cluster: Cluster, database: str, over: threading.Event) -> None:
    everyone = {"tenant": "*", "project_key": "*"}
    with MongoClient[dict[str, Any]](cluster.url) as client:
        policies = client[database]["claude_retention_policies"]
        while not over.wait(_POLICY_SECONDS):
            change = {"$set": {"keep_seconds": next(_POLICIES)}}
            # What fails now is tried again with the next change.
            with contextlib.suppress(PyMongoError):
                policies.update_one(everyone, change, upsert=True)


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counter.items())) or "none"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=180)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--huge", type=int, default=100_000, help="entries of huge sessions")
    parser.add_argument("--report", type=Path, help="write the report there, as JSON")
    parser.add_argument("--keep", type=Path, help="leave the histories in this directory")
    options = parser.parse_args()
    report = attack(options.seconds, options.seed, options.keep, options.huge)
    print(report.text())
    if options.report:
        options.report.write_text(report.as_json())
    return 1 if report.findings or report.problems else 0


if __name__ == "__main__":
    sys.exit(main())
