"""``session-store show``: all of a session, in its order, in the forms of a terminal and a pipe."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from support.command import MAIN, SessionStoreCommand
from support.entries import KEY, message
from support.watches import until_watched

from beanie_session_store import BeanieSessionStore
from beanie_session_store.app.database.driver import Database

SESSION = KEY["session_id"]
AT = "2026-01-01T00:00:00.000Z"
ESCAPES = re.compile(r"\x1b\[[0-9;]*m")
FULL = Path("/dev/full")
HOSTILE = (
    "\x1b[2J\x1b]8;;http://evil.example\x07x[/] [bold red]y\u202e\u2066\x9b31m\rz\x00\x08\ud83d"
)


def said(*blocks: dict[str, Any], **fields: Any) -> dict[str, Any]:
    body = {"role": "assistant", "id": os.urandom(4).hex(), "content": list(blocks)}
    return {"type": "assistant", "uuid": os.urandom(8).hex(), "timestamp": AT, "message": body}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def call(name: str, number: str, **arguments: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": number, "name": name, "input": arguments}


def returned(number: str, content: str, *, fails: bool = False, **fields: Any) -> dict[str, Any]:
    block = {"type": "tool_result", "tool_use_id": number, "content": content, "is_error": fails}
    return message(message={"role": "user", "content": [block]}, **fields)


def subagent(name: str) -> Any:
    return {**KEY, "subpath": f"subagents/agent-{name}"}


@pytest.fixture
def command(mongo_url: str, database: Database) -> SessionStoreCommand:
    return SessionStoreCommand(mongo_url, database.name)


@pytest.fixture
async def nested(store: BeanieSessionStore) -> BeanieSessionStore:
    """Two subagents, one named by its metadata and one by the result, and one below the first."""
    await store.append(
        KEY,
        [
            {"type": "custom-title", "customTitle": "Mend the clock"},
            message("Why is it late?"),
            said({"type": "thinking", "thinking": "Let me see\nwell"}),
            said(text("I look."), call("Bash", "t1", command="date\ndate -u"), call("Read", "t2")),
            returned("t2", "No such file", fails=True),
            returned("t1", "one\ntwo\nthree"),
            said(call("Agent", "t3", description="Review", prompt="Review it well")),
        ],
    )
    metadata = {"type": "agent_metadata", "agentType": "critic", "description": "Review"}
    await store.append(
        subagent("a1"),
        [
            {**metadata, "toolUseId": "t3"},
            message("Review it well"),
            said(call("Agent", "n1", description="Deeper")),
        ],
    )
    await store.append(subagent("b2"), [said(text("deepest"))])
    await store.append(
        subagent("a1"),
        [returned("n1", "deep", toolUseResult={"agentId": "b2"}), said(text("It is well"))],
    )
    await store.append(subagent("lost"), [said(text("nobody called me"))])
    await store.append(KEY, [returned("t3", "reviewed"), said(text("The clock is mended."))])
    return store


READABLE = """\
Mend the clock
session session
project project, tenant default
1 turn, 4 tool calls (1 failed), 0 tokens, - by the agent's account, $0.00 estimated
last change CHANGED
  - Title: Mend the clock

User  2026-01-01 00:00:00
  Why is it late?

Assistant  2026-01-01 00:00:00
  ~ thinking, 2 lines: Let me see
  I look.
  > Bash: date date -u
  > Read: {}
  ! 1 line: No such file
  < Bash, 3 lines: one
  > Agent: Review
|
| Subagent critic: Review
|
| User  2026-01-01 00:00:00
|   Review it well
|
| Assistant  2026-01-01 00:00:00
|   > Agent: Deeper
| |
| | Subagent subagents/agent-b2
| |
| | Assistant  2026-01-01 00:00:00
| |   deepest
|   < Agent, 1 line: deep
|   It is well
  < Agent, 1 line: reviewed
  The clock is mended.
