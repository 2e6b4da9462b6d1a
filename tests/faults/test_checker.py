"""The checker finds what it is there for, and accuses nobody of what is allowed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from claude_agent_sdk import fold_session_summary
from faults import checker
from faults.checker import FINAL, check
from faults.history import FAIL, OK, UNKNOWN, Key, Op, Recorder, read_history
from faults.tokens import entry_of
from faults.worker import digest

KEY: Key = ("one", "project", "session", "")
SUBAGENT: Key = (*KEY[:3], "subagents/agent-a1")
A = ["a.0u", "~plan", "a.2t"]
B = ["~plan", "b.1u"]
C = ["c.0u"]


def append(tokens: list[str], start: float, end: float, outcome: str = OK, key: Key = KEY) -> Op:
    name = next(token for token in tokens if token[0] != "~").partition(".")[0]
    return Op("append", key, start, end, outcome, "w", name, tokens)


def load(tokens: list[str], start: float, end: float, process: str = "w", key: Key = KEY) -> Op:
    return Op("load", key, start, end, OK, process, tokens=tokens)


def delete(start: float, end: float, outcome: str = OK, key: Key = KEY) -> Op:
    return Op("delete", key, start, end, outcome)


def listing(kind: str, rows: list[list[Any]], start: float, process: str = "w") -> Op:
    return Op(kind, (*KEY[:2], "", ""), start, start + 0.1, OK, process, rows=rows)


def fold(tokens: list[str]) -> str:
    entries = [entry_of(token) for token in tokens]
    key = {"project_key": KEY[1], "session_id": KEY[2]}
    return digest(fold_session_summary(None, key, entries)["data"])


HONEST = {
    "appends in turn": [append(A, 0, 1), load(A, 2, 3), append(B, 4, 5), load(A + B, 6, 7)],
    "appends at once": [append(A, 0, 2), append(B, 1, 3), load(B + A, 4, 5)],
    "a load during an append": [append(A, 0, 3), load([], 1, 2), load(A, 1, 2.5)],
    "an unknown outcome, stored": [append(A, 0, math.inf, UNKNOWN), load([], 1, 2), load(A, 3, 4)],
    "an unknown outcome, not stored": [append(A, 0, math.inf, UNKNOWN), load([], 1, 2, FINAL)],
    "a failure tried again": [append(A, 0, 1, FAIL), append(A, 2, 3), load(A, 4, 5, FINAL)],
    "an unknown outcome tried again": [
        append(A, 0, math.inf, UNKNOWN),
        append(B, 1, 2),
        append(A, 3, 4),
        load(A + B, 5, 6, FINAL),
    ],
    "a delete": [append(A, 0, 1), delete(2, 3), load([], 4, 5, FINAL)],
    "a delete and an append": [
        append(A, 0, 1),
        delete(2, 3),
        append(B, 4, 5),
        load(B, 6, 7, FINAL),
    ],
    "a delete of unknown outcome": [
        append(A, 0, 1),
        delete(2, math.inf, UNKNOWN),
        load(A, 4, 5),
        load([], 6, 7, FINAL),
    ],
    "a re-import": [
        append(A, 0, 1),
        Op("reimport", KEY, 2, 3, OK, tokens=A),
        load(A, 4, 5, FINAL),
    ],
    "a fork": [
        append(A, 0, 1),
        Op("append", (*KEY[:2], "fork", ""), 2, 3, OK, "w", "fork", A),
        load(A, 4, 5, FINAL, (*KEY[:2], "fork", "")),
        load(A, 4, 5, FINAL),
    ],
    "subagents of their own": [
        append(A, 0, 1),
        append(B, 0, 1, key=SUBAGENT),
        delete(2, 3, key=SUBAGENT),
        load(A, 4, 5, FINAL),
        load([], 4, 5, FINAL, SUBAGENT),
    ],
    "listings that follow": [
        append(A, 0, 1),
        listing("list_session_summaries", [["session", 10, fold(A)]], 2),
        append(B, 3, 4),
        listing("list_session_summaries", [["session", 11, fold(A + B)]], 5),
        load(A + B, 6, 7, FINAL),
        listing("list_session_summaries", [["session", 11, fold(A + B)]], 8, FINAL),
    ],
}


@pytest.mark.parametrize("history", HONEST.values(), ids=HONEST.keys())
def test_allowed_histories_are_not_accused(history: list[Op]) -> None:
    assert check(history) == []


BROKEN = {
    checker.LOST: [
        [append(A, 0, 1), load([], 2, 3, FINAL)],
        [append(A, 0, 1), append(B, 2, 3), load(B, 4, 5, FINAL)],
        [append(A, 0, 1, UNKNOWN), append(A, 2, 3), load([], 4, 5, FINAL)],
        [delete(0, 1), append(A, 2, 3), load([], 4, 5, FINAL)],
        [append(A, 0, 1), delete(2, 3, FAIL), load([], 4, 5, FINAL)],
        [append(A, 0, 1), delete(2, 3, key=SUBAGENT), load([], 4, 5, FINAL)],
        # What was stored before the delete is still there, so the delete is no excuse.
        [append(B, 0, 1), append(A, 2, 3), delete(2.5, 4), load(B, 5, 6, FINAL)],
    ],
    checker.STALE: [
        [append(A, 0, 1), load([], 2, 3), load(A, 4, 5, FINAL)],
        [
            append(A, 0, 1),
            append(["b.0t"], 2, 3),
            listing("list_session_summaries", [["session", 10, fold(A)]], 4),
            load([*A, "b.0t"], 5, 6, FINAL),
        ],
    ],
    checker.BACKWARDS: [
        [append(A, 0, math.inf, UNKNOWN), load(A, 1, 2), load([], 3, 4)],
        [delete(0, 1), append(A, 2, math.inf, UNKNOWN), load(A, 3, 4), load([], 5, 6)],
    ],
    checker.DOUBLED: [
        [append(A, 0, 1), load(A + A, 2, 3)],
        [append(B, 0, 1), load([*B, "b.1u"], 2, 3)],
        [append(A, 0, 1), load(["a.0u", "~plan", "a.2t", "a.2t"], 2, 3)],
        [append(A, 0, 1), append(B, 0, 1), load(["~plan", *A, *B], 2, 3)],
        [append(A, 0, 1), append(B, 0, 1), load(A + B + A, 2, 3)],
    ],
    checker.PARTIAL: [
        [append(A, 0, 1), load(["a.0u", "~plan"], 2, 3)],
        [append(B, 0, 1), load(["b.1u"], 2, 3)],
        [append(A, 0, 3), load(["a.0u"], 1, 2)],
        [append(A, 0, 1), append(B, 0, 1), load(["a.0u", *B, "~plan", "a.2t"], 2, 3)],
        [append(A, 0, 1), load(["a.2t", "~plan", "a.0u"], 2, 3)],
        [append(A, 0, 1), load([*A, "~plan"], 2, 3)],
    ],
    checker.DISORDERED: [
        [append(A, 0, 1), append(B, 2, 3), load(B + A, 4, 5)],
        [append(A, 0, 1), append(C, 0, 9), append(B, 2, 3), load(B + C + A, 10, 11)],
        [
            append(A, 0, 1),
            append(B, 2, 3, key=SUBAGENT),
            Op(checker.SESSION_ORDER, KEY, 4, 5, OK, FINAL, tokens=B + A),
        ],
    ],
    checker.DIVERGED: [
        [
            append(A, 0, 1),
            append(B, 2, 5),
            append(C, 2, 5),
            load(A + B + C, 6, 7),
            load(A + C + B, 6, 7),
        ],
    ],
    checker.FOREIGN: [
        [append(A, 0, 1), load([*A, "z.0u"], 2, 3)],
        [append(A, 0, 1, key=("two", *KEY[1:])), load(A, 2, 3)],
        [load(A, 0, 1), append(A, 2, 3)],
        [listing("list_sessions", [["nobody's", 1, None]], 0)],
    ],
    checker.CHANGED: [[append(A, 0, 1), load(["!a.0u", "~plan", "a.2t"], 2, 3)]],
    checker.UNDEAD: [[append(A, 0, 1), delete(2, 3), load(A, 4, 5)]],
    checker.REFUSED: [[append(A, 0, 1, FAIL), load(A, 2, 3)]],
    checker.UNLISTED: [
        [append(A, 0, 1), listing("list_sessions", [], 2)],
        [append(A, 0, 1, key=SUBAGENT), Op("list_subkeys", KEY, 2, 3, OK, "w")],
    ],
    checker.MTIME: [
        [
            append(A, 0, 1),
            listing("list_sessions", [["session", 10, None]], 2),
            listing("list_sessions", [["session", 9, None]], 3),
        ],
        [
            listing("list_sessions", [["session", 10, None]], 0),
            append(A, 1, 2),
            listing("list_sessions", [["session", 10, None]], 3),
        ],
    ],
    checker.SUMMARY: [
        [
            append(A, 0, 1),
            load(A, 2, 3, FINAL),
            listing("list_session_summaries", [["session", 10, "else"]], 4),
        ],
        [
            append(A, 0, 1),
            append(B, 2, 3),
            load(A + B, 4, 5, FINAL),
            listing("list_session_summaries", [["session", 10, fold(B)]], 6, FINAL),
        ],
        [
            append(C, 0, 1),
            delete(2, 3),
            append(A, 4, 5),
            load(A, 6, 7, FINAL),
            listing("list_session_summaries", [["session", 10, fold(C + A)]], 8, FINAL),
        ],
    ],
}


@pytest.mark.parametrize(
    ("kind", "history"),
    [(kind, history) for kind, histories in BROKEN.items() for history in histories],
)
def test_each_kind_of_broken_promise_is_found(kind: str, history: list[Op]) -> None:
    assert kind in {finding.kind for finding in check(history)}


def test_a_history_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "w.jsonl")
    first = recorder.invoke("append", KEY, "w.0", "a", A)
    recorder.invoke("append", KEY, "w.1", "b", B)
    third = recorder.invoke("load", KEY, "w.0", "", [])
    recorder.complete(first, FAIL, error="UnreachableError: away")
    recorder.complete(third, OK, tokens=A)
    one, killed, three = read_history([tmp_path / "w.jsonl"])
    assert (one.batch, one.outcome, one.tokens, one.error[:11]) == ("a", FAIL, A, "Unreachable")
    assert (killed.batch, killed.outcome, killed.end) == ("b", UNKNOWN, math.inf)
    assert (three.kind, three.outcome, three.tokens) == ("load", OK, A)
    assert three.start < three.end < math.inf
