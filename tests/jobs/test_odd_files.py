"""One bad file costs no other: whatever lies in a tree, all that is sound in it is imported."""

from __future__ import annotations

import errno
import io
import json
import os
import socket
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.command import SessionStoreCommand
from support.entries import assert_summary_is_the_fold, turn

from beanie_session_store import (
    BeanieSessionStore,
    SessionSummary,
    export_transcripts,
    import_transcripts,
    verify_sessions,
)
from beanie_session_store.app.database.driver import Database
from beanie_session_store.app.files import layout

GOOD = "11111111-1111-4111-8111-111111111111"
BAD = "22222222-2222-4222-8222-222222222222"
KEY: Any = {"project_key": "-srv", "session_id": GOOD}
TURNS = [turn(number) for number in range(6)]


@pytest.fixture
def projects(tmp_path: Path) -> Path:
    """A project with a sound session, which has a subagent, and a second project with one."""
    projects = tmp_path / "projects"
    write(projects / "-srv" / f"{GOOD}.jsonl", *TURNS[1])
    write(projects / "-srv" / GOOD / "subagents" / "agent-a.jsonl", *TURNS[2])
    write(projects / "-other" / f"{GOOD}.jsonl", *TURNS[3])
    return projects


def write(path: Path, *lines: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def looped(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(path)


def broken(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(path.with_name("nowhere"))


def piped(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(path)


def bound(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    here = Path.cwd()
    # The path of a socket has 108 bytes.
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(here)


def foldered(path: Path) -> None:
    path.mkdir(parents=True)


PLACES = {
    "a main transcript": f"-srv/{BAD}.jsonl",
    "a subagent": f"-srv/{GOOD}/subagents/agent-b.jsonl",
    "a sidecar": f"-srv/{GOOD}/subagents/agent-a.meta.json",
    "the folder of subagents": f"-srv/{BAD}/subagents",
    "a session's folder": f"-srv/{BAD}",
    "a project": "-bad",
}
KINDS: dict[str, tuple[Callable[[Path], None], bool]] = {
    # Whether it is told as a problem where a file should be.
    "a link to itself": (looped, True),
    "a link to nothing": (broken, True),
    "a pipe": (piped, False),
    "a socket": (bound, False),
    "a folder": (foldered, False),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", PLACES)
async def test_what_is_no_file_costs_no_other(
    projects: Path, store: BeanieSessionStore, place: str, kind: str
) -> None:
    make, is_told = KINDS[kind]
    make(projects / PLACES[place])
    report = await import_transcripts(store, projects)
    assert await store.load(KEY) == TURNS[1]
    assert await store.load({**KEY, "subpath": "subagents/agent-a"}) == TURNS[2]
    assert await store.load({**KEY, "project_key": "-other"}) == TURNS[3]
    names_a_file = PLACES[place].endswith((".jsonl", ".json"))
    assert report.failed == (is_told and names_a_file), report.problems
    assert report.problem_count == report.failed


@pytest.mark.parametrize("folder", ["-srv", f"-srv/{BAD}/subagents", "-bad"])
@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO, errno.ELOOP])
async def test_a_folder_that_cannot_be_read_costs_no_other(
    projects: Path,
    store: BeanieSessionStore,
    folder: str,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Of a user who may read everything no mode of a folder keeps anything.
    (projects / folder).mkdir(parents=True, exist_ok=True)
    scan = os.scandir

    def refused(path: Any) -> Any:
        if Path(path) == projects / folder:
            raise OSError(code, os.strerror(code), str(path))
        return scan(path)

    monkeypatch.setattr(layout.os, "scandir", refused)
    report = await import_transcripts(store, projects)
    assert (report.failed, report.problem_count) == (1, 1)
    # What stands for the folder of a session is read as if it were a file.
    assert "cannot be read" in str(report.problems[0])
    assert folder in str(report.problems[0])
    assert await store.load({**KEY, "project_key": "-other"}) == TURNS[3]
    assert (await store.load(KEY) is None) == (folder == "-srv")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("place", ["-srv", f"-srv/{GOOD}", f"-srv/{GOOD}/subagents"])
async def test_so_does_one_that_its_mode_closes(
    projects: Path, store: BeanieSessionStore, place: str
) -> None:
    (projects / place).chmod(0)
    try:
        report = await import_transcripts(store, projects)
    finally:
        (projects / place).chmod(0o700)
    assert report.failed == 1
    assert await store.load({**KEY, "project_key": "-other"}) == TURNS[3]


@pytest.fixture
def too_deep(projects: Path) -> Iterator[Path]:
    """A folder for a tree that no recursion comes through, pytest's own tidying up included."""
    below = projects / "-srv" / GOOD / "subagents"
    yield below
    subprocess.run(["rm", "-rf", str(below)], check=True)


async def test_a_tree_deeper_than_the_stack_costs_no_other(
    projects: Path, too_deep: Path, store: BeanieSessionStore
) -> None:
    below = too_deep
    here = Path.cwd()
    os.chdir(below)
    try:
        for _ in range(3000):
            os.mkdir("d")  # noqa: PTH102
            os.chdir("d")
        Path("agent-deep.jsonl").write_text("{}\n")
    finally:
        os.chdir(here)
    name = "x" * 200
    write(below / name / name / name / name / name / name / "agent-long.jsonl", *TURNS[5])
    write(below / "z" / "agent-z.jsonl", *TURNS[4])
    report = await import_transcripts(store, projects)
    assert await store.load({**KEY, "subpath": "subagents/z/agent-z"}) == TURNS[4]
    assert await store.load({**KEY, "project_key": "-other"}) == TURNS[3]
    # The name of the long one is no key.
    assert report.failed == 1
    assert any("subpath is" in str(problem) for problem in report.problems)


async def test_names_that_are_no_text_cost_no_other_transcript(
    projects: Path, store: BeanieSessionStore, mongo_url: str, database: Database
) -> None:
    below = os.fsencode(projects / "-srv" / GOOD / "subagents")
    for name in (b"agent-\xff.jsonl", b"agent-\xed\xa0\xbd.jsonl"):
        Path(os.fsdecode(below + b"/" + name)).write_text("{}\n")
    Path(os.fsdecode(os.fsencode(projects) + b"/\xff")).mkdir()
    write(projects / "-srv" / GOOD / "subagents" / "agent-z.jsonl", *TURNS[4])
    done = await SessionStoreCommand(mongo_url, database.name)("--json", "import", projects)
    assert (done.code, done.json["failed"]) == (1, 1)
    assert done.json["problem_count"] == 2
    assert await store.load({**KEY, "subpath": "subagents/agent-z"}) == TURNS[4]


@pytest.mark.parametrize(
    ("seconds", "kept"),
    [(0, 0), (-1, -1000), (-86400 * 365 * 50, -86400_000 * 365 * 50), (1, 1000), (2**34, None)],
)
@pytest.mark.parametrize("is_alone", [True, False])
async def test_a_file_of_any_time_is_imported_sound(
    projects: Path,
    store: BeanieSessionStore,
    tmp_path: Path,
    seconds: int,
    kept: int,
    is_alone: bool,
) -> None:
    path = projects / "-srv" / f"{GOOD}.jsonl"
    if is_alone:
        # Too large to be stored together with others.
        write(path, *TURNS[1], {"type": "user", "text": "x" * 100_000})
    os.utime(path, (seconds, seconds))
    await import_transcripts(store, projects)
    report = await verify_sessions(store, store.all_sessions())
    assert (report.is_sound, report.sessions) == (True, 2), report.problems
    await assert_summary_is_the_fold(store, KEY)
    summary = await SessionSummary.find_one({"session_id": GOOD, "project_key": "-srv"})
    assert summary is not None
    assert summary.mtime is not None
    if kept is None:
        # A clock that was ahead would keep it the newest one for ever.
        assert 1_700_000_000_000 < summary.mtime < 4_000_000_000_000
    else:
        assert summary.mtime == kept
        await export_transcripts(store, tmp_path / "out", session_id=GOOD)
        assert (tmp_path / "out" / "-srv" / path.name).stat().st_mtime == seconds
    # The next append is of now.
    await store.append(KEY, [{"type": "user", "uuid": "next"}])
    assert (await store.list_sessions("-srv"))[0]["mtime"] > 1_700_000_000_000


async def test_members_of_an_archive_that_have_no_place_cost_no_other(
    projects: Path, store: BeanieSessionStore, tmp_path: Path
) -> None:
    archive = tmp_path / "all.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for name in (
            f"-srv/{BAD}/subagents/x.jsonl",
            # A folder that is a file already, and the other way round.
            f"-srv/{BAD}/subagents/x.jsonl/y.jsonl",
            f"-srv/{BAD}/subagents/z/y.jsonl",
            f"-srv/{BAD}/subagents/z.jsonl",
            f"-srv/{BAD}/subagents/" + "/".join(["d" * 200] * 25) + ".jsonl",
            f"-srv/{GOOD}.jsonl",
        ):
            member = tarfile.TarInfo(name)
            member.size = 3
            tar.addfile(member, io.BytesIO(b"{}\n"))
        tar.add(projects / "-other", "-other")
    report = await import_transcripts(store, archive)
    assert report.failed == 0
    assert await store.load({**KEY, "project_key": "-other"}) == TURNS[3]
    assert await store.load(KEY) == [{}]
