"""A replica set that controls access, with a user for each degree of permission."""

from __future__ import annotations

import socket
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

from pymongo import MongoClient
from pymongo.errors import ServerSelectionTimeoutError

from beanie_session_store.app.embedded.mongod_program import find_mongod
from beanie_session_store.app.embedded.supervisor import PortTakenError, Supervisor

from .watchdog import WATCHDOG_SECONDS

PASSWORD = "geheim/@:"
_ROOT = "root"


@dataclass(frozen=True)
class SecuredServer:
    """A server of one member with the user ``root``, and others as tests need them."""

    port: int

    def url(self, user: str = _ROOT, password: str = PASSWORD) -> str:
        """The connection string of a user."""
        return (
            f"mongodb://{quote_plus(user)}:{quote_plus(password)}@127.0.0.1:{self.port}/"
            "?replicaSet=secured&authSource=admin"
        )

    @property
    def url_of_nobody(self) -> str:
        """A connection string without a user."""
        return f"mongodb://127.0.0.1:{self.port}/?replicaSet=secured"

    def user(
        self, *roles: tuple[str, str], privileges: Sequence[Mapping[str, Any]] = ()
    ) -> tuple[str, str]:
        """A new user with roles, as (role, database), and privileges: name, connection string."""
        name = f"user-{uuid.uuid4().hex[:8]}"
        given: list[Any] = [{"role": role, "db": database} for role, database in roles]
        with MongoClient(self.url()) as client:
            if privileges:
                client.admin.command("createRole", name, privileges=list(privileges), roles=[])
                given.append({"role": name, "db": "admin"})
            client.admin.command("createUser", name, pwd=PASSWORD, roles=given)
        return name, self.url(name)


@contextmanager
def secured_server(directory: Path) -> Iterator[SecuredServer]:
    """Start it on a free port, and stop it at the end."""
    key = directory / "key"
    key.write_text("abcdefghijklmnopqrstuvwxyz")
    key.chmod(0o400)
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        data = directory / f"data-{port}"
        data.mkdir()
        supervisor = Supervisor([_command(port, data, key)], [data], False)
        try:
            _initiate(supervisor, port)
            yield SecuredServer(port)
            return
        except PortTakenError:
            # Somebody else was given it between the look and the start.
            continue
        finally:
            supervisor.stop()


def _command(port: int, data: Path, key: Path) -> list[str]:
    command = [str(find_mongod()), "--bind_ip", "127.0.0.1", "--port", str(port), "--quiet"]
    command += ["--dbpath", str(data), "--replSet", "secured", "--keyFile", str(key)]
    # As few rounds as it takes, for every connection goes through them.
    for name in ("scramIterationCount", "scramSHA256IterationCount"):
        command += ["--setParameter", f"{name}=5000"]
    return [*command, "--nounixsocket", "--oplogSize", "64", "--wiredTigerCacheSizeGB", "0.25"]


def _initiate(supervisor: Supervisor, port: int) -> None:
    deadline = time.monotonic() + WATCHDOG_SECONDS
    options = {"directConnection": True, "serverSelectionTimeoutMS": 200}
    while True:
        supervisor.check(0, deadline, "did not answer")
        with suppress(ServerSelectionTimeoutError), MongoClient("127.0.0.1", port, **options) as c:
            c.admin.command("hello")
            break
    with MongoClient("127.0.0.1", port, directConnection=True) as client:
        members = [{"_id": 0, "host": f"127.0.0.1:{port}"}]
        client.admin.command("replSetInitiate", {"_id": "secured", "members": members})
        while not client.admin.command("hello")["isWritablePrimary"]:
            time.sleep(0.05)
        # From this machine, as long as there is no user.
        client.admin.command("createUser", _ROOT, pwd=PASSWORD, roles=["root"])
