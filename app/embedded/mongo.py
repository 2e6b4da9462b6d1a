"""A real MongoDB on loopback for demos, tests and local work: :class:`EmbeddedMongo`.

Starts ``mongod`` processes, makes them one replica set, and takes all of it down again. It
listens on 127.0.0.1 without a password: never a place for data that others on the machine
must not read.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import json
import os
import shutil
import socket
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from ..errors import MongodStartError
from ..files.private_files import FOLDER_MODE, create_private_file, is_path, make_private_folder
from ..text import shown
from .mongod_program import find_mongod
from .replica_set import form_set
from .supervisor import POLL_SECONDS, START_SECONDS, PortTakenError, Supervisor

_PORT_ATTEMPTS = 5

# A member with data asks every address its set had whether that is itself, and waits this
# long for a stranger who listens there and says nothing.
_STRANGER_SECONDS = 30.0

# Servers whose starter was killed may be about to end.
_LEAVING_SECONDS = 5.0

_STATE_FILE = "embedded-mongo.json"

_DEFAULT_PARAMETERS: Mapping[str, str | int] = {
    "diagnosticDataCollectionEnabled": "false",
    # A signalled member otherwise serves its clients 15 s longer before it leaves.
    "shutdownTimeoutMillisForSignaledShutdown": 100,
}


@dataclass(frozen=True)
class Member:
    """One running ``mongod``: its TCP port on 127.0.0.1, process id and data directory."""

    port: int
    pid: int
    directory: Path


class EmbeddedMongo:
    """A MongoDB replica set that lives as long as a ``with`` block, or start to stop.

    ``members`` (1 to 7) form one replica set, so transactions and change streams work; with
    ``replica_set=False`` the single member is a standalone server without them. Data lives in
    a temporary directory that stop removes, or in ``directory``, which is kept and can be
    started again with its data. ``mongod`` names the program; without it the environment's
    ``SESSION_STORE_MONGOD``, the ``embedded`` extra and ``PATH`` are looked at, in this order.
    ``set_parameters`` are server parameters, such as ``{"ttlMonitorSleepSecs": 1}``.

    The servers stop with the process that started them, even when that one is killed; on Linux even
    when all processes but the servers are killed at once (elsewhere a process that looks after
    them must live a moment longer). A kept directory can be started anew right after. Raises
    ``ValueError`` for settings that cannot work together.
    """

    def __init__(
        self,
        members: int = 1,
        *,
        directory: str | Path | None = None,
        mongod: str | Path | None = None,
        replica_set: bool = True,
        set_parameters: Mapping[str, str | int] | None = None,
    ) -> None:
        if type(members) is not int or not 1 <= members <= 7:
            raise ValueError(
                f"members must be 1 to 7 (MongoDB allows 7 voting members), not {shown(members)}"
            )
        for name, path in (("directory", directory), ("mongod", mongod)):
            if path is not None and not (is_path(path) and str(path)):
                raise ValueError(f"{name} must be a path, not {shown(path)}")
        if members > 1 and not replica_set:
            raise ValueError(
                f"replica_set=False starts a single standalone server, so members must be 1, "
                f"not {members}"
            )
        self._count = members
        self._directory = None if directory is None else Path(directory).absolute()
        self._mongod = mongod
        self._replica_set = replica_set
        self._parameters = {**_DEFAULT_PARAMETERS, **_checked_parameters(set_parameters)}
        self._lock = threading.Lock()
        self._owner: int | None = None
        self._root: Path | None = None
        self._supervisor: Supervisor | None = None
        self._name: str | None = None
        self._members: tuple[Member, ...] = ()

    @property
    def url(self) -> str:
        """The connection string, without a database name. ``RuntimeError`` unless started."""
        hosts = ",".join(_host(member.port) for member in self.members)
        option = f"replicaSet={self._name}" if self._name else "directConnection=true"
        return f"mongodb://{hosts}/?{option}"

    @property
    def members(self) -> tuple[Member, ...]:
        """The processes as they were started. ``RuntimeError`` unless started."""
        if not self._members:
            raise RuntimeError(
                "this EmbeddedMongo is not started: use it as `with EmbeddedMongo() as mongo:` "
                "or call start() first"
            )
        return self._members

    def start(self) -> EmbeddedMongo:
        """Start the servers and wait until they take writes; blocks for up to 60 s.

        Raises ``MongodNotFoundError`` without a program to start, and ``MongodStartError``,
        with the end of the server's log, when it does not come up. Nothing is left running
        then.
        """
        with self._lock:
            if self._owner is not None:
                raise RuntimeError("this EmbeddedMongo is started already: stop() it first")
            program = find_mongod(self._mongod)
            self._owner = os.getpid()
            atexit.register(self.stop)
            try:
                self._start(program, time.monotonic() + START_SECONDS)
            except BaseException:
                self._stop()
                raise
        return self

    def stop(self) -> None:
        """Stop the servers and remove the temporary directory; does nothing when stopped."""
        # A forked child inherits this object and the atexit call, but not the servers.
        if self._owner == os.getpid():
            with self._lock:
                self._stop()

    def __enter__(self) -> EmbeddedMongo:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    async def __aenter__(self) -> EmbeddedMongo:
        start = asyncio.create_task(asyncio.to_thread(self.start))
        try:
            return await asyncio.shield(start)
        except asyncio.CancelledError:
            # The thread cannot be cancelled: servers it still brings up would live on.
            await asyncio.gather(start, return_exceptions=True)
            await asyncio.to_thread(self.stop)
            raise

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.stop)

    def _start(self, program: Path, deadline: float) -> None:
        self._root = self._directory or Path(tempfile.mkdtemp(prefix="embedded-mongo-"))
        make_private_folder(self._root)
        _await_leaving(self._root)
        name, ports = _read_state(self._root, self._count, self._replica_set)
        if taken := [port for port in ports if not _is_free(port)]:
            deadline += _STRANGER_SECONDS * len(taken)
            ports = []
        for _ in range(_PORT_ATTEMPTS):
            try:
                self._launch(program, name, ports or _free_ports(self._count), deadline)
                return
            except PortTakenError:
                ports = []
                self._stop_supervisor()
        raise MongodStartError(
            f"other processes took the ports chosen for mongod {_PORT_ATTEMPTS} times in a row"
        )

    def _launch(self, program: Path, name: str | None, ports: list[int], deadline: float) -> None:
        assert self._root is not None
        directories = [self._root / f"member-{index + 1}" for index in range(self._count)]
        commands: list[list[str]] = []
        for port, directory in zip(ports, directories, strict=True):
            make_private_folder(directory)
            # An earlier release made it for all to read; the log in it holds queries.
            directory.chmod(FOLDER_MODE)
            commands.append(_command(program, port, directory, name, self._parameters))
        supervisor = self._supervisor = Supervisor(commands, directories, self._directory is None)
        members = [
            Member(port, pid, directory)
            for port, pid, directory in zip(ports, supervisor.pids, directories, strict=True)
        ]
        with contextlib.ExitStack() as stack:
            clients = [
                stack.enter_context(supervisor.connect(index, member.port, deadline))
                for index, member in enumerate(members)
            ]
            if self._directory:
                # Only now, as a start that fails must not change what the next one reads.
                _write_state(self._root, name, ports)
            if name:
                form_set(supervisor, name, [_host(port) for port in ports], clients, deadline)
        self._name, self._members = name, tuple(members)

    def _stop_supervisor(self) -> None:
        if self._supervisor:
            self._supervisor.stop()
        self._supervisor = None

    def _stop(self) -> None:
        self._stop_supervisor()
        if self._root and self._directory is None:
            shutil.rmtree(self._root, ignore_errors=True)
        self._owner = self._root = self._name = None
        self._members = ()
        atexit.unregister(self.stop)


def _checked_parameters(given: object) -> Mapping[str, str | int]:
    if given is None:
        return {}
    found = cast("Mapping[Any, Any]", given) if isinstance(given, Mapping) else {None: given}
    for name, value in found.items():
        kinds = isinstance(name, str) and isinstance(value, (str, int, float))
        if not kinds or any("\0" in each for each in (name, value) if isinstance(each, str)):
            raise ValueError(
                "set_parameters must be texts and numbers by name, such as "
                f'{{"ttlMonitorSleepSecs": 1}}, not {shown(name)}: {shown(value)}'
            )
    return found


def _command(
    program: Path, port: int, directory: Path, name: str | None, parameters: Mapping[str, str | int]
) -> list[str]:
    command = [str(program), "--bind_ip", "127.0.0.1", "--port", str(port)]
    command += ["--dbpath", str(directory), "--wiredTigerCacheSizeGB", "1", "--quiet"]
    # Journal files as usual are 100 MB each, three of them written in full before the start.
    command += ["--wiredTigerEngineConfigString", "log=(prealloc=false,file_max=32MB)"]
    if sys.platform != "win32":
        command += ["--nounixsocket"]
    if name:
        command += ["--replSet", name, "--oplogSize", "256"]
    for key, value in parameters.items():
        text = str(value).lower() if isinstance(value, bool) else str(value)
        command += ["--setParameter", f"{key}={text}"]
    return command


def _read_state(root: Path, count: int, replica_set: bool) -> tuple[str | None, list[int]]:
    """The replica set's name (None: standalone) and the ports a kept directory was used with."""
    try:
        state = json.loads((root / _STATE_FILE).read_text())
    except FileNotFoundError:
        # A name of its own: a set never takes another's server for its own on a reused port.
        return (f"embedded-{uuid.uuid4().hex[:8]}" if replica_set else None), []
    name: str | None = state["replica_set"]
    ports: list[int] = state["ports"]
    if len(ports) != count or (name is not None) != replica_set:
        kept = f"members={len(ports)}, replica_set={name is not None}"
        raise MongodStartError(
            f"{root} holds the data of EmbeddedMongo({kept}): start it with these, or give "
            "another directory"
        )
    return name, ports


def _write_state(root: Path, name: str | None, ports: list[int]) -> None:
    draft = root / f"{_STATE_FILE}.new"
    draft.unlink(missing_ok=True)
    with create_private_file(draft) as file:
        file.write(json.dumps({"replica_set": name, "ports": ports}).encode())
    draft.replace(root / _STATE_FILE)


def _await_leaving(root: Path) -> None:
    """Wait a little for servers on a kept directory, which may be ending; others refuse later."""
    deadline = time.monotonic() + _LEAVING_SECONDS
    while any(map(_is_locked, root.glob("member-*/mongod.lock"))) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)


def _is_locked(path: Path) -> bool:
    if sys.platform == "win32":
        return False
    import fcntl

    try:
        with path.open("r+b") as lock:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in sockets:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in sockets]


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        if sys.platform != "win32":
            # As mongod does; connections that linger from its last run are no obstacle then.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _host(port: int) -> str:
    return f"127.0.0.1:{port}"
