"""Importing from disk: each line once, whatever is in the way."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import signal
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from claude_agent_sdk import import_session_to_store
from support.command import SessionStoreCommand
from support.entries import assert_summary_is_the_fold, marker, message, turn
from support.processes import PREPARED
from support.server import connected, failing, forget_killed, of_one_to_kill, profiled
from support.watchdog import WATCHDOG_SECONDS

from beanie_session_store import (
    BeanieSessionStore,
    NewSession,
    SchemaOutdatedError,
    SessionSummary,
    TranscriptEntry,
    TransferError,
    import_transcripts,
    set_retention,
)
from beanie_session_store.app.database.driver import Database
from beanie_session_store.app.files.jsonl import batches
from beanie_session_store.app.jobs import imports

PROJECT = "-srv-app"
SESSION = "11111111-1111-4111-8111-111111111111"
KEY: Any = {"project_key": PROJECT, "session_id": SESSION}
SUBAGENT: Any = {**KEY, "subpath": "subagents/agent-a1"}


@pytest.fixture
def command(mongo_url: str, database_name: str) -> SessionStoreCommand:
    return SessionStoreCommand(mongo_url, database_name)


@pytest.fixture
def projects(tmp_path: Path) -> Path:
    return tmp_path / "projects"


def write(path: Path, *lines: Any) -> Path:
    """A file of JSON lines; bytes are lines as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    path.write_bytes(b"".join(line + b"\n" for line in raw))
    return path


def main(projects: Path, session_id: str = SESSION, project: str = PROJECT) -> Path:
    return projects / project / f"{session_id}.jsonl"


async def test_only_what_is_new_is_added(projects: Path, store: BeanieSessionStore) -> None:
    lines = [*turn(1), *turn(2)]
    write(main(projects), *lines)
    assert (await import_transcripts(store, projects)).entries == 12
    grown = [*lines, *turn(3)]
    write(main(projects), *grown)
    report = await import_transcripts(store, projects)
    assert (report.changed, report.entries) == (1, 6)
    assert await store.load(KEY) == grown
    await assert_summary_is_the_fold(store, KEY)


async def test_entries_without_uuid_are_recognised_where_no_neighbour_has_one(
    projects: Path, store: BeanieSessionStore
) -> None:
    """Older agents wrote files of nothing but summaries."""
    lines = [marker("same"), marker("same"), {"type": "summary", "summary": "A talk"}]
    write(main(projects), *lines)
    for entries in (3, 0, 0):
        assert (await import_transcripts(store, projects)).entries == entries
    write(main(projects), *lines, marker("same"))
    assert (await import_transcripts(store, projects)).entries == 1
    assert await store.load(KEY) == [*lines, marker("same")]


async def test_a_transcript_that_had_no_uuid_yet_goes_on(
    projects: Path, store: BeanieSessionStore
) -> None:
    lines = [marker("queued"), marker("same"), *turn(1)]
    for count, entries in ((1, 1), (2, 1), (8, 6), (8, 0)):
        write(main(projects), *lines[:count])
        assert (await import_transcripts(store, projects)).entries == entries
    assert await store.load(KEY) == lines


async def test_repeated_entries_behind_what_is_stored_are_not_taken_for_it(
    projects: Path, store: BeanieSessionStore
) -> None:
    lines = [marker("same")] * 1600
    for count in (100, 1600, 1600):
        write(main(projects), *lines[:count])
        await import_transcripts(store, projects)
        assert await store.load(KEY) == lines[:count]


async def test_equal_entries_of_another_conversation_are_not_taken_for_ones_own(
    projects: Path, store: BeanieSessionStore
) -> None:
    other, lines = turn(1), turn(1)
    await store.append(KEY, other)
    write(main(projects), *lines)
    assert (await import_transcripts(store, projects)).entries == 6
    assert (await import_transcripts(store, projects)).entries == 0
    assert await store.load(KEY) == [*other, *lines]


async def test_equal_entries_that_others_store_meanwhile_are_not_taken_for_ones_own(
    store: BeanieSessionStore,
) -> None:
    first, second, same = message("first"), message("second"), marker("same")
    await store.append(KEY, [first])
    replay = await store.replay(KEY)
    assert await replay.add([first, marker("own")]) == 1
    await store.append(KEY, [same, same])
    assert await replay.add([same, same]) == 2
    await store.append(KEY, [second, same])
    assert await replay.add([second, same]) == 1
    assert replay.added == 4
    found = [entry.get("mode") for entry in await store.load(KEY) or []]
    assert found.count("same") == 6


