"""Exporting to disk: whole files in their folder, and nowhere else."""

from __future__ import annotations

import asyncio
import io
import json
import resource
import subprocess
import sys
import tarfile
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from support.command import SessionStoreCommand
from support.entries import KEY, SUBAGENT, marker, message, turn

from beanie_session_store import (
    BeanieSessionStore,
    TransferError,
    UnknownSessionError,
    export_transcripts,
    import_transcripts,
)
from beanie_session_store.app.database.driver import Database
from beanie_session_store.app.files.layout import transcript_path
from beanie_session_store.app.files.staging import StagedFiles


@pytest.fixture
def command(mongo_url: str, database: Database) -> SessionStoreCommand:
    return SessionStoreCommand(mongo_url, database.name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two levels down, so that whatever leaves it is seen."""
    return tmp_path / "outside" / "projects"


def files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


async def test_the_last_metadata_of_a_subagent_goes_beside_its_transcript(
    store: BeanieSessionStore, folder: Path
) -> None:
    first, last = {"type": "agent_metadata", "n": 1}, {"type": "agent_metadata", "n": 2}
    await store.append(KEY, [message("a"), marker(), {"type": "agent_metadata", "kept": True}])
    body = turn(1)
    await store.append(SUBAGENT, [first, *body, last])
    await export_transcripts(store, folder)
    below = "project/session/subagents/agent-a1"
    assert files(folder) == [
        "project/session.jsonl",
        f"{below}.jsonl",
        f"{below}.meta.json",
    ]
    assert lines(folder / f"{below}.jsonl") == body
    assert json.loads((folder / f"{below}.meta.json").read_text()) == {"n": 2}
    assert lines(folder / "project" / "session.jsonl")[-1] == {
        "type": "agent_metadata",
        "kept": True,
    }


async def test_files_have_the_time_of_the_session_and_are_their_owners_alone(
    store: BeanieSessionStore, folder: Path
) -> None:
    await store.append(KEY, turn(1))
    (listed,) = await store.list_sessions("project")
    await export_transcripts(store, folder)
    found = (folder / "project" / "session.jsonl").stat()
    assert found.st_mtime_ns // 1_000_000 == listed["mtime"]
    assert found.st_mode & 0o777 == 0o600


async def test_a_session_a_project_or_all_of_a_tenant(
    store: BeanieSessionStore, tmp_path: Path
) -> None:
    for project, session in (("a", "1"), ("a", "2"), ("b", "2")):
        await store.append({"project_key": project, "session_id": session}, turn(1))
    await BeanieSessionStore(tenant="other").append(
        {"project_key": "a", "session_id": "3"}, turn(1)
    )
    await export_transcripts(store, tmp_path / "all")
    assert files(tmp_path / "all") == ["a/1.jsonl", "a/2.jsonl", "b/2.jsonl"]
    await export_transcripts(store, tmp_path / "project", project_key="a")
    assert files(tmp_path / "project") == ["a/1.jsonl", "a/2.jsonl"]
    await export_transcripts(store, tmp_path / "session", project_key="a", session_id="2")
    assert files(tmp_path / "session") == ["a/2.jsonl"]
    for wanted in ({"session_id": "3"}, {"project_key": "c"}):
        with pytest.raises(UnknownSessionError):
            await export_transcripts(store, tmp_path / "none", **wanted)
    with pytest.raises(UnknownSessionError, match="nobody"):
        await export_transcripts(BeanieSessionStore(tenant="nobody"), tmp_path / "none")
    assert not (tmp_path / "none").exists()


HOSTILE = [
    "..",
    ".",
    "../../up",
    "/etc/cron.d",
    "a/../../..",
    "a\\..\\b",
    "C:",
    "C:\\x",
    "file:stream",
    "con",
    "NUL.txt",
    "com1",
    "ends with a dot.",
    "ends with a space ",
    "new\nline",
    "\x1b[2J",
    "x" * 300,
    "é" * 130,
]


@pytest.mark.parametrize("name", [pytest.param(n, id=ascii(n)[:20]) for n in HOSTILE])
async def test_no_stored_name_leads_out_of_the_folder(
    database: Database, folder: Path, name: str
) -> None:
    for field in ("project_key", "session_id", "subpath"):
        store = BeanieSessionStore(tenant=field)
        hostile: Any = {**KEY, field: f"subagents/{name}" if field == "subpath" else name}
        await store.append(hostile, turn(1))
        good: Any = {"project_key": "good", "session_id": field}
        await store.append(good, turn(2))
        report = await export_transcripts(store, folder)
        assert (report.changed, report.failed) == (1, 1)
        assert "not written" in report.problems[0].reason
        assert files(folder.parents[1]) == [f"outside/projects/good/{field}.jsonl"]
        (folder / "good" / f"{field}.jsonl").unlink()


@pytest.mark.parametrize("name", ["", "a\0b", "\ud83d", "/", "a//b", "a/./b"])
def test_names_that_the_store_refuses_have_no_path_either(name: str) -> None:
    with pytest.raises(TransferError):
        transcript_path("project", "session", name or "subagents/")
    with pytest.raises(TransferError):
        transcript_path(name, "session", "")


def test_usual_names_have_the_paths_that_the_agent_uses() -> None:
    path = transcript_path("-srv-app", "s", "subagents/workflows/run-1/agent-a")
    assert path == PurePosixPath("-srv-app/s/subagents/workflows/run-1/agent-a.jsonl")


async def test_a_link_in_the_folder_does_not_lead_out(
    store: BeanieSessionStore, folder: Path, tmp_path: Path
) -> None:
    await store.append(KEY, turn(1))
    folder.mkdir(parents=True)
    await store.append(SUBAGENT, turn(2))
    (tmp_path / "elsewhere").mkdir()
    (folder / "project").symlink_to(tmp_path / "elsewhere")
    report = await export_transcripts(store, folder)
    assert report.failed == 1
    # Not even a folder.
    assert list((tmp_path / "elsewhere").iterdir()) == []


async def test_what_is_there_is_kept_unless_told_otherwise(
    store: BeanieSessionStore, folder: Path
) -> None:
    await store.append(KEY, turn(1))
    await export_transcripts(store, folder)
    path = folder / "project" / "session.jsonl"
    path.write_text("precious")
    report = await export_transcripts(store, folder)
    assert report.failed == 1
    assert "is there already" in report.problems[0].reason
    assert path.read_text() == "precious"
    await export_transcripts(store, folder, overwrite=True)
    assert len(lines(path)) == 6
    assert files(folder) == ["project/session.jsonl"]


async def test_what_comes_during_an_export_is_kept_too(
    store: BeanieSessionStore, folder: Path
) -> None:
    await store.append(KEY, turn(1))
    await store.append(SUBAGENT, turn(2))
    path = folder / "project" / "session.jsonl"

    def agent_writes(report: Any) -> None:
        if report.entries == 12 and not path.exists():
            path.write_text("precious")

    report = await export_transcripts(store, folder, on_progress=agent_writes)
    assert report.failed == 1
    assert "is there already" in report.problems[0].reason
    assert path.read_text() == "precious"
    assert files(folder) == ["project/session.jsonl"]


async def test_a_link_of_the_same_name_is_kept(store: BeanieSessionStore, folder: Path) -> None:
    await store.append(KEY, turn(1))
    (folder / "project").mkdir(parents=True)
    link = folder / "project" / "session.jsonl"
    link.symlink_to(folder.parent / "nowhere")
    assert (await export_transcripts(store, folder)).failed == 1
    assert link.is_symlink()


def test_two_exports_at_once_never_publish_what_is_not_whole(tmp_path: Path) -> None:
    path, second = (PurePosixPath(f"project/session{end}.jsonl") for end in ("", "-2"))
    with StagedFiles(tmp_path, overwrite=True) as one:
        one.create(path).write(b"whole")
        one.create(second).write(b"whole")
        with StagedFiles(tmp_path, overwrite=True) as other:
            other.create(path).write(b"half!")
            with pytest.raises(TransferError, match="another export"):
                one.publish(None)
            assert not (tmp_path / path).exists()
            other.publish(None)
    assert files(tmp_path) == ["project/session.jsonl"]
    assert (tmp_path / path).read_bytes() == b"half!"


async def test_a_session_of_more_files_than_may_be_open_is_exported(
    store: BeanieSessionStore, command: SessionStoreCommand, folder: Path
) -> None:
    await store.append(KEY, turn(1))
    for number in range(200):
        entries = [message("x"), {"type": "agent_metadata", "n": number}]
        await store.append({**KEY, "subpath": f"subagents/agent-{number}"}, entries)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (150, limits[1]))
    try:
        done = await command("--json", "export", folder)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert done.code == 0, done.errors
    assert len(files(folder)) == 401


async def test_a_damaged_session_leaves_no_file_and_costs_no_other(
    store: BeanieSessionStore, database: Database, folder: Path
) -> None:
    await store.append(KEY, [message("first"), message("half \ud83d")])
    await store.append({**KEY, "session_id": "whole"}, turn(1))
    entries = database["claude_transcript_entries"]
    await entries.update_one({"packed": {"$exists": True}}, {"$set": {"packed": b"damaged"}})
    report = await export_transcripts(store, folder)
    assert (report.changed, report.failed) == (1, 1)
    assert "Cannot read entry 2" in report.problems[0].reason
    assert files(folder) == ["project/whole.jsonl"]


# Archives


async def test_an_archive_holds_what_the_folder_does_and_is_read_back(
    store: BeanieSessionStore, folder: Path, tmp_path: Path
) -> None:
    await store.append(KEY, turn(1))
    await store.append(SUBAGENT, [*turn(2), {"type": "agent_metadata", "n": 1}])
    await store.append({**KEY, "project_key": "other"}, [message("half \ud83d")])
    for number in range(20):
        key = {**KEY, "session_id": f"{number}"}
        replay = await store.replay(key, mtime=1_700_000_000_050 + number)
        await replay.add([message("x")])
    archive = tmp_path / "backup.tar.gz"
    await export_transcripts(store, archive, archive=True)
    assert files(tmp_path) == ["backup.tar.gz"]
    await export_transcripts(store, folder)
    with tarfile.open(archive) as tar:
        found = {m.name: tar.extractfile(m).read() for m in tar}  # type: ignore[union-attr]
        times = {m.name: int(m.mtime) for m in tar}
    assert found == {name: (folder / name).read_bytes() for name in files(folder)}
    main = "project/session.jsonl"
    assert times[main] == int((folder / main).stat().st_mtime)

    restored = BeanieSessionStore(tenant="restored")
    report = await import_transcripts(restored, archive)
    assert (report.changed, report.skipped_lines) == (22, 0)
    for key in (KEY, SUBAGENT, {**KEY, "project_key": "other"}):
        assert await restored.load(key) == await store.load(key)
    assert (await import_transcripts(restored, archive)).entries == 0
    assert await restored.list_sessions("project") == await store.list_sessions("project")


async def test_an_archive_that_is_there_is_kept(store: BeanieSessionStore, tmp_path: Path) -> None:
    await store.append(KEY, turn(1))
    archive = tmp_path / "backup.tar.gz"
    archive.write_text("precious")
    with pytest.raises(TransferError, match="is there already"):
        await export_transcripts(store, archive, archive=True)
    assert archive.read_text() == "precious"
    await export_transcripts(store, archive, archive=True, overwrite=True)
    assert files(tmp_path) == ["backup.tar.gz"]
    assert tarfile.is_tarfile(archive)


@pytest.mark.parametrize("name", ["backup", "backup.tar", ".", ".."])
async def test_an_archive_has_a_name_that_an_import_knows(
    store: BeanieSessionStore, tmp_path: Path, name: str
) -> None:
    await store.append(KEY, turn(1))
    with pytest.raises(TransferError, match=r"must end in .tar.gz"):
        await export_transcripts(store, tmp_path / name, archive=True, overwrite=True)
    (tmp_path / "folder.tar.gz").mkdir()
    with pytest.raises(TransferError, match="is a folder"):
        await export_transcripts(store, tmp_path / "folder.tar.gz", archive=True, overwrite=True)
    assert files(tmp_path) == []


async def test_an_archive_of_anybody_names_no_place_elsewhere(
    store: BeanieSessionStore, tmp_path: Path
) -> None:
    archive = tmp_path / "hostile.tgz"
    line = json.dumps(message("x")).encode()
    names = [
        "../../up/s.jsonl",
        "/abs/s.jsonl",
        "p/../../s.jsonl",
        "p/s/subagents/../../../x.jsonl",
    ]
    with tarfile.open(archive, "w:gz") as tar:
        for name in [*names, "-good/s.jsonl"]:
            member = tarfile.TarInfo(name)
            member.size = len(line)
            tar.addfile(member, io.BytesIO(line))
        link = tarfile.TarInfo("-good/link.jsonl")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    report = await import_transcripts(store, archive)
    assert (report.listed, report.entries) == (1, 1)
    assert files(tmp_path) == ["hostile.tgz"]


@pytest.mark.parametrize("content", [b"", b"no archive", b"\x1f\x8b\x08cut"])
async def test_a_damaged_archive_is_refused(
    store: BeanieSessionStore, tmp_path: Path, content: bytes
) -> None:
    archive = tmp_path / "damaged.tar.gz"
    archive.write_bytes(content)
    with pytest.raises(TransferError, match=r"damaged.tar.gz"):
        await import_transcripts(store, archive)


async def test_an_archive_that_was_cut_or_changed_anywhere_is_refused(
    store: BeanieSessionStore, tmp_path: Path
) -> None:
    for number in range(12):
        await store.append({**KEY, "session_id": f"{number}"}, [message(f"said {number}")])
    archive = tmp_path / "whole.tar.gz"
    await export_transcripts(store, archive, archive=True)
    whole = archive.read_bytes()
    damaged = tmp_path / "damaged.tar.gz"
    other = BeanieSessionStore(tenant="other")
    for at in range(20, len(whole), 37):
        for content in (whole[:at], whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :]):
            damaged.write_bytes(content)
            with pytest.raises(TransferError, match=r"damaged.tar.gz"):
                await import_transcripts(other, damaged)
    assert [listing async for listing in other.all_sessions()] == []


async def test_a_broken_line_in_an_archive_is_named_by_the_archive(
    store: BeanieSessionStore, tmp_path: Path
) -> None:
    archive = tmp_path / "backup.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        member = tarfile.TarInfo("project/session.jsonl")
        member.size = 7
        tar.addfile(member, io.BytesIO(b"broken\n"))
    report = await import_transcripts(store, archive)
    assert [each.where for each in report.problems] == [f"{archive}/project/session.jsonl:1"]


@pytest.mark.parametrize("mtime", ["nan", "inf", "1e300", "-1e300", "-1"])
async def test_an_odd_time_in_an_archive_costs_nothing(
    store: BeanieSessionStore, tmp_path: Path, mtime: str
) -> None:
    archive = tmp_path / "odd.tar.gz"
    line = json.dumps(message("x")).encode()
    with tarfile.open(archive, "w:gz", format=tarfile.PAX_FORMAT) as tar:
        member = tarfile.TarInfo("project/session.jsonl")
        member.size, member.pax_headers = len(line), {"mtime": mtime}
        tar.addfile(member, io.BytesIO(line))
    assert (await import_transcripts(store, archive)).entries == 1
    (listed,) = await store.list_sessions("project")
    # A second before 1970 is a time as any other.
    assert listed["mtime"] == -1000 if mtime == "-1" else listed["mtime"] >= 0


# The command


async def test_the_command_exports_and_says_what_it_did(
    store: BeanieSessionStore, command: SessionStoreCommand, folder: Path
) -> None:
    await store.append(KEY, turn(1))
    done = await command("--json", "export", "--session", "session", folder)
    assert (done.code, done.json["changed"], done.json["entries"]) == (0, 1, 6)
    again = await command("export", folder)
    assert again.code == 1
    assert "is there already" in again.errors
    assert (await command("export", "--overwrite", folder)).code == 0
    assert (await command("export", "--format", "html", folder)).code == 0
    assert files(folder) == ["project/session.html", "project/session.jsonl"]
    assert (await command("export", "--archive", folder / "all.tar.gz")).code == 0


async def test_what_users_get_wrong_is_one_line(
    store: BeanieSessionStore, command: SessionStoreCommand, tmp_path: Path
) -> None:
    await store.append(KEY, turn(1))
    unknown = await command("export", "--session", "nobody", tmp_path / "a")
    assert (unknown.code, unknown.errors.count("\n")) == (1, 1)
    assert "no session nobody" in unknown.errors
    (tmp_path / "file").write_text("")
    in_a_file = await command("export", tmp_path / "file")
    assert (in_a_file.code, in_a_file.errors.count("\n")) == (1, 1)
    assert str(tmp_path / "file") in in_a_file.errors


async def test_a_full_disk_ends_the_export_and_leaves_no_half_file(
    store: BeanieSessionStore, mongo_url: str, database: Database, folder: Path
) -> None:
    await store.append(KEY, [message("x" * 1_000_000) for _ in range(3)])
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "from beanie_session_store.app.cli.root import main; main()"),
        *("--url", mongo_url, "--database", database.name, "export", str(folder)),
        stderr=subprocess.PIPE,
        # What a file system without room answers, though with another number.
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000)),
    )
    _, errors = await process.communicate()
    assert process.returncode == 1
    assert errors.startswith(b"error: ")
    assert b"File too large" in errors
    assert errors.count(b"\n") == 1
    assert files(folder) == []
