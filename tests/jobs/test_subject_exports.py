"""All that is stored of a person, as one archive with an index that a person can read."""

from __future__ import annotations

import stat
import tarfile
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from support.command import SessionStoreCommand
from support.entries import KEY, message, turn

from beanie_session_store import (
    BeanieSessionStore,
    InvalidQueryError,
    UnknownSessionError,
    export_transcripts,
    import_transcripts,
)
from beanie_session_store.app.database.driver import Database

HOSTILE = "<script>alert(1)</script>\"'&"


class Links(HTMLParser):
    """Where a page leads, and which elements it has."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [unquote(value or "") for name, value in attrs if name == "href"]


def key(session: str, subpath: str = "", project: str = "-project") -> dict[str, str]:
    found = {"project_key": project, "session_id": session}
    return {**found, "subpath": subpath} if subpath else found


@pytest.fixture
async def filled(store: BeanieSessionStore) -> BeanieSessionStore:
    mine = BeanieSessionStore(metadata={"user_id": "u1"})
    await mine.append(key("plain"), [message(HOSTILE), *turn(1)])
    await mine.append(key("plain", "subagents/agent-a1"), turn(2))
    await mine.append(key("only-subagent", "subagents/agent-a2", project="-other"), turn(3))
    packed = BeanieSessionStore(metadata={"user_id": "u1", "n": 2**70})
    await packed.append(key("packed"), turn(4))
    await BeanieSessionStore(metadata={"user_id": "u10"}).append(key("theirs"), turn(5))
    await BeanieSessionStore(metadata={"user_id": "u2", "n": 2**70}).append(key("not"), turn(5))
    await BeanieSessionStore(tenant="acme", metadata={"user_id": "u1"}).append(KEY, turn(6))
    return mine


def unpacked(path: Path) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    with tarfile.open(path) as tar:
        for member in tar:
            file = tar.extractfile(member)
            assert file is not None
            found[member.name] = file.read()
    return found


@pytest.mark.parametrize("form", ["jsonl", "html"])
async def test_one_archive_has_all_of_a_person_and_an_index(
    filled: BeanieSessionStore, tmp_path: Path, form: Any
) -> None:
    path = tmp_path / "u1.tar.gz"
    report = await export_transcripts(
        filled, path, metadata={"user_id": "u1"}, archive=True, format=form
    )
    assert (report.changed, report.failed) == (3, 0)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    found = unpacked(path)
    index = found.pop("index.html").decode()
    page = Links()
    page.feed(index)
    assert sorted(page.links) == sorted(found)
    assert "script" not in page.tags
    assert "3 conversations" in index
    assert "user_id = &quot;u1&quot;" in index
    assert "alert(1)" in index
    assert not any("theirs" in name or "/not" in name for name in found)
    if form == "jsonl":
        elsewhere = BeanieSessionStore(tenant="elsewhere")
        assert (await import_transcripts(elsewhere, path)).failed == 0
        listed = [each.session_id async for each in elsewhere.all_sessions()]
        assert sorted(listed) == ["only-subagent", "packed", "plain"]


async def test_the_command_needs_no_second_option(
    filled: BeanieSessionStore, mongo_url: str, database: Database, tmp_path: Path
) -> None:
    command = SessionStoreCommand(mongo_url, database.name)
    path = tmp_path / "u1.tar.gz"
    done = await command("export", "--metadata", "user_id=u1", str(path))
    assert done.code == 0, done.errors
    assert "index.html" in unpacked(path)
    done = await command("export", "--metadata", "user_id=u1", str(tmp_path / "folder"))
    assert (done.code, (tmp_path / "folder").exists()) == (2, False)
    done = await command("export", "--metadata", "user_id=nobody", str(tmp_path / "n.tar.gz"))
    assert (done.code, (tmp_path / "n.tar.gz").exists()) == (1, False)
    assert "with the metadata {'user_id': 'nobody'}" in done.errors


async def test_a_subject_is_no_operator(filled: BeanieSessionStore, tmp_path: Path) -> None:
    bad: list[Any] = [{"user_id": {"$ne": 1}}, {"a.b": 1}, "u1", 1]
    for metadata in bad:
        with pytest.raises(InvalidQueryError):
            await export_transcripts(filled, tmp_path / "x", metadata=metadata)
        with pytest.raises(InvalidQueryError):
            _ = [each async for each in filled.all_sessions(metadata=metadata)]
    # What is about everybody else is not to be handed to anybody.
    await BeanieSessionStore().append(key("unnamed"), turn(1))
    for metadata in ({}, {"user_id": None}):
        with pytest.raises(InvalidQueryError, match="nothing was written"):
            await export_transcripts(filled, tmp_path / "x", metadata=metadata)
    with pytest.raises(UnknownSessionError):
        await export_transcripts(filled, tmp_path / "x", metadata={"user_id": "nobody"})
    assert [*tmp_path.iterdir()] == []
