"""``session-store sessions``: the same sessions for a narrow terminal, a wide one and a pipe."""

from __future__ import annotations

import re
from typing import Any

import pytest
from rich.cells import cell_len
from support.command import SessionStoreCommand
from support.entries import message

from beanie_session_store import BeanieSessionStore, SessionSummary
from beanie_session_store.app.database.driver import Database, collection_of

IDS = [f"{number:08x}-1111-4111-8111-111111111111" for number in range(1, 8)]
PROJECT = "-home-somebody-work-with-a-long-name-of-the-login-service"
HOSTILE = "\x1b[2J\x1b]8;;http://evil.example\x07x [bold red]\u202e\x9b31m\r\x00\x08"
ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


def answer(model: str = "opus") -> dict[str, Any]:
    call = {"type": "tool_use", "id": "t1", "name": "Bash", "input": {"command": "ls"}}
    usage = {"input_tokens": 45_000, "output_tokens": 200, "cache_read_input_tokens": 1_000_000}
    body = {"id": "m1", "model": model, "role": "assistant", "content": [call], "usage": usage}
    return {"type": "assistant", "uuid": "a1", "message": body}


@pytest.fixture
def command(mongo_url: str, database: Database) -> SessionStoreCommand:
    return SessionStoreCommand(mongo_url, database.name)


@pytest.fixture
async def filled(store: BeanieSessionStore) -> BeanieSessionStore:
    for number, session_id in enumerate(IDS):
        key: Any = {"project_key": PROJECT if number % 2 else "-srv", "session_id": session_id}
        entries = [message(f"Fix the login of customer {number} before the weekend"), answer()]
        if number == 3:
            entries += [{"type": "custom-title", "customTitle": "The title of the third"}]
            entries += [{"type": "tag", "tag": "urgent"}]
            entries += [{"type": "cost-state", "totalCostUSD": 1.25, "startTime": 1}]
        await store.append(key, entries)
    return store


async def test_a_pipe_gets_plain_lines_with_whole_values(
    filled: BeanieSessionStore, command: SessionStoreCommand
) -> None:
    finished = await command("sessions", COLUMNS="40")
    assert finished.code == 0
    assert finished.errors == ""
    lines = finished.output.splitlines()
    assert lines[0].split() == [
        *("SESSION", "CHANGED", "TURNS", "TOOLS", "TOKENS", "COST", "EST", "PROJECT", "TITLE")
    ]
    assert [line.split()[0] for line in lines[1:]] == IDS[::-1]
    (third,) = [line for line in lines if line.startswith(IDS[3])]
    assert third.split(maxsplit=8)[2:] == [
        *("1", "1", "1045200", "1.250000", "-", PROJECT, "The title of the third")
    ]
    assert third.split()[1].endswith("Z")
    assert all(ord(character) < 127 for character in finished.output)


@pytest.mark.parametrize("columns", [80, 200])
async def test_a_terminal_gets_a_table_that_fits(
    filled: BeanieSessionStore, command: SessionStoreCommand, columns: int
) -> None:
    shown = await command.on_terminal(columns, "sessions")
    assert "\x1b[36m" in shown
    lines = [ESCAPES.sub("", line) for line in shown.splitlines()]
    assert len(lines) == 1 + len(IDS)
    assert all(cell_len(line) <= columns for line in lines), lines
    (third,) = [line for line in lines if line.startswith(IDS[3][:8])]
    assert third.split()[0] == IDS[3][:8]
    assert "s ago" in third
    assert "1.0M  $1.25" in third
    if columns == 200:
        assert f"  {PROJECT[-20:]}" in third or "login-service  The title of the third" in third
    else:
        assert "gin-service  The title of" in third


async def test_no_color_means_no_escape_sequence_at_all(
    filled: BeanieSessionStore, command: SessionStoreCommand
) -> None:
    shown = await command.on_terminal(80, "sessions", NO_COLOR="1")
    assert "\x1b" not in shown
    assert IDS[3][:8] in shown
    assert IDS[3] not in shown
    assert "\x1b" in await command.on_terminal(80, "sessions", NO_COLOR="")


async def test_a_name_that_the_table_shows_means_one_session(
    store: BeanieSessionStore, command: SessionStoreCommand
) -> None:
    for name in ("run-number-1", "run-number-2", "other"):
        await store.append({"project_key": "p", "session_id": name}, [message()])
    shown = await command.on_terminal(80, "sessions", NO_COLOR="1")
    names = [line.split()[0] for line in shown.splitlines()[1:]]
    assert len(set(names)) == 3
    for name in names:
        await store.session_named(name)