async def test_entries_that_change_while_they_are_taken_are_stored_and_summed_up_alike(
    store: BeanieSessionStore,
) -> None:
    begun = turn(1)
    await store.append(KEY, begun)
    replay = await store.replay(KEY)
    for number in range(5):
        title = {"type": "custom-title", "customTitle": "before", "sessionId": "s", "n": number}
        task = asyncio.create_task(replay.add([*begun, message(f"{number}"), title]))
        while not task.done():
            await asyncio.sleep(0)
            title["customTitle"] += "!"
        await task
        await assert_summary_is_the_fold(store, KEY)


async def test_a_file_of_many_batches_without_uuid_is_recognised_whole(
    projects: Path, store: BeanieSessionStore
) -> None:
    lines = [marker("same" if number % 3 else f"mode-{number}") for number in range(1700)]
    write(main(projects), *lines)
    assert (await import_transcripts(store, projects)).entries == 1700
    assert (await import_transcripts(store, projects)).entries == 0
    assert await store.load(KEY) == lines


async def test_what_the_sdk_imported_is_recognised_and_the_other_way_round(
    projects: Path, store: BeanieSessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(main(projects), *turn(1), *turn(2))
    write(projects / PROJECT / SESSION / "subagents" / "agent-a1.jsonl", *turn(3))
    sidecar = projects / PROJECT / SESSION / "subagents" / "agent-a1.meta.json"
    sidecar.write_text('{"agentType":"general-purpose"}')
    monkeypatch.setenv("CLAUDE_CONFIG_DIR", str(projects.parent))
    await import_session_to_store(SESSION, store)
    assert (await import_transcripts(store)).entries == 0
    ours = BeanieSessionStore(tenant="ours")
    assert (await import_transcripts(ours)).entries == 19
    for key in (KEY, SUBAGENT):
        assert await ours.load(key) == await store.load(key)
    await import_session_to_store(SESSION, ours)
    for key in (KEY, SUBAGENT):
        assert await ours.load(key) == await store.load(key)


async def test_a_changed_sidecar_is_added_and_the_last_one_counts(
    projects: Path, store: BeanieSessionStore
) -> None:
    write(projects / PROJECT / SESSION / "subagents" / "agent-a1.jsonl", *turn(1))
    sidecar = projects / PROJECT / SESSION / "subagents" / "agent-a1.meta.json"
    for finished in (False, True, True):
        sidecar.write_text(json.dumps({"agentType": "x", "finished": finished, "type": "odd"}))
        await import_transcripts(store, projects)
    found = [e for e in await store.load(SUBAGENT) or [] if e["type"] == "agent_metadata"]
    assert [each["finished"] for each in found] == [False, True]


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        pytest.param(b'{"type": "user", "uuid": ', "no JSON", id="cut"),
        pytest.param(b"\0" * 100, "no JSON", id="zeros after a crash"),
        pytest.param(b'{"type": "user", "text": "\xff"}', "no UTF-8 at byte 26", id="bytes"),
        pytest.param(b"[1, 2]", "no object: list", id="array"),
        pytest.param(b'"text"', "no object: str", id="string"),
    ],
)
async def test_a_broken_line_is_named_and_skipped(
    projects: Path, store: BeanieSessionStore, broken: bytes, reason: str
) -> None:
    before, after = turn(1), turn(2)
    path = write(main(projects), *before, broken, b"", b"  ", *after)
    other = write(main(projects, "22222222-2222-4222-8222-222222222222"), *turn(3))
    problems: list[Any] = []
    report = await import_transcripts(store, projects, on_problem=problems.append)
    assert (report.changed, report.failed, report.skipped_lines) == (2, 0, 1)
    (problem,) = problems
    assert problem.where == f"{path}:7"
    assert reason in problem.reason
    assert await store.load(KEY) == [*before, *after]
    assert await store.load({**KEY, "session_id": other.stem})
    # Repaired, the line goes where lines that come late go.
    write(main(projects), *before, marker("repaired"), *after)
    assert (await import_transcripts(store, projects)).entries == 1


