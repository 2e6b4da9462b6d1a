"""What is made on disk is its owner's alone, whatever the umask."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.entries import KEY, SUBAGENT, turn

from beanie_session_store import BeanieSessionStore, EmbeddedMongo, export_transcripts


@pytest.fixture(params=[0o000, 0o022, 0o077], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def modes(folder: Path) -> dict[str, int]:
    """The permissions of all that is in a folder."""
    return {
        each.relative_to(folder).as_posix(): stat.S_IMODE(each.lstat().st_mode)
        for each in folder.rglob("*")
    }


def assert_private(folder: Path, least: int) -> None:
    found = modes(folder)
    assert len(found) >= least, found
    for name, mode in found.items():
        assert mode == (0o700 if (folder / name).is_dir() else 0o600), f"{name}: {oct(mode)}"


def test_a_server_keeps_its_data_and_log_to_itself(tmp_path: Path, umask: int) -> None:
    tmp_path.chmod(0o755)
    with EmbeddedMongo(directory=tmp_path / "a" / "b") as mongo:
        (member,) = mongo.members
        assert (member.directory / "mongod.log").stat().st_size > 0
        assert_private(tmp_path, least=10)
    assert_private(tmp_path, least=10)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


def test_a_log_that_others_could_read_is_theirs_no_longer(tmp_path: Path) -> None:
    given = tmp_path / "given"
    with EmbeddedMongo(directory=given):
        pass
    given.chmod(0o755)
    (given / "member-1").chmod(0o755)
    (given / "member-1" / "mongod.log").chmod(0o644)
    with EmbeddedMongo(directory=given):
        assert stat.S_IMODE((given / "member-1").stat().st_mode) == 0o700
        assert stat.S_IMODE((given / "member-1" / "mongod.log").stat().st_mode) == 0o600
    # The folder is its user's.
    assert stat.S_IMODE(given.stat().st_mode) == 0o755


@pytest.mark.parametrize("form", ["jsonl", "html", "markdown"])
async def test_exports_are_private_with_all_folders_above_them(
    store: BeanieSessionStore, tmp_path: Path, umask: int, form: str
) -> None:
    await store.append(KEY, turn(1))
    await store.append(SUBAGENT, turn(2))
    await store.append({**SUBAGENT, "subpath": "subagents/deep/er/agent-1"}, turn(3))
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    theirs.chmod(0o755)
    await export_transcripts(store, theirs / "x" / "y", format=form)  # type: ignore[arg-type]
    assert_private(theirs, least=4)
    assert stat.S_IMODE(theirs.stat().st_mode) == 0o755


async def test_so_is_an_archive(store: BeanieSessionStore, tmp_path: Path, umask: int) -> None:
    await store.append(KEY, turn(1))
    await export_transcripts(store, tmp_path / "x" / "y" / "all.tar.gz", archive=True)
    assert modes(tmp_path) == {"x": 0o700, "x/y": 0o700, "x/y/all.tar.gz": 0o600}


@pytest.mark.parametrize("is_archive", [False, True])
async def test_what_others_could_read_is_not_written_into(
    store: BeanieSessionStore, tmp_path: Path, umask: int, is_archive: bool
) -> None:
    """Who has the wide file open from before sees nothing of what takes its place."""
    await store.append(KEY, turn(1))
    target = tmp_path / "x" / ("all.tar.gz" if is_archive else "projects")
    await export_transcripts(store, target, archive=is_archive)
    files = [each for each in (tmp_path / "x").rglob("*") if each.is_file()]
    assert files
    opened = []
    for each in files:
        each.write_text("wide")
        each.chmod(0o666)
        opened.append(each.open())
    try:
        await export_transcripts(store, target, archive=is_archive, overwrite=True)
        assert [file.read() for file in opened] == ["wide"] * len(files)
    finally:
        for file in opened:
            file.close()
    assert_private(tmp_path, least=2)


async def test_a_file_where_a_folder_should_be_is_said_and_stays(
    store: BeanieSessionStore, tmp_path: Path
) -> None:
    await store.append(KEY, turn(1))
    (tmp_path / "file").write_text("mine")
    for target in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OSError, match="file"):
            await export_transcripts(store, target)
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(OSError, match="link"):
        await export_transcripts(store, tmp_path / "link")
    assert (tmp_path / "file").read_text() == "mine"