async def test_pages_have_each_session_once(
    filled: BeanieSessionStore, command: SessionStoreCommand
) -> None:
    found: list[str] = []
    cursor: list[str] = []
    while True:
        finished = await command("--json", "sessions", "--limit", "3", *cursor)
        page = finished.json
        found += [row["session_id"] for row in page["sessions"]]
        if page["after"] is None:
            break
        cursor = ["--after", page["after"]]
    assert sorted(found) == IDS
    finished = await command("sessions", "--limit", "3")
    (hint,) = finished.errors.splitlines()
    again = await command("sessions", *hint.split()[-2:])
    assert len(again.output.splitlines()) == 1 + 4


@pytest.mark.parametrize(
    ("arguments", "numbers"),
    [
        (["--project", "-srv"], [0, 2, 4, 6]),
        (["--title", "CUSTOMER 5"], [5]),
        (["--title", "third"], [3]),
        (["--tag", "urgent"], [3]),
        (["--since", "1h"], [0, 1, 2, 3, 4, 5, 6]),
        (["--until", "1h"], []),
        (["--since", "2020-01-01", "--until", "2020-01-02T10:30Z"], []),
        (["--metadata", "user_id=u1"], []),
        (["--tenant", "other"], []),
    ],
)
async def test_filters_narrow_the_list(
    filled: BeanieSessionStore,
    command: SessionStoreCommand,
    arguments: list[str],
    numbers: list[int],
) -> None:
    rows = (await command("sessions", "--json", *arguments)).json["sessions"]
    assert sorted(row["session_id"] for row in rows) == [IDS[number] for number in numbers]


async def test_metadata_is_compared_as_it_is_stored(
    database: Database, command: SessionStoreCommand
) -> None:
    for number, metadata in enumerate([{"user": "7"}, {"user": 7}, {"user": "u7"}]):
        store = BeanieSessionStore(metadata=metadata)
        await store.append({"project_key": "p", "session_id": f"s{number}"}, [message()])
    for value, expected in (('"7"', "s0"), ("7", "s1"), ("u7", "s2")):
        finished = await command("--json", "sessions", "--metadata", f"user={value}")
        (row,) = finished.json["sessions"]
        assert row["session_id"] == expected


async def test_json_has_all_figures(
    filled: BeanieSessionStore, command: SessionStoreCommand
) -> None:
    (row,) = (await command("sessions", "--json", "--tag", "urgent")).json["sessions"]
    tokens = {"input": 45_000, "output": 200, "cache_creation": 0, "cache_read": 1_000_000}
    expected = {
        "project_key": PROJECT,
        "session_id": IDS[3],
        "title": "The title of the third",
        "turns": 1,
        "tool_calls": 1,
        "tool_errors": 0,
        "tokens": tokens,
        "cost_usd": 1.25,
    }
    assert {name: row[name] for name in expected} == expected
    assert row["changed_at"].endswith("+00:00")


async def test_hostile_texts_reach_no_terminal(
    store: BeanieSessionStore, command: SessionStoreCommand
) -> None:
    key: Any = {"project_key": "-\x1b[2Jp", "session_id": "1\x1b[2J23456789"}
    title = {"type": "custom-title", "customTitle": HOSTILE}
    await store.append(key, [message(HOSTILE), title])
    piped = (await command("sessions")).output
    shown = ESCAPES.sub("", await command.on_terminal(200, "sessions"))
    for text in (piped, shown):
        assert len(text.splitlines()) == 2
        assert not [c for c in text if (ord(c) < 32 and c != "\n") or 127 <= ord(c) < 160]
        assert "\u202e" not in text
        assert "[bold red]" in text


async def test_what_an_older_release_wrote_is_listed_without_figures(
    store: BeanieSessionStore, command: SessionStoreCommand
) -> None:
    await store.append({"project_key": "p", "session_id": "old"}, [message()])
    await collection_of(SessionSummary).update_one({}, {"$unset": {"totals": 1}})
    finished = await command("sessions")
    assert finished.output.splitlines()[1].split()[2:6] == ["-", "-", "-", "-"]
    assert "old" in await command.on_terminal(80, "sessions")


async def test_an_empty_list_is_no_failure(
    database: Database, command: SessionStoreCommand
) -> None:
    finished = await command("sessions")
    assert (finished.code, finished.output) == (0, "")
    assert finished.errors == "No such sessions of tenant default.\n"
    assert (await command("sessions", "--json")).json == {"sessions": [], "after": None}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--since", "yesterday"], "--since: 'yesterday' is no time"),
        (["--metadata", "user"], "takes NAME=VALUE"),
        (["--metadata", "a.b=1"], "plain name"),
        (["--metadata", "a={}"], "query operator"),
        (["--after", "xyz"], "cursor of a page"),
        (["--limit", "0"], "'--limit'"),
        (["--project", ""], "given but empty"),
    ],
)
async def test_a_mistake_gives_one_line_and_exit_code_2(
    database: Database, command: SessionStoreCommand, arguments: list[str], said: str
) -> None:
    finished = await command("sessions", *arguments)
    assert finished.code == 2
    assert said in finished.errors
    assert len(finished.errors.splitlines()) == 1
    assert finished.output == ""
