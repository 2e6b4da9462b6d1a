"""No stored value crashes a command, and a session with an odd one hides no other."""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from bson import (
    Binary,
    Code,
    DBRef,
    Decimal128,
    Int64,
    MaxKey,
    MinKey,
    ObjectId,
    Regex,
    Timestamp,
)
from bson.datetime_ms import DatetimeMS
from pymongo import MongoClient
from support.command import invoked
from support.entries import KEY, SUBAGENT, turn
from typer.testing import Result

from beanie_session_store import BeanieSessionStore

ANSWER = {
    "type": "assistant",
    "timestamp": "2026-11-24T00:00:00.000Z",
    "message": {
        "id": "m1",
        "model": "opus",
        "usage": {"output_tokens": 5},
        "content": [{"type": "tool_use", "id": "t1", "name": "Bash", "input": {}}],
    },
}
VALUES: list[Any] = [
    *(None, True, 0, -1, 2**31, Int64(2**62), Int64(-(2**62)), 1.5, math.nan, math.inf, -math.inf),
    *("", "x", "x" * 40_000, "a\0\x1b[2J", "2020-01-01T00:00:00", "999999999999999999999"),
    *([], [1], [None, {}], {}, {"a": {"b": [1]}}, b"x", b"\x01x", ObjectId("a1" * 12)),
    *(datetime(1, 1, 1), datetime(9999, 12, 31), DatetimeMS(2**62), DatetimeMS(-(2**62))),
    *(Regex("("), Decimal128("NaN"), Decimal128("1E+6000"), Timestamp(1, 1), MinKey(), MaxKey()),
    *(Code("x"), Binary(b"x" * 16, 4), DBRef("a", 1)),
    # The year 58875, which microseconds taken for milliseconds are.
    1_795_620_824_266_000,
]
FIELDS = [
    *("mtime", "title", "first_prompt", "branch", "cwd", "tag", "metadata", "packed_metadata"),
    *("metadata.user", "data", "packed_data", "data_chunks", "next_seq"),
    *("created_at", "active_at", "held_at", "expires_at"),
    *("totals", "totals.next_seq", "totals.entries", "totals.turns", "totals.cost_usd"),
    *("totals.first_at", "totals.usage", "totals.tools"),
    *(f"totals.usage.0.{name}" for name in ("day", "model", "responses", "output", "cost_usd")),
    *(f"totals.tools.0.{name}" for name in ("name", "calls", "errors")),
]

FIGURES = ("responses", "input", "output", "cache_creation", "cache_read", "cost_usd")


@pytest.fixture(scope="module", params=[12, pytest.param(3, marks=pytest.mark.soak)])
def odd(mongo_url: str, request: pytest.FixtureRequest) -> Iterator[tuple[str, str, list[str]]]:
    """A database with one session for each field and value, and one that is sound."""
    database = "test_stored_values"

    async def fill() -> None:
        async with BeanieSessionStore.connect(mongo_url, database=database) as store:
            await store.append(KEY, [*turn(1), ANSWER])
            await store.append(SUBAGENT, turn(2))

    with MongoClient(mongo_url) as client:
        client.drop_database(database)
        asyncio.run(fill())
        summaries = client[database]["claude_transcript_summaries"]
        entries = client[database]["claude_transcript_entries"]
        (sound,) = summaries.find({})
        stored = list(entries.find({}))
        ids: list[str] = []
        for turn_of, field in enumerate(FIELDS):
            # Each field a part of the values, each value in a part of the fields.
            for number, value in [*enumerate(VALUES)][turn_of % request.param :: request.param]:
                name = f"{field}-{number:02}"
                ids.append(name)
                summaries.insert_one({**sound, "_id": ObjectId(), "session_id": name})
                summaries.update_one({"session_id": name}, {"$set": {field: value}})
            # What a command reads of each is the same.
            many = [{**row, "_id": ObjectId(), "session_id": ids[-1]} for row in stored]
            entries.insert_many(many)
        yield mongo_url, database, ids
        client.drop_database(database)


def call(odd: tuple[str, str, list[str]], *arguments: str) -> Result:
    url, database, _ = odd
    finished = invoked(["--url", url, "--database", database, *arguments])
    # Not one of ours, which have an exit code.
    assert finished.exception is None or isinstance(finished.exception, SystemExit), (
        arguments,
        finished.exception,
        finished.exc_info,
    )
    return finished


