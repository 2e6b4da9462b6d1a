"""Whatever goes wrong with a command is one line on stderr and an exit code, never a traceback."""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient
from support.command import MAIN, invoked, without_progress
from support.database import Databases, forget_servers
from support.entries import KEY, turn
from support.processes import PREPARED
from support.secured import PASSWORD, SecuredServer
from typer.testing import Result

from beanie_session_store import BeanieSessionStore, EmbeddedMongo

LOG = "claude_transcript_migrations"
SESSIONS = ("session", "sibling")
ANSWER = {
    "type": "assistant",
    "timestamp": "2026-11-24T00:00:00.000Z",
    "message": {"id": "m1", "model": "opus", "usage": {"output_tokens": 5}, "content": []},
}

READING: dict[str, tuple[str, ...]] = {
    "sessions": (),
    "show": ("session",),
    "stats": ("--since", "2000-01-01"),
    "verify": (),
    "export": ("{target}",),
    "schema history": (),
    "schema status": (),
    "retention show": (),
}
WRITING: dict[str, tuple[str, ...]] = {
    "verify": ("--repair",),
    "delete": ("session", "--yes"),
    "import": ("{projects}",),
    "copy": ("--from-tenant", "acme"),
    "adopt": (),
    "schema upgrade": (),
    "schema downgrade": ("--yes",),
    "retention set": ("30d", "--all-tenants", "--yes"),
    "retention clear": ("--all-tenants", "--yes"),
    "retention hold": ("session",),
    "retention release": ("session",),
    "retention migration": ("--keep", "30d", "--all-tenants", "{target}"),
}
DOCTOR = ("doctor", ())
CASES = [*READING.items(), *WRITING.items(), DOCTOR]
NAMES = [" ".join((name, *arguments[:1])) for name, arguments in CASES]

Call = Callable[..., Result]


@pytest.fixture
def places(tmp_path: Path) -> dict[str, str]:
    """A folder to write to, and one with a session to import."""
    target, projects = tmp_path / "target", tmp_path / "projects"
    target.mkdir()
    file = projects / "-srv" / "imported.jsonl"
    file.parent.mkdir(parents=True)
    file.write_text('{"type":"user","uuid":"1","message":{"content":"Hello"}}\n')
    return {"target": str(target), "projects": str(projects)}


@pytest.fixture
def call(places: dict[str, str]) -> Call:
    def called(url: str, name: str, *arguments: str, database: str | None = None) -> Result:
        options = ["--url", url, *(["--database", database] if database else [])]
        written = [each.format(**places) for each in arguments]
        forget_servers()
        return invoked([*options, *name.split(), *written])

    return called


@pytest.fixture(scope="module")
def filled(databases: Databases, mongo_url: str) -> Iterator[str]:
    """The name of a database with two sessions of the default tenant and two of acme, to read."""
    with databases.bare() as name:
        fill(mongo_url, name)
        yield name


@pytest.fixture(scope="module")
def filled_later(databases: Databases, mongo_url: str) -> Iterator[str]:
    """The name of one like it, which a newer release has migrated."""
    with databases.bare() as name, MongoClient(mongo_url) as client:
        fill(mongo_url, name)
        record = client[name][LOG].find_one({}) or {}
        newer = {**record, "_id": "newer", "script": "29990101000000_future"}
        client[name][LOG].insert_one(newer)
        yield name


@pytest.fixture(scope="module")
def filled_behind_a_password(secured: SecuredServer) -> str:
    """The name of one like the first, on the server that lets nobody in without a password."""
    fill(secured.url(), "claude")
    return "claude"


@pytest.fixture(scope="module")
def url_of_a_stranger(secured: SecuredServer) -> str:
    """The connection string of a user who has a role elsewhere."""
    _, url = secured.user(("readWrite", "elsewhere"))
    return url


@pytest.fixture(scope="module")
def url_of_a_reader(secured: SecuredServer) -> str:
    """That of a user who may only read ``read``, where there would be something to do."""
    fill(secured.url(), "read")
    with MongoClient(secured.url()) as client:
        client["read"]["claude_transcript_summaries"].update_one(
            {"tenant": "default"}, {"$set": {"totals.turns": 77}}
        )
        client["read"][LOG].find_one_and_delete(
            {"script": {"$exists": True}}, sort=[("script", -1)]
        )
    _, url = secured.user(("read", "read"))
    return url


def fill(url: str, database: str) -> None:
    async def write() -> None:
        for tenant in ("default", "acme"):
            async with BeanieSessionStore.connect(url, database=database, tenant=tenant) as store:
                for session in SESSIONS:
                    await store.append({**KEY, "session_id": session}, [*turn(1), ANSWER])

    asyncio.run(write())


