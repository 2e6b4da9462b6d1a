"""What EmbeddedMongo promises, proven on the servers it starts."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.errors import OperationFailure
from support.server import connected
from support.watchdog import WATCHDOG_SECONDS

from beanie_session_store.app.embedded import mongo as embedded
from beanie_session_store.app.embedded import supervisor
from beanie_session_store.app.embedded.mongo import EmbeddedMongo
from beanie_session_store.app.embedded.mongod_program import find_mongod
from beanie_session_store.app.errors import MongodNotFoundError, MongodStartError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="uses POSIX signals")


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedMongo]:
    """One replica set of one member on a kept directory, for tests that only look at it."""
    directory = tmp_path_factory.mktemp("kept")
    with EmbeddedMongo(directory=directory, set_parameters={"ttlMonitorSleepSecs": 1}) as mongo:
        yield mongo


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedMongo]:
    """A replica set of three members on a kept directory."""
    with EmbeddedMongo(3, directory=tmp_path_factory.mktemp("three")) as mongo:
        yield mongo


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary directories are made during the test."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


# Use


def test_transactions_commit_and_abort(kept: EmbeddedMongo) -> None:
    with MongoClient[dict[str, Any]](kept.url) as client, client.start_session() as session:
        notes = client.transactions.notes
        with session.start_transaction():
            notes.insert_one({"_id": "kept"}, session=session)
        with contextlib.suppress(KeyError), session.start_transaction():
            notes.insert_one({"_id": "dropped"}, session=session)
            raise KeyError
        assert [note["_id"] for note in notes.find()] == ["kept"]


def test_documents_of_the_largest_size_can_be_replaced(kept: EmbeddedMongo) -> None:
    with MongoClient[dict[str, Any]](kept.url) as client:
        for number in range(3):
            body = os.urandom(16_000_000)
            client.large.notes.replace_one({"_id": 1}, {"n": number, "b": body}, upsert=True)
        assert client.large.notes.find_one({}, {"b": 0}) == {"_id": 1, "n": 2}
        client.drop_database("large")


def test_parameters_reach_the_server(kept: EmbeddedMongo) -> None:
    with MongoClient[dict[str, Any]](kept.url) as client:
        answer = client.admin.command("getParameter", 1, ttlMonitorSleepSecs=1)
        assert answer["ttlMonitorSleepSecs"] == 1


def test_server_listens_on_loopback_only(kept: EmbeddedMongo) -> None:
    with MongoClient[dict[str, Any]](kept.url) as client:
        options = client.admin.command("getCmdLineOpts")["parsed"]["net"]
    assert options["bindIp"] == "127.0.0.1"
    assert options["unixDomainSocket"] == {"enabled": False}


def test_terminal_signals_do_not_reach_the_server(kept: EmbeddedMongo) -> None:
    assert os.getsid(kept.members[0].pid) != os.getsid(0)


def test_temporary_directory_is_removed(temporary: Path) -> None:
    with EmbeddedMongo(replica_set=False) as mongo:
        [member] = mongo.members
        assert member.directory.is_relative_to(temporary)
        assert (member.directory / "WiredTiger").exists()
    assert list(temporary.iterdir()) == []
    assert not is_running(member.pid)


def test_standalone_has_no_transactions() -> None:
    with EmbeddedMongo(replica_set=False) as mongo:
        assert mongo.url == f"mongodb://127.0.0.1:{mongo.members[0].port}/?directConnection=true"
        with MongoClient[dict[str, Any]](mongo.url) as client, client.start_session() as session:
            client.db.notes.insert_one({"_id": 1})
            with pytest.raises(OperationFailure, match="replica set"), session.start_transaction():
                client.db.notes.insert_one({"_id": 2}, session=session)
            assert client.db.notes.count_documents({}) == 1


async def test_async_use_leaves_the_event_loop_free() -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    ticking = asyncio.create_task(tick())
    async with EmbeddedMongo(replica_set=False) as mongo:
        # Were the start one step of the loop, it could have come to one or two.
        assert ticks > 5
        async with connected(mongo.url) as client:
            await client.db.notes.insert_one({"_id": 1})
            assert await client.db.notes.count_documents({}) == 1
        [member] = mongo.members
    ticking.cancel()
    assert not is_running(member.pid)


async def test_cancelled_start_leaves_nothing(temporary: Path) -> None:
    mongo = EmbeddedMongo(replica_set=False)
    starting = asyncio.create_task(mongo.__aenter__())
    await asyncio.to_thread(wait_until, lambda: processes_on(temporary) != [])
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert_nothing_left(temporary)


def test_start_and_stop_without_a_block() -> None:
    mongo = EmbeddedMongo(replica_set=False)
    mongo.stop()
    with pytest.raises(RuntimeError, match="not started"):
        _ = mongo.url
    [member] = mongo.start().members
    with pytest.raises(RuntimeError, match="started already"):
        mongo.start()
    mongo.stop()
    mongo.stop()
    assert not is_running(member.pid)
    with pytest.raises(RuntimeError, match="not started"):
        _ = mongo.url


def test_three_members_elect_a_primary_and_replace_it_when_it_is_killed(
    three: EmbeddedMongo,
) -> None:
    states = [state_of(member.port) for member in three.members]
    assert sorted(states) == ["primary", "secondary", "secondary"]
    primary = three.members[states.index("primary")]
    with MongoClient[dict[str, Any]](three.url, w="majority") as client:
        client.failover.notes.insert_one({"_id": 1})
        os.kill(primary.pid, signal.SIGKILL)
        client.failover.notes.insert_one({"_id": 2})
        assert client.failover.notes.count_documents({}) == 2
        assert client.primary != ("127.0.0.1", primary.port)


# Several at once, and kept directories


def test_two_at_once_are_apart(kept: EmbeddedMongo) -> None:
    with EmbeddedMongo(replica_set=False) as other:
        assert other.members[0].port != kept.members[0].port
        with MongoClient[dict[str, Any]](kept.url) as first, MongoClient(other.url) as second:
            first.apart.notes.insert_one({"_id": 1})
            assert second.apart.notes.count_documents({}) == 0


def test_same_directory_twice_is_refused(kept: EmbeddedMongo) -> None:
    directory = kept.members[0].directory.parent
    with pytest.raises(MongodStartError, match=f"{directory} is in use by another mongod"):
        EmbeddedMongo(directory=directory).start()
    assert state_of(kept.members[0].port) == "primary"


def test_kept_directory_refuses_another_shape(kept: EmbeddedMongo) -> None:
    directory = kept.members[0].directory.parent
    for other in (EmbeddedMongo(3, directory=directory), standalone_on(directory)):
        with pytest.raises(MongodStartError, match=r"EmbeddedMongo\(members=1, replica_set=True\)"):
            other.start()


def test_kept_directory_keeps_data_and_ports_after_a_kill(kept: EmbeddedMongo) -> None:
    url = kept.url
    with MongoClient[dict[str, Any]](url) as client:
        client.killed.notes.insert_one({"_id": 1})
    os.kill(kept.members[0].pid, signal.SIGKILL)
    kept.stop()
    kept.start()
    assert kept.url == url
    with MongoClient[dict[str, Any]](url) as client:
        assert client.killed.notes.count_documents({}) == 1


@pytest.mark.parametrize("fixture", ["kept", pytest.param("three", marks=pytest.mark.soak)])
def test_kept_directory_keeps_data_when_an_old_port_is_taken(
    fixture: str, request: pytest.FixtureRequest
) -> None:
    mongo: EmbeddedMongo = request.getfixturevalue(fixture)
    ports, option = [member.port for member in mongo.members], mongo.url.partition("?")[2]
    with MongoClient[dict[str, Any]](mongo.url, w="majority") as client:
        client.moved.notes.insert_one({"_id": 1})
    mongo.stop()
    with stranger_on(ports[-1]):
        mongo.start()
    states = [state_of(member.port) for member in mongo.members]
    assert sorted(states) == ["primary"] + ["secondary"] * (len(ports) - 1)
    assert ports[-1] not in [member.port for member in mongo.members]
    assert mongo.url.endswith(option)
    with MongoClient[dict[str, Any]](mongo.url, w="majority") as client:
        client.moved.notes.insert_one({"_id": 2})
        assert client.moved.notes.count_documents({}) == 2


def test_port_lost_in_a_race_is_chosen_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    choose = embedded._free_ports
    with stranger_on(0) as taken:
        choices = iter([[taken], choose(1)])
        monkeypatch.setattr(embedded, "_free_ports", lambda _: next(choices))
        with EmbeddedMongo(replica_set=False) as mongo:
            assert mongo.members[0].port != taken


# Whatever ends, the server ends too


def test_server_dies_with_its_parent(tmp_path: Path) -> None:
    script = """
        import asyncio
        from beanie_session_store.app.embedded.mongo import EmbeddedMongo

        async def main():
            async with EmbeddedMongo() as mongo:
                print(mongo.members[0].pid, flush=True)
                await asyncio.sleep(600)

        asyncio.run(main())
    """
    with run_script(script, tmp_path) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert is_running(pid)
        parent.kill()
    wait_until(lambda: not is_running(pid))
    wait_until(lambda: processes_on(tmp_path) == [])
    assert_nothing_left(tmp_path)


def test_server_ends_at_exit_of_its_parent_alone_whatever_forks_do(tmp_path: Path) -> None:
    script = """
        import os, sys, time
        from pymongo import MongoClient
        from beanie_session_store.app.embedded.mongo import EmbeddedMongo

        mongo = EmbeddedMongo(replica_set=False).start()
        quick = os.fork()
        if not quick:
            sys.exit()
        os.waitpid(quick, 0)
        slow = os.fork()
        if not slow:
            os.closerange(0, 3)
            time.sleep(600)
        with MongoClient(mongo.url) as client:
            client.admin.command("ping")
        print(mongo.members[0].pid, slow)
    """
    with run_script(script, tmp_path) as parent:
        output, _ = parent.communicate()
    server, slow = map(int, output.split())
    assert is_running(slow)
    os.kill(slow, signal.SIGKILL)
    assert not is_running(server)
    assert_nothing_left(tmp_path)


SERVE = """
        import sys, time
        from beanie_session_store.app.embedded.mongo import EmbeddedMongo

        mongo = EmbeddedMongo(int(sys.argv[1]), directory=sys.argv[2]).start()
        print(*(member.pid for member in mongo.members), flush=True)
        time.sleep(600)