|
| Subagent subagents/agent-lost
|
| Assistant  2026-01-01 00:00:00
|   nobody called me
"""


async def test_subagents_stand_below_the_calls_that_started_them(
    nested: BeanieSessionStore, command: SessionStoreCommand
) -> None:
    finished = await command("show", "sess")
    assert re.sub(r"(last change) \S+Z\n", r"\1 CHANGED\n", finished.output) == READABLE
    assert (finished.code, finished.errors) == (0, "")


async def test_full_unfolds_what_tools_were_given_and_returned(
    nested: BeanieSessionStore, command: SessionStoreCommand
) -> None:
    output = (await command("show", SESSION, "--full")).output
    assert "  > Bash\n    date\n    date -u\n" in output
    assert "  < Bash, 3 lines\n    one\n    two\n    three\n" in output
    assert "  ~ thinking, 2 lines\n    Let me see\n    well\n" in output
    assert '  > Agent\n    {\n      "description": "Review",\n' in output


@pytest.mark.parametrize("columns", [80, 200])
async def test_a_terminal_gets_lines_that_fit(
    store: BeanieSessionStore, command: SessionStoreCommand, columns: int
) -> None:
    words = "words " * 100
    await store.append(
        KEY,
        [
            message(words + "日本語" * 60),
            said(text(words), call("Bash", "t1", command=words)),
            returned("t1", words),
        ],
    )
    piped = (await command("show", SESSION, COLUMNS="40")).output
    assert words.strip() in piped
    assert f"> Bash: {words.strip()}\n" in piped
    assert "\x1b" not in piped
    shown = await command.on_terminal(columns, "show", SESSION)
    assert "\x1b[1;36mUser" in shown
    plain = ESCAPES.sub("", shown)
    assert all(cell_len(line) <= columns for line in plain.splitlines())
    assert max(cell_len(line) for line in plain.splitlines()) > columns - 8
    assert plain.count("words") > 200
    assert plain.count("> Bash: ") == plain.count("…\n  < 1 line: words") == 1
    assert "\x1b" not in await command.on_terminal(columns, "show", SESSION, NO_COLOR="1")


async def test_hostile_texts_reach_no_terminal(
    store: BeanieSessionStore, command: SessionStoreCommand
) -> None:
    result = {"type": "tool_result", "tool_use_id": HOSTILE, "content": HOSTILE}
    entries = [
        {"type": "custom-title", "customTitle": HOSTILE},
        {"type": HOSTILE},
        {"type": "system", "uuid": "s", "content": HOSTILE},
        message(HOSTILE),
        said(
            text(HOSTILE),
            {"type": "thinking", "thinking": HOSTILE},
            call(HOSTILE, HOSTILE, **{HOSTILE: HOSTILE}),
            call("Bash", "t2", command=HOSTILE),
            {"type": "image", "source": {"type": HOSTILE, "media_type": HOSTILE}},
        ),
        message(message={"role": "user", "content": [result]}),
    ]
    metadata = {"type": "agent_metadata", "agentType": HOSTILE, "description": HOSTILE}
    await store.append(KEY, entries)
    await store.append(subagent("a1"), [metadata, *entries])
    printed = [
        (await command("show", SESSION, *options)).output
        for options in ([], ["--full"], ["--raw"], ["--json"])
    ]
    printed += [
        ESCAPES.sub("", await command.on_terminal(80, "show", SESSION, *options))
        for options in ([], ["--full"])
    ]
    for each in printed:
        assert not [c for c in each if (ord(c) < 32 and c not in "\n\t") or 127 <= ord(c) < 160]
        assert not {"\u202e", "\u2066", "\ud83d"} & set(each)
        assert "[bold red]" in each


async def test_raw_gives_the_entries_back_and_json_their_places(
    nested: BeanieSessionStore, command: SessionStoreCommand
) -> None:
    awkward = message(f"{HOSTILE} \x7f", big=2**70, real=1.0)
    await nested.append(KEY, [awkward])
    raw = (await command("show", SESSION, "--raw")).output.splitlines()
    main = await nested.load(KEY)
    assert main is not None
    entries = [*main]
    for name in ("a1", "b2", "lost"):
        entries += await nested.load(subagent(name)) or []
    assert [json.loads(line) for line in raw] == entries
    placed = [
        json.loads(line) for line in (await command("show", SESSION, "--json")).output.splitlines()
    ]
    assert [each["entry"] for each in placed] == entries
    assert [each["subpath"] for each in placed[: len(main)]] == [""] * len(main)
    assert sorted(each["seq"] for each in placed) == list(range(1, len(entries) + 1))


@pytest.mark.parametrize("form", [[], ["--json"]])
async def test_following_gives_what_is_stored_and_then_what_comes(
    nested: BeanieSessionStore, command: SessionStoreCommand, database: Database, form: list[str]
) -> None:
    process = await command.started("show", SESSION, "--follow", *form)
    assert process.stdout is not None
    await until_watched(database, 1)
    metadata = {"type": "agent_metadata", "agentType": "scout", "description": "Look on"}
    await nested.append(KEY, [message("And now?")])
    await nested.append(subagent("new"), [metadata, said(text("I scout"))])
    await nested.append(KEY, [said(text("The end"))])
    lines: list[str] = []
    while not lines or "The end" not in lines[-1]:
        lines.append((await process.stdout.readline()).decode())
    process.send_signal(signal.SIGINT)
    rest, errors = await process.communicate()
    assert (process.returncode, rest, errors) == (130, b"", b"")
    if form:
        seqs = [json.loads(line)["seq"] for line in lines]
        assert sorted(seqs) == list(range(1, len(lines) + 1))
        assert seqs[-4:] == list(range(len(lines) - 3, len(lines) + 1))
        return
    live = "".join(lines).partition("nobody called me\n")[2]
    assert live == (
        "\nUser  2026-01-01 00:00:00\n  And now?\n"
        "|\n| Subagent scout: Look on\n|\n| Assistant  2026-01-01 00:00:00\n|   I scout\n"
        "\nAssistant  2026-01-01 00:00:00\n  The end\n"
    )


async def test_a_closed_pipe_ends_it_quietly(
    store: BeanieSessionStore, command: SessionStoreCommand
) -> None:
    await store.append(KEY, [message("line\n" * 200_000)])
    for options in (["--full"], ["--raw"]):
        process = await command.started("show", SESSION, *options)
        assert process.stdout is not None
        assert await process.stdout.read(10)
        process.stdout._transport.close()  # type: ignore[attr-defined]
        assert process.stderr is not None
        assert await process.stderr.read() == b""
        assert await process.wait() == 141


@pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full here")
async def test_a_full_disk_gives_one_line(
    nested: BeanieSessionStore, command: SessionStoreCommand
) -> None:
    full = os.open(FULL, os.O_WRONLY)
    process = await command.started("show", SESSION, stdout=full)
    os.close(full)
    _, errors = await process.communicate()
    assert process.returncode == 1
    assert len(errors.splitlines()) == 1
    assert b"No space left on device" in errors


@pytest.mark.soak
async def test_a_long_session_takes_no_more_memory_than_a_short_one(
    store: BeanieSessionStore, command: SessionStoreCommand
) -> None:
    # Of about a megabyte each; a driver holds what comes at once, which is 16 MiB.
    lengths = {"short": 18, "long": 60}
    for name, length in lengths.items():
        for _ in range(length):
            entry = returned("t", "A line of what a tool printed.\n" * 30_000)
            await store.append({**KEY, "session_id": name}, [entry])  # type: ignore[arg-type]
    peaks: dict[str, float] = {}
    for name in lengths:
        program = f"import atexit, resource, sys; atexit.register({_PEAK}); {MAIN}"
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", program, "show", name, "--full"),
            env={
                **os.environ,
                "SESSION_STORE_MONGODB_URL": command.url,
                "SESSION_STORE_DATABASE": command.database,
            },
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        _, errors = await process.communicate()
        assert process.returncode == 0, errors
        peaks[name] = int(errors.split()[-1]) / (1024 if sys.platform != "darwin" else 1024**2)
    assert peaks["long"] - peaks["short"] < 30, peaks


_PEAK = "lambda: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["nobody"], 1, "There is no session nobody of tenant default"),
        (["session", "--tenant", "other"], 1, "of tenant other"),
        (["session", "--project", "other"], 1, "in project other"),
        (["s"], 1, "session (project project), sibling (project project). Give more"),
        ([""], 2, "but empty"),
        (["session", "--raw", "--json"], 2, "two forms"),
        (["session", "--raw", "--full"], 2, "full as they are"),
        ([], 2, "Missing argument"),
    ],
)
async def test_a_mistake_gives_one_line(
    store: BeanieSessionStore,
    command: SessionStoreCommand,
    arguments: list[str],
    code: int,
    said: str,
) -> None:
    for name in ("session", "sibling"):
        await store.append({**KEY, "session_id": name}, [message()])
    finished = await command("show", *arguments)
    assert finished.code == code
    assert said in finished.errors
    assert len(finished.errors.splitlines()) == 1
    assert finished.output == ""


async def test_following_needs_a_replica_set(
    standalone_url: str, standalone_database: Database
) -> None:
    await BeanieSessionStore().append(KEY, [message("alone")])
    command = SessionStoreCommand(standalone_url, standalone_database.name)
    finished = await command("show", SESSION, "--follow")
    assert finished.code == 1
    assert "alone" in finished.output
    assert "no replica set" in finished.errors.splitlines()[-1]