def test_a_line_without_end_takes_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "zeros.jsonl"
    with path.open("wb") as file:
        file.truncate(64 * 1024 * 1024)
        file.seek(0, os.SEEK_END)
        file.write(b'\n{"type": "mode"}\n')
    broken: list[Any] = []
    tracemalloc.start()
    try:
        found = [entry for batch in batches(path, broken.append) for entry in batch.entries]
        assert tracemalloc.get_traced_memory()[1] < 16 * 1024 * 1024
    finally:
        tracemalloc.stop()
    assert found == [{"type": "mode"}]
    assert [each.where for each in broken] == [f"{path}:1"]


@pytest.mark.parametrize("length", [2**20 - 1, 2**20, 2**20 + 1, 2**21, 3 * 2**20])
def test_lines_of_any_length_are_read_whole(tmp_path: Path, length: int) -> None:
    entry = {"type": "x", "text": ""}
    entry["text"] = "x" * (length - len(json.dumps(entry)))
    for end in (b"", b"\n", b"\n\n"):
        path = write(tmp_path / "long.jsonl", marker(), entry)
        path.write_bytes(path.read_bytes()[:-1] + end)
        found = [each for batch in batches(path, pytest.fail) for each in batch.entries]
        assert found == [marker(), entry]


async def test_the_last_line_of_a_file_that_is_being_written_comes_with_the_next_import(
    projects: Path, store: BeanieSessionStore
) -> None:
    lines = turn(1)
    path = write(main(projects), *lines)
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    report = await import_transcripts(store, projects)
    assert (report.entries, report.skipped_lines) == (5, 1)
    assert "in the middle of a write" in report.problems[0].reason
    path.write_bytes(whole)
    await import_transcripts(store, projects)
    assert await store.load(KEY) == lines


async def test_a_line_without_newline_at_the_end_is_an_entry(
    projects: Path, store: BeanieSessionStore
) -> None:
    path = write(main(projects), *turn(1))
    path.write_bytes(path.read_bytes()[:-1])
    report = await import_transcripts(store, projects)
    assert (report.entries, report.skipped_lines) == (6, 0)


async def test_only_newlines_end_lines(projects: Path, store: BeanieSessionStore) -> None:
    entry = message("one\u2028line\u0085of\x0bone\x1eentry \ud83d")
    write(main(projects), json.dumps(entry, ensure_ascii=False).encode(errors="backslashreplace"))
    await import_transcripts(store, projects)
    assert await store.load(KEY) == [entry]


async def test_deep_and_huge_entries_are_imported(
    projects: Path, store: BeanieSessionStore
) -> None:
    deep: Any = "bottom"
    for _ in range(700):
        deep = [deep]
    lines = [message("deep", deep=deep), message("x" * 20_000_000), message("after")]
    write(main(projects), *lines)
    assert (await import_transcripts(store, projects)).entries == 3
    assert await store.load(KEY) == lines
    assert (await import_transcripts(store, projects)).entries == 0


async def test_files_that_are_no_transcripts_are_left_alone(
    projects: Path, store: BeanieSessionStore
) -> None:
    write(main(projects), *turn(1))
    write(projects / PROJECT / "memory" / "MEMORY.md", b"# notes")
    write(projects / PROJECT / SESSION / "tool-results" / "long.jsonl", b"no entry")
    write(projects / PROJECT / "memory" / "subagents.jsonl", b"no entry")
    (projects / "empty").mkdir()
    report = await import_transcripts(store, projects)
    assert (report.listed, report.entries, report.skipped_lines) == (1, 6, 0)


@pytest.mark.parametrize(
    "named",
    [
        pytest.param(lambda p: p.parent, id="configuration folder"),
        pytest.param(lambda p: p, id="projects"),
        pytest.param(lambda p: p / PROJECT, id="project"),
        pytest.param(main, id="file"),
    ],
)
async def test_each_kind_of_path_brings_the_session_with_its_subagents(
    projects: Path, store: BeanieSessionStore, named: Callable[[Path], Path]
) -> None:
    write(main(projects), *turn(1))
    nested = projects / PROJECT / SESSION / "subagents" / "workflows" / "run-1" / "agent-b.jsonl"
    write(nested, *turn(2))
    await import_transcripts(store, named(projects))
    assert await store.list_subkeys(KEY) == ["subagents/workflows/run-1/agent-b"]
    assert await store.load(KEY)