"""

only_linux = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's work, on Linux")


@only_linux
@pytest.mark.parametrize("members", [1, pytest.param(3, marks=pytest.mark.soak)])
def test_servers_die_with_all_that_looked_after_them(tmp_path: Path, members: int) -> None:
    data = tmp_path / "data"
    for _ in range(2):
        with run_script(SERVE, tmp_path, str(members), str(data)) as parent:
            assert parent.stdout is not None
            servers = list(map(int, parent.stdout.readline().split()))
            assert len(servers) == members
            others = {parent.pid, os.getpgid(servers[0])}
            for pid in others:
                os.kill(pid, signal.SIGKILL)
        wait_until(lambda pids=servers: not any(map(is_running, pids)))
    with EmbeddedMongo(members, directory=data) as mongo:
        assert mongo.members


@only_linux
def test_a_folder_can_be_used_right_after_all_were_killed(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for number in range(2):
        with run_script(SERVE, tmp_path, "1", str(data)) as parent:
            assert parent.stdout is not None
            [server] = map(int, parent.stdout.readline().split())
            state = json.loads((data / "embedded-mongo.json").read_text())
            with MongoClient("127.0.0.1", state["ports"][0], directConnection=True) as client:
                client.again.notes.insert_one({"_id": number})
            if number % 2:
                os.kill(os.getpgid(server), signal.SIGKILL)
            parent.kill()
        # At once, whoever is still on its way out.
        with EmbeddedMongo(directory=data) as mongo, MongoClient(mongo.url) as client:
            assert client.again.notes.count_documents({}) == number + 1


@only_linux
@pytest.mark.parametrize(
    "fifths", [(0, 1, 3, 5), pytest.param(range(8), marks=pytest.mark.soak)], ids=["some", "all"]
)
def test_nothing_is_left_wherever_a_start_is_killed(tmp_path: Path, fifths: Sequence[int]) -> None:
    """Between fork and exec of the supervisor or of a server too."""
    data = tmp_path / "data"
    for number in fifths:
        with run_script(SERVE, tmp_path, "1", str(data)) as parent:
            if not number:
                # How long it takes to where the servers run.
                began = time.monotonic()
                wait_until(lambda: len(processes_on(data)) > 1)
                seconds = time.monotonic() - began
            time.sleep(seconds * number / 5)
            for pid in descendants(parent.pid):
                if "mongod" not in name_of(pid):
                    os.kill(pid, signal.SIGKILL)
            parent.kill()
        wait_until(lambda: processes_on(data) == [])
    with EmbeddedMongo(directory=data) as mongo:
        assert mongo.members


def test_server_dies_with_its_parent_though_its_forks_live(tmp_path: Path) -> None:
    script = """
        import os, time
        from beanie_session_store.app.embedded.mongo import EmbeddedMongo

        mongo = EmbeddedMongo(replica_set=False).start()
        child = os.fork()
        if child:
            print(mongo.members[0].pid, child, flush=True)
        time.sleep(600)
    """
    with run_script(script, tmp_path) as parent:
        assert parent.stdout is not None
        server, child = map(int, parent.stdout.readline().split())
        parent.kill()
        try:
            wait_until(lambda: not is_running(server))
            assert is_running(child)
        finally:
            os.kill(child, signal.SIGKILL)


def test_stop_ends_servers_whose_supervisor_was_killed(temporary: Path) -> None:
    with EmbeddedMongo(replica_set=False) as mongo:
        [member] = mongo.members
        os.kill(os.getpgid(member.pid), signal.SIGKILL)
    wait_until(lambda: not is_running(member.pid))
    assert_nothing_left(temporary)


# Errors


def test_bad_parameter_carries_the_log_and_leaves_nothing(temporary: Path) -> None:
    with pytest.raises(MongodStartError, match="Unknown --setParameter 'noSuchParameter'"):
        EmbeddedMongo(set_parameters={"noSuchParameter": 1}).start()
    assert_nothing_left(temporary)


def test_server_that_does_not_come_up_in_time_carries_the_log(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = "#!/bin/sh\necho 'still recovering'\nexec sleep 600\n"
    program = write_program(temporary / "bin" / "mongod", text=slow)

    def monotonic() -> float:
        # Time is up once it has written, however long the machine takes for that.
        has_written = any("still" in log.read_text() for log in temporary.rglob("mongod.log"))
        return time.monotonic() + has_written * supervisor.START_SECONDS

    clock = SimpleNamespace(monotonic=monotonic, sleep=time.sleep)
    monkeypatch.setattr(supervisor, "time", clock)
    with pytest.raises(MongodStartError, match=r"did not answer in 60 s[^{]*still recovering"):
        EmbeddedMongo(mongod=program).start()
    assert [path.name for path in temporary.iterdir()] == ["bin"]


def test_program_that_cannot_run_is_a_start_error(temporary: Path) -> None:
    program = write_program(temporary / "bin" / "mongod", text="not a program")
    with pytest.raises(MongodStartError, match=r"could not be run.*Exec format error"):
        EmbeddedMongo(mongod=program).start()
    assert [path.name for path in temporary.iterdir()] == ["bin"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"members": 0}, "members must be 1 to 7"),
        ({"members": 8}, "members must be 1 to 7"),
        ({"members": 3, "replica_set": False}, "members must be 1, not 3"),
    ],
)
def test_impossible_settings_are_refused(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        EmbeddedMongo(**arguments)


# The program


@pytest.fixture
def no_mongod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without mongod, whose wheel must not be imported; the folder it looks at."""
    monkeypatch.delenv("SESSION_STORE_MONGOD", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    write_program(tmp_path / "wheel" / "fiftyone" / "__init__.py", text="raise SystemExit")
    monkeypatch.syspath_prepend(tmp_path / "wheel")
    return tmp_path


def test_missing_mongod_names_the_three_ways_out(no_mongod: Path) -> None:
    with pytest.raises(MongodNotFoundError) as caught:
        EmbeddedMongo().start()
    for way_out in (
        "pip install 'beanie-session-store[embedded]'",
        "SESSION_STORE_MONGOD ",
        "SESSION_STORE_MONGODB_URL",
    ):
        assert way_out in str(caught.value)


def test_mongod_is_looked_for_in_order(no_mongod: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_path = write_program(no_mongod / "path" / "mongod")
    assert find_mongod() == on_path
    wheel = write_program(no_mongod / "wheel" / "fiftyone" / "db" / "bin" / "mongod")
    assert find_mongod() == wheel
    named = write_program(no_mongod / "named")
    monkeypatch.setenv("SESSION_STORE_MONGOD", str(named))
    assert find_mongod() == named
    explicit = write_program(no_mongod / "explicit")
    assert find_mongod(explicit) == explicit


def test_program_that_was_asked_for_is_never_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing, plain = tmp_path / "missing", tmp_path / "plain"
    plain.write_text("")
    for path in (missing, plain, tmp_path):
        with pytest.raises(MongodNotFoundError, match=f"mongod= names '{path}', which is not"):
            EmbeddedMongo(mongod=path).start()
    monkeypatch.setenv("SESSION_STORE_MONGOD", str(missing))
    with pytest.raises(MongodNotFoundError, match=f"SESSION_STORE_MONGOD names '{missing}'"):
        EmbeddedMongo().start()


# Help


def standalone_on(directory: Path) -> EmbeddedMongo:
    return EmbeddedMongo(directory=directory, replica_set=False)


def state_of(port: int) -> str:
    with MongoClient[dict[str, Any]](port=port, directConnection=True) as client:
        answer = client.admin.command("hello")
    return "primary" if answer["isWritablePrimary"] else "secondary"


def write_program(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


@contextlib.contextmanager
def stranger_on(port: int, answers: bool = True) -> Iterator[int]:
    """Another program that listens on the port (0: any); it hangs up, or accepts nothing."""
    if not answers:
        with socket.create_server(("127.0.0.1", port)) as listener:
            yield listener.getsockname()[1]
        return

    class Server(socketserver.TCPServer):
        allow_reuse_address = True

    with Server(("127.0.0.1", port), socketserver.BaseRequestHandler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@contextlib.contextmanager
def run_script(script: str, temporary: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    source = "\n".join(line.removeprefix(" " * 8) for line in script.splitlines())
    environment = {**os.environ, "TMPDIR": str(temporary)}
    process = subprocess.Popen(
        [sys.executable, "-c", source, *arguments], stdout=subprocess.PIPE, env=environment
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with contextlib.suppress(FileNotFoundError):
        # An orphan that nobody waits for stays listed, in state Z, on machines without init.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return not Path("/proc/self").exists()


def descendants(pid: int) -> list[int]:
    """The processes below a process, the nearest first."""
    found: list[int] = []
    listing = subprocess.run(["ps", "-ax", "-o", "pid=,ppid="], capture_output=True, check=True)
    pairs = [tuple(map(int, line.split())) for line in listing.stdout.splitlines()]
    level = [pid]
    while level:
        level = [child for child, parent in pairs if parent in level]
        found += level
    return found


def name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text()
    except OSError:
        return "mongod, or gone"


def processes_on(directory: Path) -> list[str]:
    """The command lines that name the directory."""
    listing = subprocess.run(["ps", "-axww", "-o", "args="], capture_output=True, check=True)
    lines = listing.stdout.decode(errors="replace").splitlines()
    return [line for line in lines if str(directory) in line]


def assert_nothing_left(directory: Path) -> None:
    assert list(directory.iterdir()) == []
    assert processes_on(directory) == []


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WATCHDOG_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.05)
