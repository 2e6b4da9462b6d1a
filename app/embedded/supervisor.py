"""The parent's end of the process that runs ``mongod`` servers and outlives nobody."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from pymongo import MongoClient
from pymongo.errors import PyMongoError

from ..errors import MongodStartError

START_SECONDS = 60.0
POLL_SECONDS = 0.05
_STOP_SECONDS = 10.0
_LOG_LINES = 20
_LOG_COLUMNS = 500

# mongod's exit code when it cannot listen on its port.
_EXIT_PORT_TAKEN = 48

_PROGRAM = Path(__file__).with_name("supervisor_process.py")

MongodClient = MongoClient[dict[str, Any]]


class PortTakenError(Exception):
    """Another process bound the port between our look at it and mongod's."""


class Supervisor:
    """The parent's end of a supervisor (``supervisor_process.py``), which runs the servers."""

    def __init__(self, commands: list[list[str]], directories: list[Path], temporary: bool) -> None:
        self._logs = [directory / "mongod.log" for directory in directories]
        self._log_starts = [log.stat().st_size if log.exists() else 0 for log in self._logs]
        self._exit_codes: dict[int, int] = {}
        job = {
            "commands": commands,
            "logs": [str(log) for log in self._logs],
            "temporary": str(directories[0].parent) if temporary else None,
            "stop_seconds": _STOP_SECONDS,
            "parent": os.getpid(),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_PROGRAM), json.dumps(job)],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            # The terminal's Ctrl+C would reach the servers before our own stop does.
            start_new_session=True,
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._orders, self._reports = self._process.stdin, self._process.stdout
        first = self._reports.readline()
        if not first.startswith(b"["):
            with self._process:
                text = (first + self._reports.read()).decode(errors="replace")
            reason = text.strip().rpartition("\n")[2]
            raise MongodStartError(f"mongod could not be run: {reason}")
        self.pids: list[int] = json.loads(first)
        self._reader = threading.Thread(target=self._read_exits, daemon=True)
        self._reader.start()

    def connect(self, index: int, port: int, deadline: float) -> MongodClient:
        """A client of that server, once it answers; the caller closes it."""
        while True:
            self.check(index, deadline, "did not answer")
            client: MongodClient = MongoClient(
                "127.0.0.1",
                port,
                directConnection=True,
                serverSelectionTimeoutMS=100,
                socketTimeoutMS=5_000,
            )
            with contextlib.suppress(PyMongoError):
                # A stranger may answer on this port while our own server is about to give up.
                if client.admin.command("serverStatus")["pid"] == self.pids[index]:
                    return client
            client.close()
            time.sleep(POLL_SECONDS)

    def check(self, index: int, deadline: float, complaint: str) -> None:
        """Raise when that server has exited or the deadline (monotonic seconds) is over."""
        code = self._exit_codes.get(index)
        if code is None and time.monotonic() < deadline:
            return
        if code == _EXIT_PORT_TAKEN:
            raise PortTakenError
        log = self._read_log(index)
        if code is not None and "DBPathInUse" in log:
            raise MongodStartError(
                f"{self._logs[index].parent.parent} is in use by another mongod: stop the "
                "EmbeddedMongo that runs on it, or give this one a directory of its own"
            )
        what = f"{complaint} in {START_SECONDS:g} s" if code is None else f"exited with {code}"
        raise MongodStartError(f"mongod {what}. From the end of its log:\n{log}")

    def stop(self) -> None:
        """Stop the servers and wait for them; the directories stay."""
        with self._process:
            with contextlib.suppress(OSError, ValueError):
                # Closing the pipe would not do: a forked child may hold it open as well.
                self._orders.write(b".")
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_STOP_SECONDS + 5)
            if self._process.returncode != 0:
                # It hangs or was killed, so the servers may be left; they are its group.
                with contextlib.suppress(OSError):
                    _kill_group(self._process)
            self._reader.join()

    def _read_log(self, index: int) -> str:
        lines: list[str] = []
        with contextlib.suppress(FileNotFoundError), self._logs[index].open("rb") as log:
            log.seek(self._log_starts[index])
            lines = log.read().decode(errors="replace").splitlines()
        # The reason comes first, then pages on how it shuts down.
        errors = [line for line in lines[:-_LOG_LINES] if '"s":"E"' in line or '"s":"F"' in line]
        shown = [*errors[-_LOG_LINES:], *lines[-_LOG_LINES:]]
        return "\n".join(line[:_LOG_COLUMNS] for line in shown)

    def _read_exits(self) -> None:
        for line in self._reports:
            index, code = line.split()
            self._exit_codes[int(index)] = int(code)


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    if sys.platform == "win32":
        process.kill()
    else:
        os.killpg(process.pid, signal.SIGKILL)
