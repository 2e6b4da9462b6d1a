"""The servers that a run needs, started for it alone and taken down after it."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pymongo import MongoClient

from beanie_session_store import EmbeddedMongo

from .proxy import delayed

_START_SECONDS = 30.0


@dataclass(frozen=True)
class Servers:
    """What contenders connect to."""

    mongodb: str
    redis_port: int | None = None
    postgres_port: int | None = None

    @contextlib.contextmanager
    def slowed(self, milliseconds: float) -> Iterator[Servers]:
        """The same servers, each round trip ``milliseconds`` longer."""
        if not milliseconds:
            yield self
            return
        with contextlib.ExitStack() as stack:

            def slow(port: int | None) -> int | None:
                return port and stack.enter_context(delayed(port, milliseconds))

            # Else the client would leave the proxy for the names that the members give themselves.
            port = slow(_primary_port(self.mongodb))
            mongodb = f"mongodb://127.0.0.1:{port}/?directConnection=true"
            yield Servers(mongodb, slow(self.redis_port), slow(self.postgres_port))


@contextlib.contextmanager
def running(members: int = 1, *, others: bool = False) -> Iterator[Servers]:
    """A replica set and, if asked for and installed, one Redis and one PostgreSQL."""
    with contextlib.ExitStack() as stack:
        mongo = stack.enter_context(EmbeddedMongo(members=members))
        redis_port = stack.enter_context(_redis()) if others else None
        postgres_port = stack.enter_context(_postgres()) if others else None
        yield Servers(mongo.url, redis_port, postgres_port)


def redis_program() -> str | None:
    """The Redis server on ``PATH``, if there is one and a client for it."""
    return shutil.which("redis-server") if _has("redis") else None


def postgres_programs() -> Path | None:
    """The directory of PostgreSQL's programs, if it and a client for it are installed."""
    on_path = shutil.which("postgres")
    found = [Path(on_path).parent] if on_path else []
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    found = [each for each in found if (each / "postgres").exists() and (each / "initdb").exists()]
    # It refuses to run as root.
    if not found or not _has("asyncpg") or (os.getuid() == 0 and not _unprivileged()):
        return None
    return found[0]


def _has(package: str) -> bool:
    try:
        __import__(package)
    except ImportError:
        return False
    return True


def _unprivileged() -> str | None:
    with contextlib.suppress(KeyError):
        return pwd.getpwnam("postgres").pw_name
    return None


def _primary_port(url: str) -> int:
    with MongoClient(url) as client:
        client.admin.command("ping")
        primary = client.primary
        assert primary is not None
        return primary[1]


@contextlib.contextmanager
def _redis() -> Iterator[int | None]:
    program = redis_program()
    if program is None:
        yield None
        return
    port = _free_port()
    with tempfile.TemporaryDirectory(prefix="bench-redis-") as directory:
        command = [program, "--port", str(port), "--bind", "127.0.0.1", "--dir", directory]
        # As durable as a majority write with a journal: on disk before it is acknowledged.
        command += ["--save", "", "--appendonly", "yes", "--appendfsync", "always"]
        with _process(command, port):
            yield port


@contextlib.contextmanager
def _postgres() -> Iterator[int | None]:
    programs = postgres_programs()
    if programs is None:
        yield None
        return
    port = _free_port()
    user = _unprivileged() if os.getuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix="bench-postgres-") as directory:
        if user:
            shutil.chown(directory, user)
        data = f"{directory}/data"
        make = [str(programs / "initdb"), "-D", data, "-A", "trust", "-U", "bench", "-E", "UTF8"]
        subprocess.run(make, check=True, user=user, cwd=directory, stdout=subprocess.DEVNULL)
        serve = [str(programs / "postgres"), "-D", data, "-p", str(port), "-k", directory]
        serve += ["-c", "listen_addresses=127.0.0.1", "-c", "max_connections=200"]
        with _process(serve, port, user=user, directory=directory):
            yield port


@contextlib.contextmanager
def _process(
    command: Sequence[str], port: int, *, user: str | None = None, directory: str | None = None
) -> Iterator[None]:
    with subprocess.Popen(
        command, user=user, cwd=directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            deadline = time.monotonic() + _START_SECONDS
            while not _answers(port):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{command[0]} did not start")
                time.sleep(0.05)
            yield
        finally:
            # Redis and PostgreSQL both end at once, with their clients, on SIGINT.
            process.send_signal(2)


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
