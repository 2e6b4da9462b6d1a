"""Transcripts that people reported, and the figures that are right for them."""

from __future__ import annotations

import html
import json
import re
import shutil
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from beanie_session_store import SessionSummary, Transcript

if sys.version_info >= (3, 11):
    import tomllib
else:
    # pytest brings it where the standard library has none.
    import tomli as tomllib

FOLDER = Path(__file__).parents[1] / "reported"
PROJECT = "-srv-app"
_EXPECTED = "expected.toml"
_TOKENS = ("responses", "input", "output", "cache_creation", "cache_read")
_TEXTS = {"source", "what"}
_OF_A_CASE = {"broken_lines", "exported", "sessions"}
_OF_A_SESSION = {
    *("title", "first_prompt", "turns", "prompts", "answers", "cost_usd", "tools"),
    *("subagents", "entries", "words", "absent", *_TOKENS),
}


@dataclass(frozen=True)
class Case:
    """One folder of ``tests/reported``."""

    path: Path
    expected: Mapping[str, Any]

    def lay_out(self, projects: Path) -> Path:
        """Write the files as the agent lays them out, and return the folder of projects."""
        leave_out = shutil.ignore_patterns(_EXPECTED)
        shutil.copytree(self.path, projects / PROJECT, ignore=leave_out)
        return projects

    @property
    def broken_lines(self) -> list[int]:
        return self.expected.get("broken_lines", [])

    def session(self, session_id: str) -> Mapping[str, Any]:
        """The figures that are given for a session."""
        sessions = self.expected.get("sessions")
        return self.expected if sessions is None else sessions[session_id]

    def exported(self) -> dict[str, list[dict[str, Any]]]:
        """The lines of every file that is sound, by the path to which it is exported again."""
        moved: Mapping[str, str] = self.expected.get("exported", {})
        found: dict[str, list[dict[str, Any]]] = {}
        for path in sorted(self.path.rglob("*.jsonl")):
            name = path.relative_to(self.path).as_posix()
            try:
                lines = [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]
            except ValueError:
                continue
            if lines:
                found[moved.get(name, name)] = lines
        return found


def cases() -> list[Case]:
    """All of them, checked for what nobody would compare."""
    found: list[Case] = []
    for path in sorted(each for each in FOLDER.iterdir() if each.is_dir()):
        expected = tomllib.loads((path / _EXPECTED).read_text("utf-8"))
        assert expected.keys() >= _TEXTS, f"{path} does not say whence and what it is"
        several = expected.get("sessions", {})
        of_one = set() if several else _OF_A_SESSION
        unknown = expected.keys() - _TEXTS - _OF_A_CASE - of_one
        for session in several.values():
            unknown |= session.keys() - _OF_A_SESSION
        assert not unknown, f"nobody looks at {unknown} of {path}"
        found.append(Case(path, expected))
    return found


def of_summary(summary: SessionSummary) -> dict[str, Any]:
    """What a summary says of the figures."""
    totals = summary.totals
    assert totals is not None
    rows = totals.usage
    return {
        "title": summary.title,
        "first_prompt": summary.first_prompt,
        "turns": totals.turns,
        "entries": totals.entries,
        "cost_usd": totals.cost_usd,
        "tools": {row.name: [row.calls, row.errors] for row in totals.tools},
        **{name: sum(getattr(row, name) for row in rows) for name in _TOKENS},
    }


def of_transcript(transcript: Transcript) -> dict[str, Any]:
    """What the typed view of a session says of them."""
    turns = [turn for turn in transcript.turns if turn.prompt is not None]
    aside = [entry for chain in transcript.branches for entry in chain]
    tools: dict[str, list[int]] = {}
    for call in transcript.all_tool_calls:
        counts = tools.setdefault(call.name, [0, 0])
        counts[0] += 1
        counts[1] += call.is_error
    spent = transcript.total_usage.values()
    return {
        "title": transcript.title,
        "turns": len(turns) + sum(bool(getattr(entry, "is_prompt", False)) for entry in aside),
        "prompts": [turn.text for turn in turns],
        "answers": [turn.answer for turn in turns],
        "entries": sum(len(each.entries) for each in (transcript, *transcript.subagents))
        + sum(map(len, transcript.journals.values())),
        "cost_usd": transcript.cost_usd,
        "tools": tools,
        "subagents": sorted(subagent.agent_id for subagent in transcript.subagents),
        **{name: sum(getattr(each, name) for each in spent) for name in _TOKENS},
    }


def assert_as_expected(expected: Mapping[str, Any], found: Mapping[str, Any], where: str) -> None:
    """What is given for a session, as far as ``found`` tells it, is what is found."""
    given = {name: value for name, value in expected.items() if name in found}
    for name, value in given.items():
        # A figure that must not be known is written as "unknown": TOML has no null.
        right = None if value == "unknown" else value
        if isinstance(right, float):
            assert found[name] is not None, (where, name)
            assert abs(found[name] - right) < 1e-9, (where, name, found[name], right)
        else:
            assert found[name] == right, (where, name, found[name], right)


def words_of_html(page: str) -> str:
    """The texts of a page, without its styles and tags."""
    body = re.sub(r"(?s)<style.*?</style>", " ", page)
    return _spaced(html.unescape(re.sub(r"<[^>]*>", " ", body)))


def words_of_markdown(page: str) -> str:
    """The texts of a page, without what marks them as quoted or escapes them."""
    lines = (re.sub(r"^(> ?)+", "", line) for line in page.split("\n"))
    return _spaced(html.unescape(re.sub(r"\\([^\w\s])", r"\1", "\n".join(lines))))


def missing(words: Iterable[str], text: str) -> list[str]:
    """Those of the words that a text does not have, however it is spaced."""
    spaced = _spaced(text)
    return [word for word in words if _spaced(word) not in spaced]


def _spaced(text: str) -> str:
    return " ".join(text.split())
