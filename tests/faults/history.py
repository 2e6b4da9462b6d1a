"""What every operation of every process was asked and what came of it, in files.

A record is written before an operation begins and another one after it ended, each with one
``write``: what a killed process has written stays. Times are those of CLOCK_MONOTONIC, which is
one clock for all processes of a machine.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Key = tuple[str, str, str, str]
"""Tenant, project key, session id and subpath ("" for the main transcript)."""

OK = "ok"
FAIL = "fail"
"""It certainly changed nothing."""
UNKNOWN = "unknown"
"""It may have happened, or happen later."""


@dataclass
class Op:
    """One operation; ``end`` is infinite when it may still take effect."""

    kind: str
    key: Key
    start: float
    end: float
    outcome: str
    process: str = ""
    batch: str = ""
    tokens: list[str] = field(default_factory=list)
    """Of an append or a re-import what was sent; of a load what came."""
    rows: list[list[Any]] = field(default_factory=list)
    """Of a listing."""
    took: float = 0.0
    error: str = ""


class Recorder:
    """Writes one process's part of a history."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._count = 0

    def invoke(self, kind: str, key: Key, process: str, batch: str, tokens: list[str]) -> int:
        self._count += 1
        self._write([self._count, time.monotonic(), kind, key, process, batch, tokens])
        return self._count

    def complete(
        self, number: int, outcome: str, *, tokens: Any = None, rows: Any = None, error: str = ""
    ) -> None:
        self._write([-number, time.monotonic(), outcome, tokens, rows, error])

    def _write(self, record: list[Any]) -> None:
        os.write(self._file, json.dumps(record, separators=(",", ":")).encode() + b"\n")


def read_history(paths: Iterable[Path]) -> list[Op]:
    """The operations of all processes, by the time they began."""
    ops: list[Op] = []
    for path in paths:
        pending: dict[int, Op] = {}
        for line in path.read_bytes().splitlines():
            number, at, *rest = json.loads(line)
            if number > 0:
                kind, key, process, batch, tokens = rest
                op = Op(kind, tuple(key), at, math.inf, UNKNOWN, process, batch, tokens)
                pending[number] = op
                ops.append(op)
                continue
            op = pending.pop(-number)
            op.outcome, tokens, op.rows, op.error = rest
            op.took = at - op.start
            op.rows = op.rows or []
            op.tokens = op.tokens if tokens is None else tokens
            # A write whose outcome is not known may land later, when the network heals.
            op.end = math.inf if op.outcome == UNKNOWN else at
    return sorted(ops, key=lambda op: op.start)