def test_all_of_them_are_listed(odd: tuple[str, str, list[str]]) -> None:
    shown: set[str] = set()
    cursor: list[str] = []
    for _ in range(100):
        finished = call(odd, "--json", "sessions", "--limit", "100", *cursor)
        assert finished.exit_code == 0, finished.output
        page = json.loads(finished.stdout.splitlines()[0])
        shown |= {each["session_id"] for each in page["sessions"]}
        if page["after"] is None:
            break
        cursor = ["--after", page["after"]]
    # What has no date of its last activity has no place in an order by it; what has another date
    # of expiry may have expired.
    odd_dates = re.compile(r"active_at|expires_at")
    assert {name for name in odd[2] if not odd_dates.match(name)} | {"session"} <= shown
    assert call(odd, "sessions", "--limit", "1000").exit_code == 0


@pytest.mark.parametrize(
    "groups", [[], ["day"], ["model", "tag"], ["branch", "project"], ["metadata.user", "day"]]
)
def test_they_are_added_up(odd: tuple[str, str, list[str]], groups: list[str]) -> None:
    by = [word for group in groups for word in ("--by", group)]
    for form in ([], ["--json"], ["--chart", "tokens"], ["--chart", "cost"]):
        finished = call(odd, "stats", "--since", "2000-01-01", *by, *form)
        assert finished.exit_code == 0, finished.output
        if form == ["--json"]:
            found = json.loads(finished.stdout.splitlines()[-1])
            for row in (*found["rows"], found["total"], *found["days"]):
                # A cost that is not known is null.
                assert all(math.isfinite(row[name] or 0) for name in FIGURES), row
            # Of each session with its own figures the five tokens, and one odd number or none.
            spoilt = ("totals", "expires_at", "active_at")
            usual = sum(not name.startswith(spoilt) for name in odd[2])
            assert found["total"]["output"] >= 5 * usual


def test_they_are_verified_and_exported(odd: tuple[str, str, list[str]], tmp_path: Path) -> None:
    finished = call(odd, "--json", "verify")
    assert finished.exit_code == 1
    report = json.loads(finished.stdout.splitlines()[-1])
    assert report["sessions"] >= len(odd[2]) * 0.9
    for form in ("jsonl", "html", "markdown"):
        finished = call(odd, "--json", "export", "--format", form, str(tmp_path / form))
        report = json.loads(finished.stdout.splitlines()[-1])
        assert report["changed"] >= len(odd[2]) * 0.9, report
        assert (tmp_path / form / KEY["project_key"]).is_dir()


def test_each_is_shown_and_described_before_it_would_be_deleted(
    odd: tuple[str, str, list[str]],
) -> None:
    # Every value, in some of the fields: all are read in the same way.
    for name in odd[2][::4]:
        finished = call(odd, "show", name)
        assert finished.exit_code in (0, 1), finished.output
        finished = call(odd, "delete", name)
        assert finished.exit_code in (1, 2), finished.output
        assert "nobody to ask" in finished.output or "no session" in finished.output


def test_what_would_end_is_counted_whatever_their_dates(odd: tuple[str, str, list[str]]) -> None:
    for keep in ("1s", "36500d", "forever"):
        finished = call(odd, "retention", "set", keep, "--all-tenants")
        assert finished.exit_code == 2, finished.output
        assert "would end at once" in finished.output


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(value, id=repr(value)[:20], marks=[pytest.mark.soak] if number % 3 else [])
        for number, value in enumerate(VALUES)
    ],
)
def test_no_stored_policy_crashes_a_command(odd: tuple[str, str, list[str]], value: Any) -> None:
    url, database, _ = odd
    at = datetime.now(timezone.utc)
    with MongoClient(url) as client:
        policies = client[database]["claude_retention_policies"]
        policies.delete_many({})
        policies.insert_one(
            {"tenant": "other", "project_key": "*", "keep_seconds": value, "updated_at": value}
        )
        policies.insert_one(
            {"tenant": "default", "project_key": "*", "keep_seconds": value, "updated_at": at}
        )
    for arguments in (
        ["retention", "show"],
        ["--json", "retention", "show"],
    ):
        assert call(odd, *arguments).exit_code == 0
    examined = call(odd, "--json", "doctor")
    # What has expired may not be taken yet, which is bad, on a busy machine.
    findings = {each["check"]: each["verdict"] for each in json.loads(examined.output)["findings"]}
    assert {name for name, verdict in findings.items() if verdict == "bad"} <= {"retention"}
    assert call(odd, "retention", "set", "1s", "--all-tenants").exit_code == 2
    with MongoClient(url) as client:
        client[database]["claude_retention_policies"].delete_many({})