async def test_the_file_of_a_subagent_brings_that_transcript_alone(
    projects: Path, store: BeanieSessionStore
) -> None:
    write(main(projects), *turn(1))
    path = write(projects / PROJECT / SESSION / "subagents" / "agent-a1.jsonl", *turn(2))
    await import_transcripts(store, path)
    assert await store.load(KEY) is None
    assert len(await store.load(SUBAGENT) or []) == 6


async def test_sessions_have_the_times_of_their_files(
    projects: Path, store: BeanieSessionStore
) -> None:
    ids = [f"{number}{SESSION[1:]}" for number in (3, 1, 2)]
    for number, session_id in enumerate(ids):
        path = write(main(projects, session_id), *turn(number))
        os.utime(path, (1_700_000_000 + number, 1_700_000_000 + number))
    await import_transcripts(store, projects)
    listed = sorted(await store.list_sessions(PROJECT), key=lambda each: each["mtime"])
    assert [each["session_id"] for each in listed] == ids
    assert listed[0]["mtime"] == 1_700_000_000_000
    await store.append({**KEY, "session_id": ids[0]}, [message("later")])
    (found,) = [s for s in await store.list_sessions(PROJECT) if s["session_id"] == ids[0]]
    assert found["mtime"] > 1_700_000_100_000


async def test_an_unreadable_file_costs_no_other_session(
    projects: Path, store: BeanieSessionStore
) -> None:
    write(main(projects), *turn(1), message("x" * 100_000))
    other = write(main(projects, "22222222-2222-4222-8222-222222222222"), *turn(2))
    problems: list[Any] = []

    def vanish(report: Any) -> None:
        # The agent cleans old sessions up while they are imported.
        other.unlink(missing_ok=True)

    os.utime(main(projects), (1, 1))
    report = await import_transcripts(
        store, projects, workers=1, on_progress=vanish, on_problem=problems.append
    )
    assert (report.changed, report.failed) == (1, 1)
    assert "No such file" in str(problems[0])


async def test_what_is_no_file_among_the_subagents_costs_no_session(
    projects: Path, store: BeanieSessionStore
) -> None:
    write(main(projects), *turn(1))
    below = projects / PROJECT / SESSION / "subagents"
    write(below / "agent-a1.jsonl", *turn(2))
    # Nobody writes to it, so that reading would wait for ever.
    os.mkfifo(below / "agent-pipe.jsonl")
    (below / "agent-folder.jsonl").mkdir()
    other = write(main(projects, "22222222-2222-4222-8222-222222222222"), *turn(3))
    report = await import_transcripts(store, projects)
    assert (report.changed, report.failed, report.problem_count) == (2, 0, 0)
    (below / "agent-gone.jsonl").symlink_to(projects / "nowhere")
    report = await import_transcripts(store, projects)
    assert (report.unchanged, report.failed) == (1, 1)
    assert "agent-gone.jsonl: cannot be read" in str(report.problems[0])
    assert await store.list_subkeys(KEY) == [SUBAGENT["subpath"]]
    assert await store.load({**KEY, "session_id": other.stem})


async def test_other_files_of_the_configuration_folder_do_not_hide_its_projects(
    projects: Path, store: BeanieSessionStore
) -> None:
    write(main(projects), *turn(1))
    write(projects.parent / "history.jsonl", {"display": "what was typed"})
    write(projects / "stray.jsonl", marker())
    for path in (projects.parent, projects):
        report = await import_transcripts(store, path)
        assert report.listed == 1
    assert await store.load(KEY)


async def test_a_session_in_two_places_brings_what_each_has(
    projects: Path, store: BeanieSessionStore
) -> None:
    """As after it was resumed on another host."""
    begin = turn(1)
    here = [message("here"), marker("here"), message("still here")]
    there = [message("there"), marker("there"), message("still there"), message("farther")]
    elsewhere = projects.parent / "elsewhere"
    write(main(projects), *begin, *here)
    write(main(elsewhere), *begin, *there)
    small(projects, 3)
    small(elsewhere, 3)
    await import_transcripts(store, projects, elsewhere, main(projects))
    assert await store.load(KEY) == [*begin, *here, *there]
    await assert_summary_is_the_fold(store, KEY)
    assert (await import_transcripts(store, projects, elsewhere)).entries == 0


