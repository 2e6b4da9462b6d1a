"""What a person typed is told from what agents and editors write as a user."""

from __future__ import annotations

import time
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from support.entries import KEY, message

from beanie_session_store import BeanieSessionStore, SessionSummary, Transcript
from beanie_session_store.app.rendering.pieces import Output, Pieces, Prose, Speaker
from beanie_session_store.models.counting.tally import Tally
from beanie_session_store.models.views.prompts import is_housekeeping, prompt_of

Entry = dict[str, Any]

FILE = "<ide_opened_file>The user opened /srv/plan.md in the IDE.</ide_opened_file>"
SELECTION = "<ide_selection>Lines 1 to 2:\n<div>\n</div>\n</ide_selection>"
REMINDER = "<system-reminder>\nA file was changed.\n</system-reminder>"
HOOK = "<user-prompt-submit-hook>APP-7 is open.</user-prompt-submit-hook>"
STOPPED = "[Request interrupted by user for tool use]"
NOTICE = "<task-notification>\n<summary>passed</summary>\n</task-notification>"
TEAMMATE = '<teammate-message teammate_id="a" color="blue">\nDone.\n</teammate-message>'
TRAILER = "Read the output file to retrieve the result: /tmp/b1.output"
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aQ=="}}


def user(content: Any, **fields: Any) -> Entry:
    return {"type": "user", "message": {"role": "user", "content": content}, **fields}


def text(said: str) -> Entry:
    return {"type": "text", "text": said}


@pytest.mark.parametrize(
    ("content", "typed"),
    [
        ("fix it", "fix it"),
        (f"{FILE}\nfix it", "fix it"),
        (f"{FILE}{SELECTION}fix it", "fix it"),
        (f"\n {REMINDER}\n\nfix it\n\n{REMINDER}\n", "fix it"),
        (f"fix it{REMINDER}", "fix it"),
        (f"fix it\n{REMINDER}\n{NOTICE}", "fix it"),
        (f"{STOPPED}\nfix it", "fix it"),
        (f"{NOTICE}\nfix it", "fix it"),
        (f"{NOTICE}\n{TRAILER}\n\nfix it", "fix it"),
        (f"fix it\n\n{TEAMMATE}", "fix it"),
        (f"fix it\n{NOTICE}\n{TRAILER}\n", "fix it"),
        (f"fix it\n{TRAILER}", f"fix it\n{TRAILER}"),
        (f"{HOOK}\n\nfix it", "fix it"),
        ([text(FILE), text("fix it")], "fix it"),
        ([text("fix"), text(REMINDER), text("it")], "fix\nit"),
        ([text(NOTICE), text("fix it")], "fix it"),
        ([text(f"{FILE}fix it"), text(SELECTION)], "fix it"),
        ([text(SELECTION), IMAGE], ""),
        ([{"type": "document"}], ""),
        ([IMAGE, text("fix it")], "fix it"),
    ],
)
def test_what_stands_around_it_was_not_typed(content: Any, typed: str) -> None:
    assert prompt_of(user(content)) == typed


@pytest.mark.parametrize(
    "typed",
    [
        "<div> is not closed",
        "<div>a</div>",
        "<T> is unbound",
        "<system-reminder> shows up in my prompts",
        "<task-notification> is shown as mine",
        "</system-reminder> stands alone",
        "<ide_selections>a</ide_selections>",
        "<channel><title>News</title></channel> is empty",
        "what does <system-reminder>a</system-reminder> mean?",
        "what is this: <system-reminder>a</system-reminder>",
        f"one\n{FILE}\ntwo",
        "why does the Stop hook feedback stop me?",
        "PostToolUse hook does not run",
        "[Request] interrupted by user",
        "A session is being continued",
        "/etc/hosts is empty",
        "  indented:\n    - as typed\n",
        "<command-name> is an odd tag",
        TRAILER,
    ],
)
def test_any_other_text_is_the_persons_to_the_last_blank(typed: str) -> None:
    assert prompt_of(user(typed)) == typed
    assert prompt_of(user([text(FILE), text(typed)])) == typed


