"""Transcripts that people reported, through every road in and every view; see tests/reported."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
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
from beanie_session_store.app.cli.transcript_lines import TranscriptLines
from beanie_session_store.app.cli.transcript_order import NestedTranscripts
from beanie_session_store.app.listings import SessionListing

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
@pytest.mark.parametrize("size", [1, 3, 500])
async def test_appended(case: Case, size: int, imported: BeanieSessionStore) -> None:
    mirrored = BeanieSessionStore(tenant=f"by-{size}")
    for listing in await listed(imported):
        session = await loaded(imported, listing)
        longest = max(map(len, session.values()))
        # Subagents write while the main transcript does.
        for start in range(0, longest, size):
            for subpath, entries in session.items():
                if batch := entries[start : start + size]:
                    await mirrored.append(listing.key(subpath), batch)
        assert await loaded(mirrored, listing) == session
    await assert_right(case, mirrored, f"appended by {size}")


@each_case
async def test_copied(case: Case, imported: BeanieSessionStore) -> None:
    copied = BeanieSessionStore(tenant="copied")
    report = await copy_sessions(imported, copied)
    assert not report.problems
    for listing in await listed(imported):
        assert await loaded(copied, listing) == await loaded(imported, listing)
    await assert_right(case, copied, "copied")


@each_case
async def test_exported_and_imported_again(
    case: Case, imported: BeanieSessionStore, tmp_path: Path
) -> None:
    report = await export_transcripts(imported, tmp_path / "out")
    assert not report.problems
    for name, lines in case.exported().items():
        exported = (tmp_path / "out" / PROJECT / name).read_text("utf-8").splitlines()
        assert [json.loads(line) for line in exported] == lines, name
    again = BeanieSessionStore(tenant="again")
    report = await import_transcripts(again, tmp_path / "out")
    assert not report.problems
    for listing in await listed(imported):
        assert await loaded(again, listing) == await loaded(imported, listing)
    await assert_right(case, again, "imported from an export")


@each_case
@pytest.mark.parametrize(
    ("form", "ending", "words_of"),
    [("html", ".html", words_of_html), ("markdown", ".md", words_of_markdown)],
)
async def test_shown_on_a_page(
    case: Case,
    form: Any,
    ending: str,
    words_of: Callable[[str], str],
    imported: BeanieSessionStore,
    tmp_path: Path,
) -> None:
    await export_transcripts(imported, tmp_path / "pages", format=form)
    for listing in await listed(imported):
        page = (tmp_path / "pages" / PROJECT / f"{listing.session_id}{ending}").read_text("utf-8")
        _assert_shown(case.session(listing.session_id), words_of(page))


@each_case
async def test_shown_in_a_terminal(
    case: Case, imported: BeanieSessionStore, capsys: pytest.CaptureFixture[str]
) -> None:
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