async def test_names_that_are_no_text_cost_no_other_session(
    projects: Path, store: BeanieSessionStore, command: SessionStoreCommand
) -> None:
    write(main(projects), *turn(1))
    odd = write(
        Path(os.fsdecode(os.fsencode(projects / PROJECT) + b"/\xff\x1b[2J.jsonl")), *turn(2)
    )
    assert odd.exists()
    done = await command("--json", "import", projects)
    assert (done.code, done.json["changed"], done.json["failed"]) == (1, 1, 1)
    assert "lone surrogate" in done.errors
    assert "\x1b" not in done.errors


async def test_nothing_to_import_is_an_error(projects: Path, store: BeanieSessionStore) -> None:
    with pytest.raises(TransferError, match="There is no"):
        await import_transcripts(store, projects)
    projects.mkdir()
    with pytest.raises(TransferError, match="holds no transcripts"):
        await import_transcripts(store, projects)
    with pytest.raises(TransferError, match=r"no .jsonl file"):
        await import_transcripts(store, write(projects / "notes.txt", b"x"))


# Many small sessions at once


def small(projects: Path, count: int = 30) -> list[Path]:
    paths: list[Path] = []
    for number in range(count):
        session_id = f"{number:08d}{SESSION[8:]}"
        lines = [*turn(number), marker("same"), message("half \ud83d")]
        paths.append(write(main(projects, session_id, f"-project-{number % 3}"), *lines))
        below = paths[-1].with_suffix("") / "subagents"
        write(below / "agent-a1.jsonl", *turn(number), marker())
        (below / "agent-a1.meta.json").write_text('{"agentType":"x"}')
        write(below / "agent-a2.jsonl", marker())
    write(projects / "-project-0" / "nothing.jsonl")
    return paths


async def documents(tenant: str) -> tuple[list[Any], list[Any]]:
    """All that is stored of a tenant, but for ids and the time of the import."""
    order = ("project_key", "session_id", "seq")
    entries = await TranscriptEntry.find({"tenant": tenant}).sort(*order).to_list()
    summaries = await SessionSummary.find({"tenant": tenant}).sort(*order[:2]).to_list()
    left_out = {"id", "tenant", "created_at", "active_at"}
    return (
        [each.model_dump(exclude=left_out) for each in entries],
        [each.model_dump(exclude=left_out) for each in summaries],
    )


async def test_sessions_stored_together_are_as_those_stored_one_by_one(
    projects: Path, database: Database
) -> None:
    paths = small(projects)
    together = BeanieSessionStore(tenant="together", metadata={"user_id": "u1"})
    alone = BeanieSessionStore(tenant="alone", metadata={"user_id": "u1"})
    report = await import_transcripts(together, projects)
    assert (report.changed, report.unchanged, report.listed) == (30, 1, 31)
    for path in paths:
        await import_transcripts(alone, path)
    assert await documents("together") == await documents("alone")
    assert report.entries == len((await documents("alone"))[0])
    for path in paths:
        key = {"project_key": path.parent.name, "session_id": path.stem}
        await assert_summary_is_the_fold(together, key)
    # Appending goes on where they end.
    await together.append(key, [message("next")])
    assert (await together.load(key) or [])[-1]["message"]["content"] == "next"
    await assert_summary_is_the_fold(together, key)


async def test_odd_sessions_stored_together_are_as_those_stored_one_by_one(
    projects: Path, database: Database
) -> None:
    said = message("twice")
    lines: dict[str, list[Any]] = {
        "subagent alone": [],
        "no uuid": [marker("same")] * 3,
        "one uuid twice": [said, marker(), said, message("between"), said],
        "half a title": [{"type": "custom-title", "customTitle": "\ud83d" * 3}, message("x")],
        "beyond 64 bits": [message("x", number=2**70), message("$ref", x={"$ref": 1, "$id": 2})],
        "long ago": [message("x")],
    }
    for session_id, entries in lines.items():
        if entries:
            os.utime(write(main(projects, session_id), *entries), (-1000, -1000))
    write(main(projects, "subagent alone").with_suffix("") / "subagents" / "a.jsonl", *turn(1))
    together, alone = BeanieSessionStore(tenant="together"), BeanieSessionStore(tenant="alone")
    await import_transcripts(together, projects)
    for session_id in lines:
        replay = await alone.replay({**KEY, "session_id": session_id}, mtime=-1_000_000)
        key = {**KEY, "session_id": session_id}
        async for entry in together.stream(key, with_subagents=True):
            await replay.add([dict(entry)], entry.subpath)
    assert await documents("together") == await documents("alone")