def assert_one_line(result: Result, code: int, *texts: str) -> None:
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1, result.stderr
    assert result.stderr.startswith("error: ")
    for text in texts:
        assert text in result.stderr
    assert PASSWORD not in result.stderr
    assert "geheim" not in result.stderr


def assert_found(result: Result, *texts: str) -> None:
    """What went wrong is what `doctor` is there to print."""
    assert (result.exit_code, result.stderr) == (1, "")
    for text in texts:
        assert text in result.stdout
    assert "geheim" not in result.stdout


# The server


@pytest.mark.parametrize(("name", "arguments"), CASES, ids=NAMES)
@pytest.mark.parametrize("host", ["127.0.0.1:9", "absent.invalid"])
def test_a_server_that_is_away(
    call: Call, name: str, arguments: tuple[str, ...], host: str
) -> None:
    url = f"mongodb://user:geheim@{host}/db?serverSelectionTimeoutMS=100"
    result = call(url, name, *arguments)
    if name == "doctor":
        assert_found(result, "no usable server answers")
    else:
        assert_one_line(result, 1, f"no usable MongoDB server at {host}", "Check that it runs")


@pytest.mark.parametrize(("name", "arguments"), CASES, ids=NAMES)
@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "mongodb://user:geheim@127.0.0.1:99999/db",
        "mongodb://user:gehe@im@127.0.0.1/db",
        "mongodb://127.0.0.1:9",
    ],
)
def test_a_connection_string_that_is_none(
    call: Call, name: str, arguments: tuple[str, ...], url: str
) -> None:
    assert_one_line(call(url, name, *arguments), 2, "mongodb://user:password@host:port/database")


@pytest.mark.parametrize(("name", "arguments"), CASES, ids=NAMES)
def test_a_user_who_may_not(
    call: Call,
    secured: SecuredServer,
    url_of_a_stranger: str,
    filled_behind_a_password: str,
    name: str,
    arguments: tuple[str, ...],
) -> None:
    wrong = secured.url(password="geheimnis")
    for url, text in (
        (url_of_a_stranger, "not authorized on claude"),
        (secured.url_of_nobody, "requires authentication"),
        (wrong, "Authentication failed"),
    ):
        result = call(url, name, *arguments, database=filled_behind_a_password)
        if name == "doctor":
            assert_found(result, "bad")
        else:
            assert_one_line(result, 1, text, "has the role readWrite on the database")


@pytest.mark.parametrize(("name", "arguments"), [*WRITING.items()], ids=[*WRITING])
def test_a_user_who_may_only_read(
    call: Call, url_of_a_reader: str, name: str, arguments: tuple[str, ...]
) -> None:
    result = call(url_of_a_reader, name, *arguments, database="read")
    if name == "retention migration":
        assert result.exit_code == 0
    elif name == "adopt":
        assert_one_line(result, 1, "holds no documents with the fields of")
    elif name == "retention clear":
        assert_one_line(result, 1, "There is no policy of every tenant")
    elif name in ("delete", "schema downgrade", "retention set"):
        # What was to be removed is shown before.
        shown, last = result.stderr.splitlines()
        assert result.exit_code == 1
        assert "session 'session'" in shown or ": drop " in shown or "would end" in shown
        assert "not authorized on read" in last
    else:
        assert_one_line(result, 1, "not authorized on read", "has the role readWrite")


# The schema

NEEDS_SCHEMA = ["sessions", "show", "stats", "verify", "export"]
NEEDS_SCHEMA += ["delete", "retention set", "retention hold", "retention release"]


@pytest.mark.parametrize("name", NEEDS_SCHEMA)
def test_a_database_without_the_schema(
    call: Call, mongo_url: str, database_name: str, name: str
) -> None:
    arguments = {**WRITING, **READING}[name]
    result = call(mongo_url, name, *arguments, database=database_name)
    assert_one_line(result, 1, "Run 'session-store schema upgrade'")


@pytest.mark.parametrize(("name", "arguments"), CASES, ids=NAMES)
def test_a_schema_of_a_newer_release(
    call: Call, mongo_url: str, filled_later: str, name: str, arguments: tuple[str, ...]
) -> None:
    result = call(mongo_url, name, *arguments, database=filled_later)
    if name == "doctor":
        assert_found(result, "pip install -U beanie-session-store")
    elif name == "schema status":
        assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
        assert "pip install -U" in result.stderr
    elif name == "retention clear":
        assert_one_line(result, 1, "There is no policy of every tenant")
    elif name == "adopt":
        assert_one_line(result, 1, "holds no documents with the fields of")
    elif name in ("schema history", "retention show", "retention migration"):
        assert (result.exit_code, result.stderr) == (0, "")
    else:
        assert_one_line(result, 1, "migrated by a newer release", "pip install -U")


