"""What the real agent wrote to disk goes into the store and out again, and it goes on from there.

The agent talks to a scripted model over loopback, each run with an empty home of its own.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.agent import (
    COMMAND_OUTPUT,
    FIRST_PROMPT,
    SECOND_PROMPT,
    Turn,
    Workplace,
    exactly,
    texts,
    workplace,
)
from support.plain_agent import resume

from beanie_session_store import (
    BeanieSessionStore,
    export_transcripts,
    import_transcripts,
)
from beanie_session_store.app.database.driver import Database
from beanie_session_store.app.loopback.messages_api import LoopbackMessagesApi
from beanie_session_store.demo.agent import Host, Target, mirrored
from beanie_session_store.demo.script import obedient_script
from beanie_session_store.demo.stored import load_all

pytestmark = pytest.mark.agent


@pytest.fixture(scope="module")
def told(mongo_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Any]]:
    """A workplace, and a session of two turns with a subagent on the disk of one host."""
    with workplace(tmp_path_factory.mktemp("transfer"), mongo_url) as place:
        yield place, asyncio.run(place.turn(FIRST_PROMPT))


@pytest.fixture
def place(told: tuple[Workplace, Turn]) -> Workplace:
    return told[0]


@pytest.fixture
def first(told: tuple[Workplace, Turn]) -> Turn:
    return told[1]


@pytest.fixture
def projects(first: Turn) -> Path:
    return first.run.home / ".claude" / "projects"


def tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def values(content: bytes) -> list[str]:
    return exactly(json.loads(line) for line in content.split(b"\n") if line.strip())


async def test_a_session_goes_in_and_out_again_to_equal_files(
    projects: Path, store: BeanieSessionStore, tmp_path: Path
) -> None:
    report = await import_transcripts(store, projects)
    assert (report.changed, report.failed, report.skipped_lines) == (1, 0, 0)
    await export_transcripts(store, tmp_path)
    written, exported = tree(projects), tree(tmp_path)
    assert len(written) == 3
    assert exported.keys() == written.keys()
    for name, content in written.items():
        assert values(exported[name]) == values(content), name
    # The form is the agent's own as well.
    assert exported == written


async def test_importing_again_adds_nothing(
    projects: Path, first: Turn, place: Workplace, store: BeanieSessionStore
) -> None:
    await import_transcripts(store, projects)
    before = await load_all(store, place.key(first.run.session_id))
    report = await import_transcripts(store, projects)
    assert (report.changed, report.unchanged, report.entries) == (0, 1, 0)
    assert await load_all(store, place.key(first.run.session_id)) == before


async def test_an_imported_session_and_a_mirrored_one_agree(
    projects: Path, first: Turn, place: Workplace, store: BeanieSessionStore
) -> None:
    await import_transcripts(store, projects)
    imported = await load_all(store, place.key(first.run.session_id))
    assert imported.keys() == first.stored.keys()
    for subpath, entries in first.stored.items():
        assert exactly(mirrored(imported[subpath])) == exactly(mirrored(entries))
        # Of those the last one counts.
        assert [e for e in imported[subpath] if e["type"] == "agent_metadata"] == [
            e for e in entries if e["type"] == "agent_metadata"
        ][-1:]


async def test_importing_over_a_mirrored_session_adds_only_what_is_never_mirrored(
    projects: Path, first: Turn, place: Workplace
) -> None:
    key = place.key(first.run.session_id)
    async with place.store() as store:
        before = await load_all(store, key)
        try:
            report = await import_transcripts(store, projects)
            assert report.entries
            after = await load_all(store, key)
            assert {s: exactly(mirrored(e)) for s, e in after.items()} == {
                s: exactly(mirrored(e)) for s, e in before.items()
            }
            assert (await import_transcripts(store, projects)).entries == 0
            assert await load_all(store, key) == after
        finally:
            await store.delete(key)
            for subpath, entries in before.items():
                await store.append({**key, "subpath": subpath} if subpath else key, entries)


async def test_the_agent_resumes_from_an_exported_tree_without_a_store(
    projects: Path, first: Turn, place: Workplace, store: BeanieSessionStore, tmp_path: Path
) -> None:
    await import_transcripts(store, projects)
    home = tmp_path / "home"
    await export_transcripts(store, home / ".claude" / "projects")
    with LoopbackMessagesApi(obedient_script) as api:
        said = resume(Host(home, api.url), first.run.session_id, SECOND_PROMPT, Path(place.project))
        assert COMMAND_OUTPUT in said["result"]
        assert FIRST_PROMPT in texts(api.requests[0])
    # It went on in the exported file, whose new lines are all that another import adds.
    report = await import_transcripts(store, home / ".claude" / "projects")
    assert report.changed == 1
    stored = await load_all(store, place.key(first.run.session_id))
    resumed = home / ".claude" / "projects" / place.project_key / f"{first.run.session_id}.jsonl"
    assert exactly(stored[""]) == values(resumed.read_bytes())


async def test_a_mirrored_session_is_exported_to_what_the_agent_resumes(
    first: Turn, place: Workplace, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    async with place.store() as store:
        await export_transcripts(
            store, home / ".claude" / "projects", session_id=first.run.session_id
        )
    with LoopbackMessagesApi(obedient_script) as api:
        said = resume(Host(home, api.url), first.run.session_id, SECOND_PROMPT, Path(place.project))
        assert COMMAND_OUTPUT in said["result"]


async def test_an_imported_session_resumes_through_the_store_on_another_host(
    projects: Path, first: Turn, place: Workplace, mongo_url: str, database: Database
) -> None:
    await import_transcripts(BeanieSessionStore(), projects)
    elsewhere = replace(place, target=Target(mongo_url, database.name))
    second = await elsewhere.turn(SECOND_PROMPT, resume=first.run.session_id)
    assert COMMAND_OUTPUT in (second.run.result or "")


@pytest.mark.parametrize("form", ["markdown", "html"])
async def test_a_page_shows_what_was_said_and_done(
    projects: Path, store: BeanieSessionStore, tmp_path: Path, form: Any
) -> None:
    await import_transcripts(store, projects)
    report = await export_transcripts(store, tmp_path, format=form)
    assert (report.changed, report.failed) == (1, 0)
    (path,) = (path for path in tmp_path.rglob("*") if path.is_file())
    page = path.read_text()
    for part in ("SURROGATE", COMMAND_OUTPUT, "Delegated work", "deep 42", "Entries not shown"):
        assert part in page
