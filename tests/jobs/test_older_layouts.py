"""Files of subagents beside that of their session, and what workflows keep beside their agents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.command import SessionStoreCommand
from support.entries import marker, message, turn

from beanie_session_store import (
    BeanieSessionStore,
    Transcript,
    export_transcripts,
    import_transcripts,
)

PROJECT = "-srv-app"
SESSION = "11111111-1111-4111-8111-111111111111"
OTHER = "22222222-2222-4222-8222-222222222222"
KEY: Any = {"project_key": PROJECT, "session_id": SESSION}


def agents(*texts: str, session: str = SESSION, agent: str = "x") -> list[dict[str, Any]]:
    return [message(text, isSidechain=True, agentId=agent, sessionId=session) for text in texts]


def write(path: Path, lines: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    path.write_bytes(b"".join(line + b"\n" for line in raw))
    return path


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "projects" / PROJECT
    write(folder / f"{SESSION}.jsonl", turn(1))
    return folder


async def sessions(store: BeanieSessionStore) -> dict[str, dict[str, Any]]:
    """The entries of every session, by subpath."""
    found: dict[str, dict[str, Any]] = {}
    async for listing in store.all_sessions():
        subpaths = ["", *await store.list_subkeys(listing.subkeys_key)]
        loaded = {subpath: await store.load(listing.key(subpath)) for subpath in subpaths}
        found[listing.session_id] = {path: each for path, each in loaded.items() if each}
    return found


@pytest.mark.parametrize("count", [2, 2_000])
async def test_a_file_beside_the_sessions_is_a_subagent_of_the_session_it_names(
    project: Path, store: BeanieSessionStore, count: int
) -> None:
    main = [json.loads(line) for line in (project / f"{SESSION}.jsonl").read_text().splitlines()]
    lines = agents(*(f"look {n} {'x' * 50}" for n in range(count)))
    write(project / "agent-x.jsonl", lines)
    report = await import_transcripts(store, project.parent)
    assert (report.listed, report.failed, report.problems) == (1, 0, [])
    assert await sessions(store) == {SESSION: {"": main, "subagents/agent-x": lines}}
    assert (await import_transcripts(store, project.parent)).entries == 0
    transcript = await store.transcript(KEY)
    assert transcript is not None
    assert [each.agent_id for each in transcript.subagents] == ["x"]
    assert (await store.verify(KEY)).is_sound


async def test_an_export_puts_it_where_todays_agent_has_it_and_comes_in_again(
    project: Path, store: BeanieSessionStore, tmp_path: Path
) -> None:
    write(project / "agent-x.jsonl", agents("look"))
    await import_transcripts(store, project.parent)
    await export_transcripts(store, tmp_path / "out")
    below = tmp_path / "out" / PROJECT
    assert (below / SESSION / "subagents" / "agent-x.jsonl").is_file()
    assert not (below / "agent-x.jsonl").exists()
    # Also over the tree that it came from, where both are.
    await export_transcripts(store, project.parent, overwrite=True)
    for folder in (tmp_path / "out", project.parent):
        report = await import_transcripts(store, folder)
        assert (report.entries, report.failed) == (0, 0)


async def test_two_files_of_one_subagent_bring_what_each_has(
    project: Path, store: BeanieSessionStore
) -> None:
    first, second, third = agents("one", "two", "three")
    write(project / "agent-x.jsonl", [first, second])
    write(project / SESSION / "subagents" / "agent-x.jsonl", [second, third])
    report = await import_transcripts(store, project.parent)
    assert report.failed == 0
    found = (await sessions(store))[SESSION]["subagents/agent-x"]
    assert sorted(each["message"]["content"] for each in found) == ["one", "three", "two"]


@pytest.mark.parametrize("text", ["look", "x" * 70_000])
async def test_one_whose_session_has_no_file_is_kept_and_reported(
    project: Path, store: BeanieSessionStore, text: str
) -> None:
    lines = agents(text, session=OTHER)
    path = write(project / "agent-x.jsonl", lines)
    report = await import_transcripts(store, project.parent)
    assert (await sessions(store))[OTHER] == {"subagents/agent-x": lines}
    (problem,) = report.problems
    assert problem.where == str(path)
    assert OTHER in problem.reason
    assert report.failed == 0
    # The session comes later, say from another disk.
    write(project / f"{OTHER}.jsonl", turn(2))
    report = await import_transcripts(store, project.parent)
    assert (report.entries, report.problems) == (6, [])


@pytest.mark.parametrize("text", ["look", "x" * 70_000])
async def test_one_that_names_several_sessions_is_of_the_first_and_reported(
    project: Path, store: BeanieSessionStore, text: str
) -> None:
    lines = [marker(), *agents(text), *agents("again", session=OTHER)]
    del lines[0]["sessionId"]
    path = write(project / "agent-x.jsonl", lines)
    report = await import_transcripts(store, project.parent)
    assert (await sessions(store))[SESSION]["subagents/agent-x"] == lines
    (problem,) = report.problems
    assert problem.where == str(path)
    assert OTHER in problem.reason


@pytest.mark.parametrize(
    ("lines", "broken"),
    [
        pytest.param([], 0, id="empty"),
        pytest.param([b"{broken", b"\xff"], 2, id="broken lines"),
        pytest.param([message("mine", sessionId="agent-x")], 0, id="a session of that name"),
        pytest.param([message("mine", sessionId=OTHER)], 0, id="no subagent wrote it"),
        pytest.param([message("mine")], 0, id="names no session"),
        pytest.param(agents("mine", session="a\0b"), 0, id="names what is no session"),
        pytest.param(agents("mine", session="s" * 2000), 0, id="names too much"),
    ],
)
async def test_one_that_names_no_session_is_its_own(
    project: Path, store: BeanieSessionStore, lines: list[Any], broken: int
) -> None:
    write(project / "agent-x.jsonl", lines)
    report = await import_transcripts(store, project.parent)
    assert (report.failed, report.skipped_lines, report.problem_count) == (0, broken, broken)
    found = await sessions(store)
    entries = [line for line in lines if isinstance(line, dict)]
    assert found.pop("agent-x", {"": []}) == {"": entries}
    assert found.keys() == {SESSION}


async def test_a_session_with_subagents_of_its_own_is_one_whatever_it_is_called(
    project: Path, store: BeanieSessionStore
) -> None:
    write(project / "agent-x.jsonl", agents("mine"))
    write(project / "agent-x" / "subagents" / "agent-y.jsonl", agents("its own"))
    await import_transcripts(store, project.parent)
    assert (await sessions(store)).keys() == {SESSION, "agent-x"}


async def test_one_file_named_alone(project: Path, store: BeanieSessionStore) -> None:
    path = write(project / "agent-x.jsonl", agents("look"))
    await import_transcripts(store, path)
    assert {key: list(each) for key, each in (await sessions(store)).items()} == {
        SESSION: ["subagents/agent-x"]
    }
    other = BeanieSessionStore(tenant="main")
    await import_transcripts(other, project / f"{SESSION}.jsonl")
    assert {key: list(each) for key, each in (await sessions(other)).items()} == {
        SESSION: ["", "subagents/agent-x"]
    }


# Workflows

RUN = "wf_57c6a296-6f2"
JOURNAL = [{"type": "started", "agentId": "a"}, {"type": "result", "agentId": "a", "result": {}}]


def launched(number: str, returned: Any, at: str) -> list[dict[str, Any]]:
    call = {"type": "tool_use", "id": number, "name": "Workflow", "input": {}}
    result = {"type": "tool_result", "tool_use_id": number, "content": "launched"}
    body = {"role": "assistant", "id": f"m{number}", "content": [call]}
    return [
        message(type="assistant", timestamp=at, message=body),
        message(
            timestamp=at, toolUseResult=returned, message={"role": "user", "content": [result]}
        ),
    ]


def began(name: str, at: str) -> list[dict[str, Any]]:
    metadata = {"type": "agent_metadata", "agentType": "workflow-subagent"}
    return [metadata, message(name, timestamp=at, isSidechain=True)]


@pytest.mark.parametrize(
    "returned",
    [
        {"status": "async_launched", "taskId": "w1", "runId": RUN},
        {"status": "async_launched", "transcriptDir": f"/p/{SESSION}/subagents/workflows/{RUN}"},
        {"transcriptDir": f"C:\\p\\{SESSION}\\subagents\\workflows\\{RUN}"},
    ],
)
def test_agents_of_a_workflow_are_of_the_call_that_ran_it(returned: Any) -> None:
    at = "2026-01-01T00:00:00.000Z"
    other = {"runId": "wf_other"}
    main = [*launched("t0", other, at), *launched("t1", returned, at)]
    folder = f"subagents/workflows/{RUN}"
    transcript = Transcript(
        main,
        {
            f"{folder}/agent-a": began("a", at),
            f"{folder}/deeper/agent-b": began("b", at),
            f"{folder}/journal": JOURNAL,
            "subagents/workflows/wf_lost/agent-c": began("c", at),
        },
    )
    calls = {each.agent_id: each.call and each.call.id for each in transcript.subagents}
    assert calls == {"a": "t1", "b": "t1", "c": None}
    assert [each.agent_id for each in transcript.tool_calls[1].subagents] == ["a", "b"]
    assert [each.raw for each in transcript.journals[f"{folder}/journal"]] == JOURNAL


def test_agents_of_a_run_that_was_taken_up_again_are_of_the_later_call() -> None:
    times = [f"2026-01-01T00:0{n}:00.000Z" for n in range(5)]
    main = [*launched("t1", {"runId": RUN}, times[0]), *launched("t2", {"runId": RUN}, times[2])]
    folder = f"subagents/workflows/{RUN}"
    transcript = Transcript(
        main,
        {
            f"{folder}/agent-{name}": began(name, at)
            for name, at in zip("abc", times[1:4], strict=True)
        },
    )
    calls = [each.call and each.call.id for each in transcript.subagents]
    assert calls == ["t1", "t2", "t2"]


async def test_a_journal_is_kept_and_exported_and_shown_nowhere_as_an_agent(
    store: BeanieSessionStore, database: Any, mongo_url: str, tmp_path: Path
) -> None:
    key: Any = {"project_key": "project", "session_id": "session"}
    at = "2026-01-01T00:00:00.000Z"
    folder = f"subagents/workflows/{RUN}"
    await store.append(key, [message("Check all"), *launched("t1", {"runId": RUN}, at)])
    await store.append({**key, "subpath": f"{folder}/agent-a"}, began("check one", at))
    await store.append({**key, "subpath": f"{folder}/journal"}, JOURNAL)
    await export_transcripts(store, tmp_path)
    exported = tmp_path / "project" / "session" / folder
    found = [json.loads(line) for line in (exported / "journal.jsonl").read_text().splitlines()]
    assert found == JOURNAL
    again = BeanieSessionStore(tenant="again")
    await import_transcripts(again, tmp_path)
    assert await again.load({**key, "subpath": f"{folder}/journal"}) == JOURNAL
    watched = store.watch(key, with_subagents=True)
    subpaths = {(await anext(watched)).subpath for _ in range(7)}
    await watched.aclose()
    assert f"{folder}/journal" in subpaths
    shown = await SessionStoreCommand(mongo_url, database.name)("show", "session")
    assert "1, with 2 entries" in shown.output
    assert "journal" not in shown.output
    # The agent stands above what its call returned.
    assert shown.output.index("check one") < shown.output.index("launched")
