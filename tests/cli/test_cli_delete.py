"""``session-store delete``: what was agreed to is gone, whole, and nothing else."""

from __future__ import annotations

import asyncio
import os
import pty
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support.command import SessionStoreCommand
from support.entries import KEY, SUBAGENT, turn

from beanie_session_store import BeanieSessionStore, TranscriptEntry
from beanie_session_store.app.database.driver import Database

TITLE = {"type": "custom-title", "customTitle": "The \x1b[2Jclock [bold]", "sessionId": "session"}


@pytest.fixture
async def command(mongo_url: str, database: Database) -> SessionStoreCommand:
    return SessionStoreCommand(mongo_url, database.name)


@pytest.fixture
async def filled(store: BeanieSessionStore) -> BeanieSessionStore:
    await store.append(KEY, [*turn(1), TITLE])
    await store.append(SUBAGENT, turn(2))
    await store.append({**KEY, "session_id": "other"}, turn(1))
    await store.append({"project_key": "b", "session_id": "other"}, turn(1))
    stranger: Any = BeanieSessionStore(tenant="stranger")
    await stranger.append(KEY, turn(1))
    return store


async def left() -> set[tuple[str, str, str]]:
    entries = await TranscriptEntry.find({}).to_list()
    return {(each.tenant, each.project_key, each.session_id) for each in entries}


async def test_a_session_is_deleted_with_its_subagents_and_nothing_else(
    filled: BeanieSessionStore, command: SessionStoreCommand
) -> None:
    before = await left()
    done = await command("delete", "session", "--yes")
    assert (done.code, done.output) == (0, "deleted 1 session\n")
    assert "13 stored entries, 1 subagent, changed 20" in done.errors
    assert "The ␛[2Jclock [bold]" in done.errors
    assert before - await left() == {("default", "project", "session")}
    again = await command("delete", "session", "--yes")
    assert (again.code, again.errors.count("\n")) == (1, 1)
    assert "no session session" in again.errors


@pytest.mark.parametrize("is_on_terminal", [False, True])
async def test_a_script_that_runs_twice_deletes_no_other_session(
    store: BeanieSessionStore, command: SessionStoreCommand, is_on_terminal: bool
) -> None:
    for name in ("s1", "s10", "s11"):
        await store.append({**KEY, "session_id": name}, turn(1))
    terminal, theirs = pty.openpty()
    stdin = theirs if is_on_terminal else subprocess.DEVNULL
    codes = [(await command.process("delete", "--yes", "s1", stdin=stdin)).code for _ in range(2)]
    assert codes == [0, 1]
    await store.delete({**KEY, "session_id": "s11"})
    # Now it would name one session, were the beginning of its id enough.
    done = await command.process("delete", "--yes", "s1", stdin=stdin)
    assert (done.code, done.output) == (1, "")
    assert "s10 begins so, but only a whole id is taken here" in done.errors
    if not is_on_terminal:
        assert (await command.process("verify", "--repair", "s1", stdin=stdin)).code == 1
        # What changes nothing goes on to take it.
        assert (await command.process("verify", "s1", stdin=stdin)).code == 0
    os.close(terminal)
    os.close(theirs)
    assert await left() == {("default", "project", "s10")}


async def test_several_are_deleted_by_any_of_their_names(
    filled: BeanieSessionStore, command: SessionStoreCommand
) -> None:
    done = await command("--json", "delete", "session", "session", "--yes", "--project", "project")
    assert done.json == {"deleted": [{"project_key": "project", "session_id": "session"}]}
    done = await command("delete", "other", "--yes", "--project", "b")
    assert done.code == 0
    assert await left() == {
        ("default", "project", "other"),
        ("stranger", "project", "session"),
    }


@pytest.mark.parametrize(
    ("names", "code", "said"),
    [
        (["session", "nobody"], 1, "no session nobody"),
        (["session", "other"], 1, "other (project b), other (project project). Name the project"),
        (["session", ""], 2, "given but empty"),
        ([], 2, "Name sessions"),
    ],
)
async def test_one_wrong_name_and_nothing_is_deleted(
    filled: BeanieSessionStore,
    command: SessionStoreCommand,
    names: list[str],
    code: int,
    said: str,
) -> None:
    before = await left()
    done = await command("delete", *names, "--yes")
    assert (done.code, done.output, done.errors.count("\n")) == (code, "", 1)
    assert said in done.errors
    assert await left() == before