@pytest.mark.parametrize(
    "content",
    [
        "",
        " \n",
        "(no content)",
        [],
        [text("")],
        None,
        7,
        FILE,
        f"{FILE}\n{SELECTION}",
        [text(FILE), text(REMINDER)],
        HOOK,
        NOTICE,
        f"\n{NOTICE}\n{TRAILER}",
        f"{NOTICE}\nFull transcript available at: /tmp/b1\n{NOTICE}\n{TRAILER}\n",
        f"{TEAMMATE}\n\nThis came from another Claude session - not typed by your user.\nMind it.",
        f"{REMINDER}\n{NOTICE}",
        [text(REMINDER), text(NOTICE)],
        TEAMMATE,
        f"\n{TEAMMATE}\n{TEAMMATE}",
        f"Another Claude session sent a message:\n{TEAMMATE}\n\nThis came from another session.",
        '<cross-session-message from="a">Done.</cross-session-message>',
        '<channel source="telegram" chat_id="1">Hello</channel>',
        "Stop hook feedback:\n[stop.sh]: checks failed",
        "SubagentStop hook feedback:\n- checks failed",
        "Operation stopped by hook: not now",
        "PostToolUse:Edit hook additional context: formatted",
        "This session is being continued from a previous conversation that ran out of context.",
        f"{REMINDER}\nThis session is being continued from a previous conversation that",
        "Caveat: The messages below were generated by the user while running local commands. DO",
        "[Request interrupted by user]",
        [text("[Request interrupted by user for tool use]")],
        "<local-command-stdout>done</local-command-stdout>",
        "<bash-stdout>a</bash-stdout><bash-stderr></bash-stderr>",
        "<command-name></command-name>",
        "<bash-input></bash-input>",
        [{"type": "tool_result", "tool_use_id": "t"}, text("fix it")],
    ],
)
def test_what_nobody_typed_is_no_prompt(content: Any) -> None:
    assert prompt_of(user(content)) is None


@pytest.mark.parametrize(
    "fields",
    [
        {"isMeta": True},
        {"isCompactSummary": True},
        {"isVisibleInTranscriptOnly": True},
        {"origin": {"kind": "peer"}},
        {"origin": {"kind": "auto-continuation"}},
        {"promptSource": "system"},
    ],
)
def test_what_the_agent_marks_as_its_own_is_no_prompt(fields: Entry) -> None:
    assert prompt_of(user("fix it", **fields)) is None


@pytest.mark.parametrize(
    "fields",
    [
        {"origin": {"kind": "human"}},
        {"origin": {}},
        {"origin": "human"},
        {"promptSource": "sdk"},
        {"isMeta": "yes"},
    ],
)
def test_what_the_agent_marks_otherwise_is_one(fields: Entry) -> None:
    assert prompt_of(user("fix it", **fields)) == "fix it"


NAME = "<command-name>/review</command-name>"
NOTE = "<command-message>review</command-message>"
ARGUMENTS = "<command-args>the queue, <b>all</b> of it</command-args>"


@pytest.mark.parametrize(
    ("content", "typed"),
    [
        (f"{NAME}\n{NOTE}\n{ARGUMENTS}", "/review the queue, <b>all</b> of it"),
        (f"{NOTE}\n{NAME}\n{ARGUMENTS}", "/review the queue, <b>all</b> of it"),
        (f"{ARGUMENTS}{NAME}{NOTE}", "/review the queue, <b>all</b> of it"),
        (f"{NAME}\n            {NOTE}\n            <command-args></command-args>", "/review"),
        (f"{NOTE}\n{NAME}", "/review"),
        (f"{FILE}\n{NAME}{ARGUMENTS}", "/review the queue, <b>all</b> of it"),
        ("<command-name>review</command-name>", "/review"),
        (
            "<command-name>/review</command-name><command-args>\na\nb\n</command-args>",
            "/review a\nb",
        ),
        ("<command-message>init is analyzing your code…</command-message>", "/init"),
        (f"{NOTE}\n{NAME}\nYou are to review what is named.", "/review"),
        ([text(f"{NOTE}\n{NAME}"), text("You are to review what is named.")], "/review"),
        ("<bash-input>ls -l</bash-input>", "! ls -l"),
        ("<user-memory-input>use make</user-memory-input>", "# use make"),
    ],
)
def test_a_command_is_as_it_was_typed(content: Any, typed: str) -> None:
    assert prompt_of(user(content)) == typed


_AROUND = st.sampled_from([FILE, SELECTION, REMINDER, HOOK, NOTICE, TEAMMATE])
_BLANK = st.sampled_from(["", "\n", "\n\n"])
_TYPED = st.text(min_size=1).map(str.strip).filter(bool) | st.sampled_from(
    ["<div> is not closed", "see <system-reminder>", "a\n\nb", "/x y", "[x]"]
)


@settings(max_examples=300, deadline=None)
@given(
    typed=_TYPED.filter(lambda each: each != "(no content)"),
    before=st.lists(st.tuples(_AROUND, _BLANK), max_size=3),
    behind=st.lists(_AROUND, max_size=3),
    as_blocks=st.booleans(),
)
def test_what_was_typed_survives_whatever_stands_around_it(
    typed: str, before: list[tuple[str, str]], behind: list[str], as_blocks: bool
) -> None:
    if as_blocks:
        content: Any = [*(text(t) for t, _ in before), text(typed), *map(text, behind)]
    else:
        content = "".join(map("".join, before)) + "\n\n".join([typed, *behind])
    entry = user(content)
    found = prompt_of(entry)
    assert found is not None
    assert found.strip() == typed
    pieces = list(Pieces().of(entry))
    assert "".join(piece.text for piece in pieces if isinstance(piece, Prose)).strip() == typed
    folded = "\n".join(piece.text for piece in pieces if isinstance(piece, Output))
    assert all(folded.count(each) >= 1 for each in (*(t for t, _ in before), *behind))
    assert Transcript([{**entry, "uuid": "u"}]).turns[0].text == found


