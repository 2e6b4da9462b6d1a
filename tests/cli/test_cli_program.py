"""What all commands share: where settings come from, what is said of mistakes, how a call ends."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from support.command import MAIN, Finished, SessionStoreCommand, invoked
from support.command import called as called_here
from support.entries import KEY, message

from beanie_session_store import BeanieSessionStore, EmbeddedMongo
from beanie_session_store.app.cli.root import app, load_commands
from beanie_session_store.app.cli.terminal import throttle
from beanie_session_store.app.database.driver import Database

SECRET = "s3cr:t/p@ss"
URLS = [
    f"mongodb://somebody:{SECRET}@127.0.0.1:1/x",
    f"mongodb+srv://somebody:{SECRET}@nowhere.invalid/x",
    "mongodb://somebody:s3cr@127.0.0.1:1/x?serverSelectionTimeoutMS=200",
    "mongodb://somebody:s3cr@127.0.0.1:99999/x",
    "mongodb://somebody:s3cr@127.0.0.1:1/?nonsense=1",
    "http://somebody:s3cr@127.0.0.1/x",
]


@pytest.fixture
def command(mongo_url: str, database: Database) -> SessionStoreCommand:
    return SessionStoreCommand(mongo_url, database.name)


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty directory, and an environment that says nothing of a server."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SESSION_STORE_MONGODB_URL", raising=False)


async def called(*arguments: Any, **environment: str) -> Finished:
    return await asyncio.to_thread(called_here, *arguments, **environment)


def commands() -> list[tuple[str, ...]]:
    load_commands()

    def below(group: Any, path: tuple[str, ...]) -> list[tuple[str, ...]]:
        found: list[tuple[str, ...]] = []
        for name, each in group.commands.items():
            inner = hasattr(each, "commands")
            found += below(each, (*path, name)) if inner else [(*path, name)]
        return found

    return below(typer.main.get_command(app), ())


def test_every_help_fits_and_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(commands()) >= 14
    for path in [(), *commands()]:
        with pytest.raises(SystemExit) as ended:
            app([*path, "--help"])
        assert ended.value.code == 0
        shown = capsys.readouterr().out
        assert "Example:" in shown, path
        assert f"session-store {' '.join(path[:1])}" in shown.replace("\n  ", " "), path
        assert all(len(line) <= 80 for line in shown.splitlines()), path
        assert "..." not in shown.partition("Commands:")[2], path


async def test_an_option_beats_the_environment_and_that_a_file(
    store: BeanieSessionStore, command: SessionStoreCommand, tmp_path: Path
) -> None:
    for tenant in ("default", "option", "environment", "file"):
        key: Any = {"project_key": "p", "session_id": tenant}
        await BeanieSessionStore(tenant=tenant).append(key, [message()])
    file = tmp_path / "settings"
    file.write_text(
        f"SESSION_STORE_TENANT=file\nSESSION_STORE_MONGODB_URL={command.url}\n"
        f"SESSION_STORE_DATABASE={command.database}\nOTHER=1\n"
    )
    environment = {"SESSION_STORE_TENANT": "environment"}

    async def tenant_of(*arguments: Any, **variables: str) -> str:
        finished = await called("--json", "sessions", *arguments, **variables)
        (row,) = finished.json["sessions"]
        return row["session_id"]

    assert await tenant_of("--env-file", file) == "file"
    assert await tenant_of("--env-file", file, **environment) == "environment"
    assert await tenant_of("--env-file", file, "--tenant", "option", **environment) == "option"


async def test_no_file_of_settings_is_read_unasked(
    command: SessionStoreCommand, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text(f"SESSION_STORE_MONGODB_URL={command.url}x\n")
    finished = await called("schema", "status")
    assert finished.code == 2
    assert "which server?" in finished.errors


async def test_global_options_stand_before_or_behind_a_command(
    store: BeanieSessionStore, command: SessionStoreCommand
) -> None:
    await BeanieSessionStore(tenant="acme").append(KEY, [message()])
    for arguments in (
        ["--json", "--tenant", "acme", "sessions"],
        ["sessions", "--json", "--tenant", "acme"],
        ["--tenant", "other", "sessions", "--tenant=acme", "--json"],
    ):
        assert len((await command(*arguments)).json["sessions"]) == 1
    finished = await command("schema", "--json", "status", "--database", command.database)
    assert finished.json["is_current"]


FORMS = [
    ["--url", "{}", "sessions"],
    ["schema", "status", "--url={}"],
    ["{}", "sessions"],
    ["sessions", "{}"],
    ["sessions", "--tenant={}", "--url", "{}"],
    ["show", "--embedded", "{}", "x", "--url", "{}"],
    ["sessions", "--limit", "{}"],
    ["retention", "set", "{}"],
]


@pytest.mark.parametrize(
    ("arguments", "url"),
    [*((FORMS[0], url) for url in URLS), *((form, URLS[0]) for form in FORMS), (FORMS[7], URLS[5])],
)
async def test_no_error_shows_a_password(arguments: list[str], url: str, tmp_path: Path) -> None:
    finished = await called(*(each.format(url) for each in arguments))
    assert finished.code in (1, 2)
    lines = finished.errors.splitlines()
    assert len([line for line in lines if not line.startswith("warning: ")]) == 1
    assert "s3cr" not in finished.errors + finished.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sesions"], "No such command 'sesions'. Did you mean 'sessions'? See session-store"),
        (["sessions", "--titel", "x"], "No such option: --titel"),
        (["schema", "nothing"], "See session-store schema --help."),
        (["sessions"], "which server? Give --url, or set SESSION_STORE_MONGODB_URL, or"),
        (["--env-file", "nowhere", "sessions"], "does not exist"),
        (["--env-file", sys.executable, "sessions"], "cannot be read as settings"),
        (["--url", "mongodb://localhost/x", "--embedded", "x", "sessions"], "two servers"),
        (["sessions", "--url", "mongodb://localhost"], "name the database with --database"),
        (["sessions", "--url"], "requires an argument"),
    ],
)
async def test_a_misuse_gives_one_line_and_exit_code_2(
    arguments: list[str], said: str, tmp_path: Path
) -> None:
    finished = await called(*arguments)
    assert finished.code == 2
    assert said in finished.errors
    assert len(finished.errors.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


async def test_a_server_of_its_own_keeps_its_data(tmp_path: Path) -> None:
    data, projects = tmp_path / "data", tmp_path / "projects"
    file = projects / "-srv" / "11111111-1111-4111-8111-111111111111.jsonl"
    file.parent.mkdir(parents=True)
    file.write_text('{"type":"user","uuid":"1","message":{"content":"Hello"}}\n')
    finished = await called("--embedded", data, "import", projects)
    assert finished.code == 0
    assert "making a new server in" in finished.errors
    finished = await called("sessions", "--embedded", data)
    assert finished.output.splitlines()[1].split()[-2:] == ["-srv", "Hello"]
    assert finished.errors == ""
    with EmbeddedMongo(directory=data):
        finished = await called("sessions", "--embedded", data)
    assert finished.code == 1
    assert "in use by another mongod" in finished.errors
    assert len(finished.errors.splitlines()) == 1


async def test_a_shell_completes_commands_and_options() -> None:
    for words, expected in (
        ("session-store sess", {"sessions"}),
        ("session-store schema ", {"upgrade", "downgrade", "status", "history", "copy"}),
        ("session-store show --f", {"--full", "--follow"}),
    ):
        finished = await called(
            _SESSION_STORE_COMPLETE="complete_bash",
            COMP_WORDS=words,
            COMP_CWORD=str(len(words.split(" ")) - 1),
        )
        assert set(finished.output.split()) == expected


def test_the_shell_that_asks_gets_its_completion() -> None:
    # More than one command, or bash would become the only one, and no shell would be asking.
    asked = '"$0" -c "$1" --show-completion; exit $?'
    finished = subprocess.run(
        ["bash", "-c", asked, sys.executable, MAIN], capture_output=True, text=True, check=True
    )
    assert "_SESSION_STORE_COMPLETE=complete_bash" in finished.stdout


def test_doctor_leaves_the_logger_of_its_process_as_it_was() -> None:
    logger = logging.getLogger("beanie_session_store.database")
    before = logger.level
    url = "mongodb://127.0.0.1:1/x?serverSelectionTimeoutMS=200"
    finished = invoked(["--url", url, "doctor"])
    assert finished.exit_code == 1
    assert "server" in finished.output
    assert logger.level == before


def test_how_far_a_command_is_is_told_every_other_second(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    monkeypatch.setattr(throttle, "monotonic", lambda: now)
    tell = throttle.lines_on_progress()
    for now in (0.0, 1.9, 2.0, 3.9, 4.1):
        tell(f"{now} s")
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", "so far: 2.0 s\nso far: 4.1 s\n")


async def test_the_version_is_told() -> None:
    finished = await called("--version")
    assert finished.output.strip() == "0.1.0"