async def test_where_there_is_nobody_to_ask_nothing_is_deleted(
    filled: BeanieSessionStore, command: SessionStoreCommand
) -> None:
    before = await left()
    done = await command.process("delete", "session", stdin=subprocess.DEVNULL)
    assert (done.code, done.output) == (2, "")
    assert done.errors.splitlines()[-1] == (
        "error: There is nobody to ask here. Nothing was changed; give --yes to go ahead."
    )
    assert await left() == before


@pytest.mark.parametrize(
    ("answer", "code"), [("y\n", 0), ("n\n", 1), ("\n", 1), ("\x04", 1), (None, 1)], ids=repr
)
async def test_who_is_asked_decides(
    filled: BeanieSessionStore, command: SessionStoreCommand, answer: str | None, code: int
) -> None:
    before = await left()
    terminal, theirs = pty.openpty()
    process = await command.started("delete", "session", stdin=theirs)
    assert process.stderr is not None
    asked = b""
    while b"Delete 1 session? [y/N]: " not in asked:
        part = await process.stderr.read(1000)
        assert part, asked
        asked += part
    if answer is None:
        # A signal between the question and the wait for an answer is seen only after it.
        while not reads_its_input(process.pid):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        process.send_signal(signal.SIGINT)
    else:
        os.write(terminal, answer.encode())
    output, errors = await process.communicate()
    os.close(terminal)
    os.close(theirs)
    assert process.returncode == code, errors
    assert b"Traceback" not in errors
    assert bool(before - await left()) == (code == 0)
    if code:
        # What was typed, its newline included, is echoed by the terminal.
        assert errors.endswith(b"error: aborted; nothing was changed\n"), errors
        assert output == b""


def reads_its_input(pid: int) -> bool:
    """Whether the process waits in the system call ``read`` of its stdin."""
    number, *arguments = Path(f"/proc/{pid}/syscall").read_text().split()
    return number in ("0", "63") and arguments[0] == "0x0"


async def test_all_sessions_of_a_user_are_deleted_by_their_metadata(
    filled: BeanieSessionStore, command: SessionStoreCommand
) -> None:
    mine = BeanieSessionStore(metadata={"user_id": "u1"})
    await mine.append({**KEY, "session_id": "mine"}, turn(5))
    await mine.append({**SUBAGENT, "session_id": "subagent-only"}, turn(6))
    await mine.append({**KEY, "session_id": "held"}, turn(7))
    await mine.hold({**KEY, "session_id": "held"})
    before = await left()
    looked = await command("delete", "--metadata", "user_id=u1", "--dry-run")
    assert (looked.code, looked.output) == (0, "2 sessions would be deleted\n")
    assert "'held' of project 'project' is held and stays" in looked.errors
    asked = await command("delete", "--metadata", "user_id=u1")
    assert asked.code == 2
    assert "nobody to ask" in asked.errors
    assert await left() == before
    done = await command("--json", "delete", "--metadata", "user_id=u1", "--yes")
    assert done.code == 0
    found = done.json
    assert (found["deleted"], found["found"]) == (2, 3)
    assert found["held"] == [{"project_key": "project", "session_id": "held"}]
    gone = {("default", "project", name) for name in ("mine", "subagent-only")}
    assert before - await left() == gone


@pytest.mark.parametrize(
    "arguments", [(), ("session", "--metadata", "user_id=u1"), ("--metadata", "user_id")]
)
async def test_a_delete_that_says_nothing_or_two_things_is_misuse(
    filled: BeanieSessionStore, command: SessionStoreCommand, arguments: tuple[str, ...]
) -> None:
    before = await left()
    done = await command("delete", *arguments, "--yes")
    assert done.code == 2
    assert await left() == before
