"""A replica set of three real servers whose every link goes through the proxy.

The members know each other by the proxy's ports only, so cutting a link is a partition for
clients and for members alike.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from pymongo import MongoClient
from pymongo.errors import PyMongoError

from beanie_session_store.app.embedded.mongod_program import find_mongod

_START_SECONDS = 60.0
# A member may have to undo or copy what it has, on a machine that others keep busy.
_RECOVERY_SECONDS = 300.0
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)

Rule = dict[str, Any]


class Cluster:
    """Three members and their proxy; stops them at the end of the ``with`` block."""

    def __init__(self, transaction_seconds: int = 3, election_seconds: float = 2) -> None:
        # A killed writer's transaction holds up the session's other writers for so long.
        self._transaction_seconds = transaction_seconds
        self._election_ms = int(election_seconds * 1000)
        self.root = Path(tempfile.mkdtemp(prefix="session-store-faults-"))
        self._ports = _free_ports(3)
        self._servers: list[subprocess.Popen[bytes] | None] = [None] * 3
        self._clients: list[MongoClient[dict[str, Any]]] = []

    def __enter__(self) -> Cluster:
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for client in self._clients:
            client.close()
        for server in self._servers:
            if server is not None:
                server.kill()
                server.wait()
        if hasattr(self, "_proxy"):
            self._proxy.kill()
            self._proxy.communicate()
        shutil.rmtree(self.root, ignore_errors=True)

    def _start(self) -> None:
        self._proxy = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("proxy.py"), *map(str, self._ports)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            preexec_fn=_die_with_parent,
        )
        assert self._proxy.stdout is not None
        self.proxy_ports: list[int] = json.loads(self._proxy.stdout.readline())
        self._clients = [
            MongoClient(
                "127.0.0.1",
                port,
                directConnection=True,
                serverSelectionTimeoutMS=1000,
                socketTimeoutMS=5000,
                connectTimeoutMS=1000,
                heartbeatFrequencyMS=500,
            )
            for port in self._ports
        ]
        for index in range(3):
            self.restart(index)
        members = [
            {"_id": index, "host": f"127.0.0.1:{port}"}
            for index, port in enumerate(self.proxy_ports)
        ]
        settings = {"electionTimeoutMillis": self._election_ms, "heartbeatIntervalMillis": 500}
        self._clients[0].admin.command(
            "replSetInitiate", {"_id": "faults", "members": members, "settings": settings}
        )
        self.wait_healthy()

    @property
    def url(self) -> str:
        """The members by their proxies' addresses."""
        hosts = ",".join(f"127.0.0.1:{port}" for port in self.proxy_ports)
        return f"mongodb://{hosts}/?replicaSet=faults"

    def client(self, index: int) -> MongoClient[dict[str, Any]]:
        """A client of one member that no fault of the network reaches."""
        return self._clients[index]

    def primary(self) -> int:
        """The member that is primary in the newest term; waits for one."""
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            found = [
                (answer["electionId"], index)
                for index, answer in enumerate(map(self._hello, range(3)))
                if answer.get("isWritablePrimary")
            ]
            if found:
                return max(found)[1]
            time.sleep(0.1)
        raise TimeoutError(f"no member became primary in {_START_SECONDS:g} s")

    def wait_healthy(self) -> None:
        """Wait until one member is primary and the two others follow it."""
        deadline = time.monotonic() + _RECOVERY_SECONDS
        while time.monotonic() < deadline:
            answers = [self._hello(index) for index in range(3)]
            primaries = sum(answer.get("isWritablePrimary", False) for answer in answers)
            secondaries = sum(answer.get("secondary", False) for answer in answers)
            if (primaries, secondaries) == (1, 2):
                return
            time.sleep(0.1)
        raise TimeoutError(f"the replica set did not recover in {_RECOVERY_SECONDS:g} s")

    def _hello(self, index: int) -> dict[str, Any]:
        with contextlib.suppress(PyMongoError):
            return self._clients[index].admin.command("hello")
        return {}

    def kill(self, index: int) -> None:
        """SIGKILL, as a crash of the process."""
        server = self._servers[index]
        assert server is not None
        server.kill()
        server.wait()

    def restart(self, index: int) -> None:
        """Start a member on what it had stored, and wait until it answers."""
        directory = self.root / f"member-{index}"
        directory.mkdir(exist_ok=True)
        command = [str(find_mongod()), "--bind_ip", "127.0.0.1", "--nounixsocket", "--quiet"]
        command += ["--port", str(self._ports[index]), "--dbpath", str(directory)]
        command += ["--replSet", "faults", "--oplogSize", "512", "--wiredTigerCacheSizeGB", "0.5"]
        command += ["--wiredTigerEngineConfigString", "log=(prealloc=false,file_max=32MB)"]
        for parameter in (
            "diagnosticDataCollectionEnabled=false",
            "enableTestCommands=1",
            f"transactionLifetimeLimitSeconds={self._transaction_seconds}",
        ):
            command += ["--setParameter", parameter]
        with (self.root / f"member-{index}.log").open("ab") as log:
            self._servers[index] = subprocess.Popen(
                command, stdout=log, stderr=log, preexec_fn=_die_with_parent
            )
        deadline = time.monotonic() + _START_SECONDS
        while not self._hello(index):
            if time.monotonic() > deadline or self._servers[index].poll() is not None:
                raise TimeoutError(f"member {index} did not start, see {log.name}")
            time.sleep(0.1)

    def is_running(self, index: int) -> bool:
        server = self._servers[index]
        return server is not None and server.poll() is None

    def freeze(self, index: int) -> None:
        os.kill(self._pid(index), signal.SIGSTOP)

    def thaw(self, index: int) -> None:
        os.kill(self._pid(index), signal.SIGCONT)

    def step_down(self, index: int, seconds: int) -> None:
        with contextlib.suppress(PyMongoError):
            self._clients[index].admin.command("replSetStepDown", seconds, force=True)

    def limit_file_size(self, index: int) -> None:
        """Let no file of the member grow any more: it dies of the next write to its journal.

        It stands in for a full disk, which cannot be had without mounting one.
        """
        resource.prlimit(self._pid(index), resource.RLIMIT_FSIZE, (4096, 4096))

    def links(self, *rules: Rule) -> None:
        """Set the proxy's rules; none heals the network."""
        assert self._proxy.stdin is not None
        assert self._proxy.stdout is not None
        self._proxy.stdin.write(json.dumps({"rules": rules}).encode() + b"\n")
        self._proxy.stdin.flush()
        self._proxy.stdout.readline()

    def _pid(self, index: int) -> int:
        server = self._servers[index]
        assert server is not None
        return server.pid


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in sockets:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in sockets]


def _die_with_parent() -> None:
    # Also when the parent is killed; a frozen server dies of it, too.
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
