"""Sessions that a resume copied whole into new files: their responses and calls count once."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from support.entries import assert_summary_is_the_fold

from beanie_session_store import (
    BeanieSessionStore,
    SessionSummary,
    export_transcripts,
    import_transcripts,
)
from beanie_session_store.app.database.driver import collection_of

Entry = dict[str, Any]
PROJECT = "-srv-app"


@pytest.fixture
def projects(tmp_path: Path) -> Path:
    return tmp_path / "projects"


def history(name: str, responses: int, first: int = 0, **fields: Any) -> list[Entry]:
    """Prompts, each answered by a call that fails and what the model says then: 220 tokens."""
    entries: list[Entry] = []
    for number in range(first, first + responses):
        call = f"toolu_{name}{number}"
        use = {"type": "tool_use", "id": call, "name": "Bash", "input": {}}
        gone = {"type": "tool_result", "tool_use_id": call, "content": "x", "is_error": True}
        entries += [
            _entry("user", "go on", **fields),
            _entry("assistant", [use], f"msg_{name}{number}a", **fields),
            _entry("user", [gone], **fields),
            _entry("assistant", [{"type": "text", "text": "x"}], f"msg_{name}{number}b", **fields),
        ]
    return entries


def _entry(kind: str, content: Any, response: str | None = None, **fields: Any) -> Entry:
    message: Entry = {"role": kind, "content": content}
    if response is not None:
        usage = {"input_tokens": 100, "output_tokens": 10}
        message |= {"id": response, "model": "opus", "usage": usage}
    return {"type": kind, "uuid": str(uuid.uuid4()), **fields, "message": message}


def resumed(entries: Sequence[Entry], session_id: str) -> list[Entry]:
    """What an older agent began a new file with: other session id, same uuids."""
    summary = {"type": "summary", "summary": "Before", "leafUuid": entries[-1]["uuid"]}
    return [summary, *({**entry, "sessionId": session_id} for entry in entries)]


def write(projects: Path, session_id: str, entries: Sequence[Entry], at: int = 0) -> None:
    path = projects / PROJECT / f"{session_id}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    os.utime(path, (1_700_000_000 + at, 1_700_000_000 + at))


def key(session_id: str) -> Any:
    return {"project_key": PROJECT, "session_id": session_id}


async def responses_of(session_id: str) -> int:
    summary = await SessionSummary.find_one({"session_id": session_id})
    assert summary is not None
    assert summary.totals is not None
    return sum(row.responses for row in summary.totals.usage)


async def assert_counted(store: BeanieSessionStore, **sessions: int) -> None:
    """So many rounds of ``history`` count in each session, by every way to ask."""
    used = await store.usage()
    rounds = sum(sessions.values())
    assert sum(row.responses for row in used) == 2 * rounds
    assert sum(row.input for row in used) == 200 * rounds
    assert [(tool.name, tool.calls, tool.errors) for tool in await store.tools()] == [
        ("Bash", rounds, rounds)
    ]
    for session_id, expected in sessions.items():
        assert await responses_of(session_id) == 2 * expected
        assert (await store.verify(key(session_id))).differences == ()
        transcript = await store.transcript(key(session_id))
        assert transcript is not None
        found = transcript.total_usage.values()
        assert sum(each.responses for each in found) == 2 * expected
        assert transcript.usage == transcript.total_usage
        in_file = {
            entry["message"]["id"]
            for entry in await store.load(key(session_id)) or ()
            if entry["type"] == "assistant"
        }
        copied = sum(each.responses for each in transcript.copied_usage.values())
        assert copied == len(in_file) - 2 * expected


@pytest.mark.parametrize("workers", [1, 8])
@pytest.mark.parametrize("rounds", [1, 3, 150, pytest.param(700, marks=pytest.mark.soak)])
async def test_a_copied_history_counts_where_it_was_first(
    projects: Path, store: BeanieSessionStore, rounds: int, workers: int
) -> None:
    first = history("a", rounds)
    second = [*resumed(first, "b"), *history("b", 2)]
    write(projects, "z", first, at=1)
    write(projects, "b", second, at=2)
    write(projects, "a", [*resumed(second, "a"), *history("c", 1)], at=3)
    write(projects, "other", history("d", 5), at=2)
    await import_transcripts(store, projects, workers=workers)
    await assert_counted(store, z=rounds, b=2, a=1, other=5)
    for session_id in ("z", "b", "a"):
        await assert_summary_is_the_fold(store, key(session_id))
    again = await import_transcripts(store, projects, workers=workers)
    assert (again.changed, again.entries) == (0, 0)
    await assert_counted(store, z=rounds, b=2, a=1, other=5)


async def test_a_copy_that_nothing_was_added_to_counts_nothing(
    projects: Path, store: BeanieSessionStore
) -> None:
    first = history("a", 3)
    write(projects, "a", first, at=1)
    write(projects, "b", first, at=2)
    await import_transcripts(store, projects)
    await assert_counted(store, a=3, b=0)
    summary = await SessionSummary.find_one({"session_id": "b"})
    assert summary is not None
    assert summary.totals is not None
    assert (summary.totals.turns, summary.totals.entries) == (3, 12)
    assert summary.totals.copied_until == 12


async def test_sessions_that_go_on_count_what_is_new(
    projects: Path, store: BeanieSessionStore
) -> None:
    first = history("a", 3)
    write(projects, "a", first, at=1)
    write(projects, "b", resumed(first, "b"), at=2)
    await import_transcripts(store, projects)
    await assert_counted(store, a=3, b=0)
    # Now the copy is the older of the two.
    write(projects, "b", [*resumed(first, "b"), *history("b", 1)], at=3)
    write(projects, "a", [*first, *history("c", 2)], at=4)
    await import_transcripts(store, projects)
    await assert_counted(store, a=5, b=1)
    more = history("e", 1)
    for entry in more:
        await BeanieSessionStore().append(key("b"), [entry])
    await assert_counted(store, a=5, b=2)
    # Written again in the same session, it is still what was copied.
    again = [{**entry, "uuid": str(uuid.uuid4())} for entry in more]
    await store.append(key("b"), again)
    await assert_counted(store, a=5, b=2)


async def test_a_copy_from_before_the_original_went_on(
    projects: Path, store: BeanieSessionStore
) -> None:
    first = history("a", 3)
    write(projects, "a", [*first, *history("c", 2)], at=9)
    write(projects, "b", [*resumed(first, "b"), *history("b", 1)], at=2)
    await import_transcripts(store, projects)
    await assert_counted(store, a=2, b=4)


async def test_an_import_that_ended_early_is_taken_up(
    projects: Path, store: BeanieSessionStore
) -> None:
    first = history("a", 400)
    write(projects, "a", first, at=1)
    write(projects, "b", [*resumed(first, "b"), *history("b", 1)], at=2)
    calls = 0

    def stop(report: Any) -> None:
        nonlocal calls
        calls += 1
        # In the midst of the copy.
        if calls == 7:
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        await import_transcripts(store, projects, workers=1, on_progress=stop)
    part = await store.load(key("b"))
    assert part is not None
    assert 0 < len(part) < 1600
    await import_transcripts(store, projects)
    await assert_counted(store, a=400, b=1)


async def test_what_was_counted_stays_counted(projects: Path, store: BeanieSessionStore) -> None:
    """A session that was mirrored before its original came is not uncounted by halves."""
    first = history("a", 3)
    copy = resumed(first, "b")
    await store.append(key("b"), copy[:6])
    write(projects, "a", first, at=1)
    write(projects, "b", [*copy, *history("b", 1)], at=2)
    await import_transcripts(store, projects)
    assert await responses_of("a") == 6
    assert await responses_of("b") == 8
    for session_id in ("a", "b"):
        assert (await store.verify(key(session_id))).differences == ()


async def test_a_fork_with_marks_does_not_take_the_original_with_it(
    projects: Path, store: BeanieSessionStore
) -> None:
    first = history("a", 3)
    marked = [{**e, "forkedFrom": {"sessionId": "a", "messageUuid": e["uuid"]}} for e in first]
    write(projects, "b", [*marked, *history("b", 1)], at=1)
    write(projects, "a", first, at=2)
    await import_transcripts(store, projects)
    await assert_counted(store, a=3, b=1)


async def test_equal_ids_under_other_uuids_or_in_other_projects_are_no_copies(
    projects: Path, store: BeanieSessionStore
) -> None:
    first = history("a", 2)
    write(projects, "a", first, at=1)
    write(projects, "b", [{**entry, "uuid": str(uuid.uuid4())} for entry in first], at=2)
    await import_transcripts(store, projects)
    await assert_counted(store, a=2, b=2)


async def test_repair_and_a_deleted_subagent_leave_the_copy_uncounted(
    projects: Path, store: BeanieSessionStore
) -> None:
    first = history("a", 2)
    write(projects, "a", first, at=1)
    write(projects, "b", [*resumed(first, "b"), *history("b", 1)], at=2)
    await import_transcripts(store, projects)
    subagent = {**key("b"), "subpath": "subagents/agent-a1"}
    await store.append(subagent, history("s", 1))
    assert await responses_of("b") == 4
    await store.delete(subagent)
    await assert_counted(store, a=2, b=1)
    await collection_of(SessionSummary).update_one(
        {"session_id": "b"}, {"$set": {"totals.turns": 99}}
    )
    await store.repair(key("b"))
    await assert_counted(store, a=2, b=1)


async def test_what_was_exported_counts_alike_when_it_is_imported(
    projects: Path, store: BeanieSessionStore, tmp_path: Path
) -> None:
    first = history("a", 2)
    write(projects, "a", first, at=1)
    write(projects, "b", [*resumed(first, "b"), *history("b", 1)], at=2)
    await import_transcripts(store, projects)
    await export_transcripts(store, tmp_path / "exported")
    # What takes their place begins behind what was there, if that is not removed yet.
    for session_id in ("a", "b"):
        await store.delete(key(session_id))
    await import_transcripts(store, tmp_path / "exported")
    await assert_counted(store, a=2, b=1)
    await BeanieSessionStore().append(key("b"), history("e", 1))
    await assert_counted(store, a=2, b=2)
