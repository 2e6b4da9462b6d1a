"""The line of a folded call says what it was, on what, and how it came out, whatever is written."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beanie_session_store.app.rendering.amounts import byte_size, counted, seconds
from beanie_session_store.app.rendering.call_lines import CallLine, call_line
from beanie_session_store.app.rendering.clamps import clamped, cut_line
from beanie_session_store.app.rendering.diffs import DiffRow, _with_words, diff_rows
from beanie_session_store.app.rendering.folded_calls import FoldedCall
from beanie_session_store.app.rendering.tool_lines import _LINES


def line(
    name: str, arguments: dict[str, Any] | None = None, output: str = "", **told: Any
) -> CallLine:
    """The line of a call that was answered, or ``is_answered=False``."""
    words = {key: told.pop(key) for key in ("is_error", "goes_on", "denial") if key in told}
    is_answered = told.pop("is_answered", True)
    call = FoldedCall(name, arguments or {}, output, **told)
    return call_line(call, is_error=words.pop("is_error", False), is_answered=is_answered, **words)


def outcome(found: CallLine) -> str:
    return " · ".join(told.text for told in found.outcome)


@pytest.mark.parametrize(
    ("output", "told", "words"),
    [
        ("Exit code 2\nboom", {}, "failed, exit 2"),
        ("Error: Exit code 137\nkilled", {}, "failed, exit 137"),
        ("<tool_use_error>No such file</tool_use_error>", {}, "failed: No such file"),
        ("x" * 300, {}, "failed"),
        ("", {}, "failed"),
        ("Command timed out after 2m 0s", {}, "timed out after 2m 0s"),
        ("The user doesn't want to proceed with this tool use.", {"who": "u1"}, "refused by u1"),
        ("The user doesn't want to take this action right now.", {}, "refused"),
        ("Permission to use Bash with command rm has been denied.", {}, "refused"),
        ("no", {"denial": "user-rejected", "who": "u1"}, "refused by u1"),
        ("no", {"denial": "rule"}, "refused by a rule"),
        ("[Request interrupted by user for tool use]", {}, "interrupted"),
    ],
)
def test_a_failure_says_its_reason_first(output: str, told: dict[str, Any], words: str) -> None:
    found = line("Bash", {"command": "make"}, output, is_error=True, **told)
    assert found.has_failed
    assert found.outcome[0].text == words
    assert found.outcome[0].tone == "failed"


def test_what_was_interrupted_has_failed_though_the_tool_does_not_say_so() -> None:
    found = line("Bash", {"command": "make"}, "a\nb", structured={"interrupted": True})
    assert (found.has_failed, found.outcome[0].text) == (True, "interrupted")


def test_what_has_no_answer_runs_or_ended_there() -> None:
    runs = line("Bash", is_answered=False, goes_on=True, seconds=18.2)
    assert (outcome(runs), runs.is_running, runs.has_failed) == ("running, 18 s", True, False)
    ended = line("Bash", is_answered=False)
    assert (outcome(ended), ended.is_running) == ("no result: the session ends here", False)


@pytest.mark.parametrize(
    ("name", "arguments", "told", "shown"),
    [
        (
            "Bash",
            {"command": "make"},
            {"output": "41 passed in 9.02s", "seconds": 9.4},
            "1 line · 9.4 s",
        ),
        (
            "Bash",
            {},
            {"output": "a\n== 41 passed in 9.02s ==", "seconds": 0.2},
            "41 passed · 2 lines",
        ),
        ("Bash", {}, {}, "no output"),
        (
            "BashOutput",
            {},
            {"output": "x", "structured": {"status": "running"}},
            "1 line · still running",
        ),
        ("KillShell", {"shell_id": "b1"}, {}, "ended"),
        ("Read", {}, {"pictures": 1}, "picture"),
        ("Grep", {}, {"output": "No matches found"}, "no matches"),
        ("Grep", {}, {"structured": {"numFiles": 4, "numMatches": 7}}, "7 matches in 4 files"),
        ("Glob", {}, {"output": "No files found"}, "0 files"),
        ("Agent", {}, {"structured": {"status": "async_launched"}}, "runs on"),
        ("TodoWrite", {"todos": []}, {}, "0 items"),
        ("AskUserQuestion", {"questions": []}, {}, "not answered"),
        ("Skill", {"skill": "x"}, {"output": "one two"}, "loaded · 2 words"),
        ("mcp__a__b", {"x": 1}, {"output": "1\n2"}, "2 lines"),
        ("Odd", {}, {"output": "x", "is_whole": False, "size": 30_000_000}, "30.0 MB"),
    ],
)
def test_an_outcome_is_told_in_few_words(
    name: str, arguments: dict[str, Any], told: dict[str, Any], shown: str
) -> None:
    assert outcome(line(name, arguments, **told)) == shown


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda each: (
        st.lists(each, max_size=3) | st.dictionaries(st.text(max_size=6), each, max_size=3)
    ),
    max_leaves=6,
)
NAMES = st.sampled_from(
    [
        *("command", "file_path", "edits", "old_string", "todos", "questions", "url", "plan"),
        *("file", "structuredPatch", "answers", "results", "numFiles", "offset", "limit"),
        *("status", "lines", "oldStart", "newStart", "content", "query"),
    ]
)
ODD = st.dictionaries(NAMES, JSON, max_size=4)


@given(st.sampled_from([*_LINES, "mcp__", "mcp__a", "", "Odd"]), ODD, ODD | JSON, st.booleans())
@settings(max_examples=300)
def test_no_arguments_are_too_odd_for_a_line(
    name: str, arguments: dict[str, Any], structured: Any, is_error: bool
) -> None:
    call = FoldedCall(name, arguments, "text", structured)
    found = call_line(call, is_error=is_error, is_answered=True)
    assert all(isinstance(part.text, str) for part in (*found.what, *found.outcome))
    assert all(isinstance(row.text, str) for row in diff_rows(call))


def test_a_diff_has_the_lines_of_the_patch_and_says_where_words_differ() -> None:
    patch = [
        {"oldStart": 3, "newStart": 3, "lines": [" a", "-one two three", "+one 2 three", " b"]},
        {"oldStart": 20, "newStart": 20, "lines": ["-gone", "\\ No newline at end of file"]},
        {"oldStart": "x"},
        None,
    ]
    rows = diff_rows(FoldedCall("Edit", {}, structured={"structuredPatch": patch}))
    assert [(row.sign, row.text, row.old, row.new) for row in rows] == [
        (" ", "a", 3, 3),
        ("-", "one two three", 4, None),
        ("+", "one 2 three", None, 4),
        (" ", "b", 5, 5),
        ("@", "14 lines further down", None, None),
        ("-", "gone", 20, None),
    ]
    start, end = rows[1].changed or (0, 0)
    assert rows[1].text[start:end] == "two"
    # Without a patch, by what it was told to replace.
    given_ = {"edits": [{"old_string": "a\nb", "new_string": "a\nc"}, {"new_string": "d"}]}
    rows = diff_rows(FoldedCall("MultiEdit", given_))
    assert [row.sign + row.text for row in rows] == [" a", "-b", "+c", "@another place", "+d"]


def test_what_is_long_is_cut_and_counted() -> None:
    short = clamped("\n".join(map(str, range(24))))
    assert short.is_whole
    long = clamped("\n".join(map(str, range(100))))
    assert (long.first, long.last) == ("0\n1\n2\n3\n4\n5", "94\n95\n96\n97\n98\n99")
    assert (long.hidden_lines, long.lines) == (88, 100)
    failed = clamped("\n".join(map(str, range(100))), of_failure=True)
    assert (failed.first.count("\n"), failed.last.count("\n")) == (3, 15)
    wide = cut_line("a" * 5_000)
    assert "3,000 characters of this line are not shown here" in wide
    assert clamped("x" * 9_000).lines == 1


def test_amounts_are_read_by_people() -> None:
    assert [counted(n, "match") for n in (0, 1, 2_041)] == ["0 matches", "1 match", "2,041 matches"]
    sizes = [0, 812, 999.6, 41_000, 999_600, 1_100_000, 99_600_000, 3e13]
    assert list(map(byte_size, sizes)) == [
        *("0 bytes", "812 bytes", "1 kB", "41 kB", "1.0 MB", "1.1 MB", "100 MB", "30000 GB"),
    ]
    took = [0.04, 9.94, 9.96, 41, 59.6, 60, 580, 3_600, 7_500, -3]
    assert list(map(seconds, took)) == [
        *("0.0 s", "9.9 s", "10 s", "41 s", "1 min", "1 min", "9 min 40 s", "1 h", "2 h 5 min"),
        "0.0 s",
    ]


class Lines(list[DiffRow]):
    """Rows that count how many of them are looked at."""

    looked_at = 0

    def __getitem__(self, place: Any) -> Any:
        found = super().__getitem__(place)
        self.looked_at += len(found) if isinstance(place, slice) else 1
        return found


@pytest.mark.parametrize(("old", "new"), [(2_000, 2_001), (2_000, 0), (0, 2_000), (2_000, 2_000)])
def test_each_row_of_a_change_is_looked_at_a_few_times(old: int, new: int) -> None:
    rows = Lines([*[DiffRow("-", "old")] * old, *[DiffRow("+", "new")] * new])
    assert len(list(_with_words(rows))) == old + new
    assert rows.looked_at < 4 * (old + new) + 10
