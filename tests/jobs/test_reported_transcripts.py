"""Transcripts that people reported, through every road in and every view; see tests/reported."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from support.reported import (
    PROJECT,
    Case,
    assert_as_expected,
    cases,
    missing,
    of_summary,
    of_transcript,
    words_of_html,
    words_of_markdown,
)

from beanie_session_store import (
    BeanieSessionStore,
    copy_sessions,
    export_transcripts,
    import_transcripts,
)
from beanie_session_store.app.cli.terminal.transcript_lines import TranscriptLines
from beanie_session_store.app.cli.terminal.transcript_order import NestedTranscripts
from beanie_session_store.app.reading.listings import SessionListing

each_case = pytest.mark.parametrize("case", cases(), ids=lambda case: case.path.name)
_LINE = re.compile(r":(\d+)$")

Session = dict[str, list[dict[str, Any]]]
"""Entries by subpath."""


@pytest.fixture
async def imported(case: Case, store: BeanieSessionStore, tmp_path: Path) -> BeanieSessionStore:
    await import_transcripts(store, case.lay_out(tmp_path / "projects"))
    return store


async def listed(store: BeanieSessionStore) -> list[SessionListing]:
    return [listing async for listing in store.all_sessions()]


async def loaded(store: BeanieSessionStore, listing: SessionListing) -> Session:
    subpaths = ["", *await store.list_subkeys(listing.subkeys_key)]
    found = {subpath: await store.load(listing.key(subpath)) for subpath in subpaths}
    return {subpath: list(entries) for subpath, entries in found.items() if entries}


async def assert_right(case: Case, store: BeanieSessionStore, where: str) -> None:
    """All sessions of a store are the case's, with its figures in totals and in transcripts."""
    listings = await listed(store)
    several = case.expected.get("sessions")
    if several is not None:
        assert {listing.session_id for listing in listings} == set(several)
    assert listings, where
    for listing in listings:
        expected = case.session(listing.session_id)
        summary = await store.summary(listing.key())
        transcript = await store.transcript(listing.key())
        assert summary is not None
        assert transcript is not None
        assert_as_expected(expected, of_summary(summary), f"{where}: totals")
        assert_as_expected(expected, of_transcript(transcript), f"{where}: transcript")
        verification = await store.verify(listing.key())
        assert verification.is_sound, (where, verification.differences)


@each_case
async def test_imported(case: Case, store: BeanieSessionStore, tmp_path: Path) -> None:
    projects = case.lay_out(tmp_path / "projects")
    report = await import_transcripts(store, projects)
    lines = [_LINE.search(problem.where) for problem in report.problems]
    numbers = sorted(int(line.group(1)) for line in lines if line)
    assert numbers == case.broken_lines, report.problems
    assert not report.failed, report.problems
    await assert_right(case, store, "imported")
    again = await import_transcripts(store, projects)
    assert (again.entries, again.failed) == (0, 0), again.problems


@each_case
async def test_appended_copied_and_exported(
    case: Case, imported: BeanieSessionStore, tmp_path: Path
) -> None:
    sessions = {each.session_id: await loaded(imported, each) for each in await listed(imported)}
    for size in (1, 3, 500):
        mirrored = BeanieSessionStore(tenant=f"by-{size}")
        await append(mirrored, await listed(imported), sessions, size)
        await assert_same(case, mirrored, sessions, f"appended by {size}")

    copied = BeanieSessionStore(tenant="copied")
    assert not (await copy_sessions(imported, copied)).problems
    await assert_same(case, copied, sessions, "copied")

    assert not (await export_transcripts(imported, tmp_path / "out")).problems
    for name, lines in case.exported().items():
        exported = (tmp_path / "out" / PROJECT / name).read_text("utf-8").splitlines()
        assert [json.loads(line) for line in exported] == lines, name
    again = BeanieSessionStore(tenant="again")
    assert not (await import_transcripts(again, tmp_path / "out")).problems
    await assert_same(case, again, sessions, "imported from an export")


async def append(
    store: BeanieSessionStore,
    listings: Sequence[SessionListing],
    sessions: Mapping[str, Session],
    size: int,
) -> None:
    """In batches of a size; subagents write while the main transcript does."""
    for listing in listings:
        session = sessions[listing.session_id]
        for start in range(0, max(map(len, session.values())), size):
            for subpath, entries in session.items():
                if batch := entries[start : start + size]:
                    await store.append(listing.key(subpath), batch)


async def assert_same(
    case: Case, store: BeanieSessionStore, sessions: Mapping[str, Session], where: str
) -> None:
    """A store has just these sessions, and is right about them."""
    found = {each.session_id: await loaded(store, each) for each in await listed(store)}
    assert found == sessions, where
    await assert_right(case, store, where)


@each_case
async def test_shown_on_pages_and_in_a_terminal(
    case: Case,
    imported: BeanieSessionStore,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for form, ending, words_of in (
        ("html", ".html", words_of_html),
        ("markdown", ".md", words_of_markdown),
    ):
        await export_transcripts(imported, tmp_path / form, format=form)  # type: ignore[arg-type]
        for listing in await listed(imported):
            path = tmp_path / form / PROJECT / f"{listing.session_id}{ending}"
            _assert_shown(case.session(listing.session_id), words_of(path.read_text("utf-8")))

    for listing in await listed(imported):
        summary = await imported.summary(listing.key())
        assert summary is not None
        lines = TranscriptLines(is_full=True)
        async for depth, piece in NestedTranscripts(imported, listing).stored(summary.next_seq - 1):
            lines.write(depth, piece)
        _assert_shown(case.session(listing.session_id), capsys.readouterr().out)


def _assert_shown(expected: Any, text: str) -> None:
    assert not missing(expected.get("words", []), text)
    shown = [word for word in expected.get("absent", []) if not missing([word], text)]
    assert not shown
