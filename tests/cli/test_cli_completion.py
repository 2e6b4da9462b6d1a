"""What a shell offers: commands, options, and what the server has; soon, safely, or not at all."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from support.command import SessionStoreCommand, called
from support.entries import message
from support.watchdog import WATCHDOG_SECONDS

from beanie_session_store import BeanieSessionStore
from beanie_session_store.app.cli import completion
from beanie_session_store.app.database.driver import Database

HOSTILE = [
    "$(touch hit)",
    "`touch hit`",
    "two words",
    "a;b",
    'quo"te',
    "new\nline",
    "\x1b[2J",
    "a'b",
]


@pytest.fixture
def command(
    mongo_url: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> SessionStoreCommand:
    monkeypatch.setattr(completion, "_SECONDS", WATCHDOG_SECONDS)
    return SessionStoreCommand(mongo_url, database.name)


async def store_some() -> None:
    for tenant, project, session, tag in (
        ("default", "-srv-one", "aaa-1", "urgent"),
        ("default", "-srv-one", "aab-2", "later"),
        ("default", "-srv-two", "bbb-3", "urgent"),
        ("acme", "-srv-acme", "aac-4", "unpaid"),
    ):
        key: Any = {"project_key": project, "session_id": session}
        entries = [message(session), {"type": "tag", "tag": tag}]
        await BeanieSessionStore(tenant=tenant).append(key, entries)


def asking(words: str) -> dict[str, str]:
    return {
        "_SESSION_STORE_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("show ", {"aaa-1", "aab-2", "bbb-3"}),
        ("show aa", {"aaa-1", "aab-2"}),
        ("show zz", set()),
        ("show --project -srv-two ", {"bbb-3"}),
        ("show --project -srv-", {"-srv-one", "-srv-two"}),
        ("--tenant acme show ", {"aac-4"}),
        ("show --tenant acme ", {"aac-4"}),
        ("show --tenant nobody ", set()),
        ("delete aaa-1 b", {"bbb-3"}),
        ("verify a", {"aaa-1", "aab-2"}),
        ("export --session b", {"bbb-3"}),
        ("retention hold ", {"aaa-1", "aab-2", "bbb-3"}),
        ("retention set 30d --project ", {"-srv-one", "-srv-two"}),
        ("sessions --project -srv-o", {"-srv-one"}),
        ("sessions --tag ", {"urgent", "later"}),
        ("sessions --tag u", {"urgent"}),
        ("stats --tag l", {"later"}),
    ],
)
async def test_a_shell_is_offered_what_the_tenant_has(
    store: BeanieSessionStore, command: SessionStoreCommand, words: str, offered: set[str]
) -> None:
    await store_some()
    finished = await command(**asking(f"session-store {words}"))
    assert (finished.code, finished.errors) == (0, "")
    assert set(finished.output.split()) == offered


async def test_nothing_is_offered_that_a_shell_could_run(
    store: BeanieSessionStore, command: SessionStoreCommand
) -> None:
    for text in [*HOSTILE, "sound"]:
        key: Any = {"project_key": text, "session_id": text}
        await store.append(key, [message(text), {"type": "tag", "tag": text}])
    for words in ("show ", "sessions --project ", "sessions --tag "):
        finished = await command(**asking(f"session-store {words}"))
        assert finished.output.split("\n") == ["sound", ""], words


async def test_the_latest_fifty_are_offered_and_no_more(
    store: BeanieSessionStore, command: SessionStoreCommand
) -> None:
    for number in range(60):
        key: Any = {"project_key": "p", "session_id": f"s{number:02}"}
        await store.append(key, [message("x")])
    finished = await command(**asking("session-store show "))
    assert finished.output.split() == [f"s{number:02}" for number in range(59, 9, -1)]


@pytest.mark.parametrize(
    ("words", "environment"),
    [
        ("show ", {}),
        ("show ", {"SESSION_STORE_MONGODB_URL": "nonsense"}),
        ("show ", {"SESSION_STORE_MONGODB_URL": "mongodb://127.0.0.1:1"}),
        ("show ", {"SESSION_STORE_MONGODB_URL": "mongodb://u:s3cr@127.0.0.1:1/x"}),
        ("--entries absent.module:Entry show ", {"SESSION_STORE_MONGODB_URL": "mongodb://h/x"}),
        ("--summaries loud:Summary show ", {"SESSION_STORE_MONGODB_URL": "mongodb://h/x"}),
        ("--embedded data show ", {}),
        ("--env-file nowhere show ", {}),
    ],
)
async def test_where_nothing_can_be_asked_nothing_is_offered_or_said(
    words: str, environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(completion, "_SECONDS", 0.2)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "loud.py").write_text("import sys; print('loud'); sys.exit('louder')")
    monkeypatch.delenv("SESSION_STORE_MONGODB_URL", raising=False)
    asked = {**asking(f"session-store {words}"), **environment}
    finished = await asyncio.to_thread(called, **asked)
    assert (finished.output.strip(), finished.errors) == ("", "")
    assert not (tmp_path / "data").exists()


async def test_a_server_that_does_not_answer_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked, ended = threading.Event(), threading.Event()

    def hang(*_: object) -> list[Any]:
        asked.set()
        ended.wait(WATCHDOG_SECONDS)
        return ["late"]

    monkeypatch.setattr(completion, "_SECONDS", 0.05)
    monkeypatch.setattr(completion._TypedAt, "ask", hang)
    url = {"SESSION_STORE_MONGODB_URL": "mongodb://127.0.0.1:1/x"}
    finished = await asyncio.to_thread(called, **asking("session-store show "), **url)
    assert asked.is_set()
    assert not ended.is_set()
    ended.set()
    assert (finished.output.strip(), finished.errors) == ("", "")


async def test_a_process_of_its_own_ends_while_the_server_is_silent() -> None:
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as silent:
        port = silent.sockets[0].getsockname()[1]
        command = SessionStoreCommand(f"mongodb://127.0.0.1:{port}", "x")
        finished = await command.process(**asking("session-store show "))
    assert (finished.code, finished.output.strip(), finished.errors) == (0, "", "")