@pytest.mark.parametrize(
    "hostile",
    [
        "<system-reminder>" * 60_000,
        "<system-reminder></system-reminder>" * 30_000,
        "x\n" + "<system-reminder></system-reminder>\n" * 30_000,
        "<system-reminder>a" * 30_000 + "</system-reminder>" * 30_000,
        "x" + "</system-reminder>" * 60_000,
        "<system-reminder " + "a" * 1_000_000,
        "A" * 1_000_000,
        " " * 1_000_000,
        "<" * 1_000_000,
    ],
    ids=lambda hostile: hostile[:20].strip() or "blank",
)
def test_a_text_of_a_megabyte_takes_no_time(hostile: str) -> None:
    start = time.process_time()
    prompt_of(user(hostile))
    assert time.process_time() - start < 2


def test_a_page_shows_what_was_typed_and_folds_what_was_added() -> None:
    entry = user([text(FILE), text(f"fix it\n{REMINDER}")])
    speaker, file, prose, reminder = Pieces().of(entry)
    assert isinstance(speaker, Speaker)
    assert speaker.name == "User"
    assert isinstance(file, Output)
    assert (file.title, file.text, file.is_folded) == ("Added by the agent", FILE, True)
    assert isinstance(prose, Prose)
    assert prose.text == "fix it"
    assert isinstance(reminder, Output)
    assert reminder.text == REMINDER
    speaker, prose = Pieces().of(user(TEAMMATE))
    assert isinstance(speaker, Speaker)
    assert speaker.name == "Agent"
    assert isinstance(prose, Prose)
    assert prose.text == TEAMMATE


def test_housekeeping_is_the_first_prompt_only_until_something_is_asked() -> None:
    def first(*contents: str) -> str | None:
        whole, stored = Tally(), Tally()
        for seq, content in enumerate(contents, 1):
            whole.add([user(content)], "", seq)
            stored = Tally.of(stored.document(1), stored.texts)
            stored.add([user(content)], "", seq)
        assert stored.texts == whole.texts
        return whole.texts["first_prompt"]

    clear = "<command-name>/clear</command-name>\n<command-args></command-args>"
    model = "<command-name>/model</command-name>\n<command-args>opus</command-args>"
    assert is_housekeeping("/model opus")
    assert first(clear) == "/clear"
    assert first(clear, model) == "/clear"
    assert first(clear, model, "fix it", "and this") == "fix it"
    assert first(clear, f"{NAME}{ARGUMENTS}", "x") == "/review the queue, <b>all</b> of it"
    assert first(NAME, "x") == "/review"
    assert first(FILE, "", "x") == "x"


_CONTENTS = st.sampled_from(
    [
        *("fix it", f"{FILE}\nfix", FILE, "", NOTICE, TEAMMATE, NAME, "<div> is open", STOPPED),
        *([text(FILE), text("x")], [IMAGE], [text(REMINDER)], "Stop hook feedback:\nx"),
        *([{"type": "tool_result", "tool_use_id": "t", "content": "x"}],),
    ]
)


@settings(max_examples=100, deadline=None)
@given(contents=st.lists(st.tuples(_CONTENTS, st.booleans()), max_size=12))
def test_totals_count_the_turns_that_the_transcript_has(
    contents: list[tuple[Any, bool]],
) -> None:
    entries: list[Entry] = []
    for number, (content, is_meta) in enumerate(contents):
        parent = f"u{number - 1}" if number else None
        marked = {"isMeta": True} if is_meta else {}
        entries.append(user(content, uuid=f"u{number}", parentUuid=parent, **marked))
    # What the agent hides is no leaf.
    entries.append({"type": "assistant", "uuid": "a", "parentUuid": f"u{len(contents) - 1}"})
    tally = Tally()
    tally.add(entries, "", 1)
    turns = [turn for turn in Transcript(entries).turns if turn.prompt]
    assert tally.turns == len(turns)
    asked = [turn.text for turn in turns if turn.text]
    assert tally.texts["first_prompt"] == (" ".join(asked[0].split()) if asked else None)


async def test_a_session_is_counted_and_listed_by_what_was_typed(
    store: BeanieSessionStore,
) -> None:
    contents = [FILE, NOTICE, f"{FILE}\nfix it", TEAMMATE, f"{NAME}{ARGUMENTS}"]
    for content in contents:
        await store.append(KEY, [message(content)])
    summary = await SessionSummary.find_one()
    assert summary is not None
    assert summary.totals is not None
    assert (summary.first_prompt, summary.totals.turns) == ("fix it", 2)
    assert (await store.verify(KEY)).is_sound