# The session

NAMED: dict[str, tuple[str, ...]] = {
    "show": ("{name}",),
    "verify": ("{name}",),
    "delete": ("{name}", "--yes"),
    "export": ("{target}", "--session", "{name}"),
    "retention hold": ("{name}",),
    "retention release": ("{name}",),
}


AMBIGUOUS = ("session (project project), sibling (project project)", "more of the id")
# Where nobody looks on, the beginning of an id names nothing to change.
BEGINNINGS = dict.fromkeys(
    ("delete", "retention hold", "retention release"),
    ("session begins so, but only a whole id is taken here",),
)


@pytest.mark.parametrize(("name", "arguments"), NAMED.items(), ids=[*NAMED])
def test_a_session_that_is_none_or_several(
    call: Call, mongo_url: str, filled: str, name: str, arguments: tuple[str, ...]
) -> None:
    for given, code, texts in (
        ("nobody", 1, ("no session nobody of tenant default",)),
        ("s", 1, BEGINNINGS.get(name, AMBIGUOUS)),
        ("", 2, ("given but empty",)),
    ):
        written = [given if each == "{name}" else each for each in arguments]
        result = call(mongo_url, name, *written, database=filled)
        assert_one_line(result, code, *texts)


def test_a_session_to_copy_that_is_none(call: Call, mongo_url: str, filled: str) -> None:
    result = call(
        mongo_url, "copy", "--from-tenant", "acme", "--session", "nobody", database=filled
    )
    assert_one_line(result, 1, "no session nobody to copy")


# The place to write to


def started(url: str, database: str, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [PREPARED, "-c", MAIN, "--url", url, "--database", database, *arguments],
        stderr=subprocess.PIPE,
        **options,
    )


def told(process: subprocess.Popen[bytes]) -> bytes:
    """What a process says on stderr to its end, but for how far it is."""
    _, errors = process.communicate()
    return without_progress(errors.decode()).encode()


PRINTING = [
    *(("sessions",), ("show", "session"), ("stats", "--since", "2000-01-01"), ("verify",)),
    *(("doctor",), ("schema", "status"), ("retention", "show"), ("--json", "stats")),
]


@pytest.mark.parametrize("arguments", PRINTING, ids=" ".join)
def test_output_to_a_full_disk(mongo_url: str, filled: str, arguments: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        process = started(mongo_url, filled, *arguments, stdout=full)
        errors = told(process)
    assert process.returncode == 1
    assert errors.startswith(b"error: ")
    assert errors.endswith(b" No space left on device\n")
    assert errors.count(b"\n") == 1


@pytest.mark.parametrize("arguments", PRINTING, ids=" ".join)
def test_output_that_nobody_reads_any_more(
    mongo_url: str, filled: str, arguments: tuple[str, ...]
) -> None:
    reading, writing = os.pipe()
    process = started(mongo_url, filled, *arguments, stdout=writing)
    os.close(reading)
    os.close(writing)
    assert (told(process), process.returncode) == (b"", 141)


@pytest.fixture(scope="module")
def full_server() -> Iterator[str]:
    """A server that may write no further byte, as on a full disk."""
    with EmbeddedMongo() as mongo:
        fill(mongo.url, "claude")
        soft, hard = 4096, resource.RLIM_INFINITY
        resource.prlimit(mongo.members[0].pid, resource.RLIMIT_FSIZE, (soft, hard))
        yield f"{mongo.url}&serverSelectionTimeoutMS=1000"


def test_a_server_whose_disk_is_full(call: Call, full_server: str, places: dict[str, str]) -> None:
    file = Path(places["projects"]) / "-srv" / "imported.jsonl"
    with file.open("a") as lines:
        for _ in range(200):
            lines.write(f'{{"type":"user","message":{{"content":"{os.urandom(9000).hex()}"}}}}\n')
    result = call(full_server, "import", "{projects}", database="claude")
    assert_one_line(result, 1, "no usable MongoDB server at 127.0.0.1")


def test_a_server_of_its_own_that_finds_no_room(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", MAIN, "--embedded", str(tmp_path / "data"), "schema", "status"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
    )
    output, errors = process.communicate()
    assert (process.returncode, output) == (1, b"")
    first, last = errors.decode().splitlines()
    assert first.startswith("making a new server in")
    assert last.startswith("error: mongod exited with ")
    assert "See the end of" in last