async def test_what_takes_more_than_one_document_is_left_to_the_replay(
    store: BeanieSessionStore, smaller_limits: int
) -> None:
    large = random.Random(1).randbytes(18_000_000 // smaller_limits).hex()
    huge = NewSession("project", "huge", None, {"": [message(large)]})
    small = NewSession("project", "small", None, {"": [message("x")]})
    assert await store.insert_sessions([huge, small]) == [None, 1]
    assert [each.session_id async for each in store.all_sessions()] == ["small"]
    assert await store.insert_sessions([huge, small]) == [None, 0]


async def test_small_sessions_come_again_grow_and_meet_others(
    projects: Path, database: Database
) -> None:
    paths = small(projects)
    store = BeanieSessionStore()
    key: Any = {"project_key": paths[3].parent.name, "session_id": paths[3].stem}
    begun = paths[3].read_bytes().splitlines()[:3]
    await store.append(key, [json.loads(line) for line in begun])
    report = await import_transcripts(store, projects)
    assert (report.changed, report.failed) == (30, 0)
    again = await import_transcripts(store, projects)
    assert (again.unchanged, again.entries) == (31, 0)
    path = paths[7]
    path.write_bytes(path.read_bytes() + json.dumps(message("more")).encode() + b"\n")
    grown = await import_transcripts(store, projects)
    assert (grown.changed, grown.entries) == (1, 1)
    clean = BeanieSessionStore(tenant="clean")
    await import_transcripts(clean, projects)
    for each in paths:
        named: Any = {"project_key": each.parent.name, "session_id": each.stem}
        assert await store.load(named) == await clean.load(named)


async def test_two_imports_at_once_store_each_session_once(
    projects: Path, database: Database
) -> None:
    paths = small(projects)
    stores = [BeanieSessionStore(), BeanieSessionStore()]
    await asyncio.gather(*(import_transcripts(store, projects) for store in stores))
    clean = BeanieSessionStore(tenant="clean")
    await import_transcripts(clean, projects)
    for path in paths:
        key: Any = {"project_key": path.parent.name, "session_id": path.stem}
        uuids = [e.get("uuid") for e in await stores[0].load(key) or [] if "uuid" in e]
        assert uuids == [e.get("uuid") for e in await clean.load(key) or [] if "uuid" in e]
        await assert_summary_is_the_fold(stores[0], key)


async def test_small_sessions_expire_as_others_do(projects: Path, database: Database) -> None:
    small(projects, 4)
    await set_retention(database, timedelta(days=30))
    await import_transcripts(BeanieSessionStore(), projects)
    assert await SessionSummary.find({"expires_at": {"$exists": True}}).count() == 4
    assert not await TranscriptEntry.find({"expires_at": {"$exists": False}}).count()


async def test_without_transactions_sessions_are_stored_one_by_one(
    projects: Path, standalone_database: Database
) -> None:
    paths = small(projects, 5)
    store = BeanieSessionStore()
    assert (await import_transcripts(store, projects)).changed == 5
    assert (await import_transcripts(store, projects)).entries == 0
    key = {"project_key": paths[0].parent.name, "session_id": paths[0].stem}
    await assert_summary_is_the_fold(store, key)


async def test_of_a_session_that_has_grown_in_the_store_little_is_read(
    projects: Path, database: Database, store: BeanieSessionStore
) -> None:
    """It may be larger than the memory, however small its file is."""
    (path, *_) = small(projects, 3)
    await import_transcripts(store, projects)
    key: Any = {"project_key": path.parent.name, "session_id": path.stem}
    await store.append(key, [message("x") for _ in range(2000)])
    operations: list[Any] = []
    async with profiled(database, operations):
        assert (await import_transcripts(store, projects)).entries == 0
    assert operations
    assert max(each.get("nreturned", 0) for each in operations) < 100


@pytest.mark.parametrize("broken", ["find", "getMore"])
async def test_an_election_among_small_sessions_does_not_end_the_import(
    projects: Path, database: Database, store: BeanieSessionStore, broken: str
) -> None:
    paths = small(projects)
    await import_transcripts(store, projects)
    for path in paths:
        path.write_bytes(path.read_bytes() + json.dumps(message("more")).encode() + b"\n")
    interrupted = 11602
    async with failing(database, broken, {"times": 2}, errorCode=interrupted):
        report = await import_transcripts(store, projects)
    assert (report.changed, report.failed, report.entries) == (30, 0, 30)


async def test_an_import_that_ends_early_leaves_no_transaction_open(
    projects: Path, mongo_url: str, database: Database
) -> None:
    for number in range(8):
        lines = [message("x" * 100_000) for _ in range(20)]
        write(main(projects, f"{number:08d}{SESSION[8:]}"), *lines)

    class StopError(Exception):
        pass

    def stop(report: Any) -> None:
        raise StopError

    with pytest.raises(StopError):
        await import_transcripts(BeanieSessionStore(), projects, on_progress=stop)
    # The server's view, in which one that a client left stays for a minute.
    stages: list[Any] = [
        {"$currentOp": {"idleSessions": True}},
        {"$match": {"transaction.parameters.autocommit": False}},
    ]
    command = {"aggregate": 1, "pipeline": stages, "cursor": {}}
    assert (await database.client.admin.command(command))["cursor"]["firstBatch"] == []


async def test_what_every_session_would_meet_ends_the_import(
    projects: Path, mongo_url: str, database_name: str
) -> None:
    small(projects, 3)
    async with connected(mongo_url) as client:
        outdated = BeanieSessionStore.on(client[database_name])
        with pytest.raises(SchemaOutdatedError):
            await import_transcripts(outdated, projects)


# The command


async def test_the_command_sums_up_and_its_exit_code_tells_skipped_lines(
    projects: Path, command: SessionStoreCommand
) -> None:
    write(main(projects), *turn(1))
    done = await command("--json", "--tenant", "acme", "import", projects)
    assert done.code == 0
    assert (done.json["changed"], done.json["entries"]) == (1, 6)
    write(main(projects), *turn(1), b"{broken")
    done = await command("import", projects)
    assert done.code == 4
    assert f"{main(projects)}:7: no JSON" in done.errors
    assert "1 line skipped" in done.output
    again = await command("--json", "--tenant", "acme", "import", projects)
    assert (again.code, again.json["skipped_lines"], again.json["unchanged"]) == (4, 1, 0)


async def test_a_terminal_shows_how_far_it_is_at_which_rate_and_the_time_left(
    projects: Path, command: SessionStoreCommand
) -> None:
    small(projects)
    write(main(projects), *(message("x" * 100_000) for _ in range(200)))
    shown = await command.on_terminal(100, "import", projects, with_errors=True)
    plain = re.sub(r"\x1b\[[^A-Za-z]*[A-Za-z]", "", shown)
    assert re.search(r"importing \d+ of 32 sessions, [\d.]+ .?B, [\d.]+ .?B/s", plain)
    assert re.search(r" \d+% (-:--:--|\d+:\d\d:\d\d)", plain)
    # Nothing but the sum is left of it.
    last = "\x1b[2K32 of 32 sessions: 31 written (710 entries), 1 unchanged, 0 failed\n"
    assert shown.endswith(last)


@pytest.mark.parametrize("name", ["import", "export", "copy"])
async def test_every_help_has_an_example(command: SessionStoreCommand, name: str) -> None:
    shown = (await command(name, "--help")).output
    assert f"{name} " in shown.partition("Example: session-store --tenant acme")[2]


async def test_without_a_path_the_agents_own_projects_are_imported(
    projects: Path, command: SessionStoreCommand
) -> None:
    write(projects.parent / ".claude" / "projects" / PROJECT / f"{SESSION}.jsonl", *turn(1))
    done = await command("--json", "import", HOME=str(projects.parent), CLAUDE_CONFIG_DIR="")
    assert (done.code, done.json["entries"]) == (0, 6)


async def test_what_users_get_wrong_is_one_line(
    projects: Path, command: SessionStoreCommand
) -> None:
    write(main(projects), *turn(1))
    missing = await command("import", projects / "nowhere")
    assert missing.code == 2
    assert missing.errors.startswith("error: There is no ")
    assert missing.errors.count("\n") == 1
    no_server = await command(
        "--url",
        "mongodb://localhost:1/x?connectTimeoutMS=100&serverSelectionTimeoutMS=200",
        "import",
        projects,
    )
    assert no_server.code == 1
    assert no_server.errors.startswith("error: Could not ")
    assert no_server.errors.count("\n") == 1
    wrong_url = await command("--url", "http://x", "import", projects)
    assert (wrong_url.code, wrong_url.errors.count("\n")) == (2, 1)


# Killed in the middle


@pytest.mark.parametrize(
    ("small_ones", "large_ones", "kills"),
    [
        (110, 2, (500, 1000, 800)),
        pytest.param(250, 12, (1500, 3000, 2500), marks=pytest.mark.soak),
    ],
)
async def test_a_killed_import_that_is_run_again_ends_as_one_clean_run(
    projects: Path,
    mongo_url: str,
    database: Database,
    command: SessionStoreCommand,
    small_ones: int,
    large_ones: int,
    kills: tuple[int, ...],
) -> None:
    small(projects, small_ones)
    for number in range(large_ones):
        session_id = f"{number:08d}{SESSION[8:]}"
        lines = [entry for part in range(200) for entry in turn(part)]
        write(main(projects, session_id), *lines)
        write(projects / PROJECT / session_id / "subagents" / "agent-a1.jsonl", *turn(1), *turn(1))
    program = (
        "import asyncio, os, signal, sys\n"
        "from beanie_session_store import BeanieSessionStore, import_transcripts\n"
        "async def main():\n"
        "    async with BeanieSessionStore.connect(sys.argv[1], database=sys.argv[2]) as store:\n"
        "        def progress(report):\n"
        "            if report.entries >= int(sys.argv[4]):\n"
        "                os.kill(os.getpid(), signal.SIGKILL)\n"
        "        await import_transcripts(store, sys.argv[3], on_progress=progress)\n"
        "asyncio.run(main())\n"
    )
    store = BeanieSessionStore()
    stored = 0
    # Among the small ones, which are stored together, and within the large ones.
    for kill_at in kills:
        killed = await asyncio.create_subprocess_exec(
            *(PREPARED, "-c", program, of_one_to_kill(mongo_url), database.name),
            *(projects, str(kill_at)),
        )
        assert await killed.wait() == -signal.SIGKILL
        await forget_killed(mongo_url)
        before, stored = stored, await TranscriptEntry.count()
        assert before < stored < small_ones * 18 + large_ones * 1212
    done = await command("--json", "import", projects)
    assert (done.code, done.json["failed"]) == (0, 0), done.errors
    clean = BeanieSessionStore(tenant="clean")
    await import_transcripts(clean, projects)
    async for listing in clean.all_sessions():
        for subpath in ["", *await clean.list_subkeys(listing.subkeys_key)]:
            key = listing.key(subpath)
            assert await store.load(key) == await clean.load(key)
        await assert_summary_is_the_fold(store, listing.key())
    again = await import_transcripts(store, projects)
    assert (again.entries, again.unchanged) == (0, small_ones + large_ones + 1)


async def test_an_import_that_is_cancelled_while_a_file_is_read_waits_for_that(
    projects: Path, store: BeanieSessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(projects / PROJECT / f"{SESSION}.jsonl", message("x"))
    began, goes_on = threading.Event(), threading.Event()

    def slow(path: Path, on_broken: Any) -> Iterator[Any]:
        began.set()
        goes_on.wait(WATCHDOG_SECONDS)
        yield from batches(path, on_broken)

    monkeypatch.setattr(imports, "batches", slow)
    importing = asyncio.create_task(import_transcripts(store, projects))
    await asyncio.to_thread(began.wait, WATCHDOG_SECONDS)
    importing.cancel()
    await asyncio.sleep(0)
    goes_on.set()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(importing, WATCHDOG_SECONDS)
