"""The command ``session-store``, in the process of the tests or in one of its own.

Nearly all of what it does is the same in both, and a process takes as long to start as many calls
take. One of its own is for what only that has: signals, terminals, encodings, a working directory.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
import threading
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import typer.testing
from support.processes import PREPARED
from typer.testing import CliRunner, Result

from beanie_session_store.app.cli import root
from beanie_session_store.app.cli.exits import warn_in_a_line
from beanie_session_store.app.cli.terminal import throttle

# Else all commands are built anew for each call, which takes longer than most calls do.
typer.testing._get_command = cache(typer.main.get_command)

MAIN = "from beanie_session_store.app.cli.root import main; main()"


@dataclass(frozen=True)
class Finished:
    """How a call ended."""

    code: int
    output: str
    errors: str

    @property
    def json(self) -> Any:
        return json.loads(self.output)


# It takes over the streams and the environment of the process.
_one_at_a_time = threading.Lock()


def invoked(
    arguments: Sequence[str], env: Mapping[str, str | None] | None = None, **options: Any
) -> Result:
    """A call in this process and thread, as Typer tells it."""
    root.load_commands()
    # It has no progress to tell, however long the machine takes.
    with patch.object(throttle, "monotonic", lambda: 0.0):
        return CliRunner().invoke(root.app, arguments, env=env, **options)


def without_progress(errors: str) -> str:
    """What a process said on stderr, without what only a slow machine lets it say."""
    return "".join(
        line for line in errors.splitlines(keepends=True) if not line.startswith("so far: ")
    )


def called(*arguments: Any, **environment: str | None) -> Finished:
    """A call in this process, from a thread without a running loop; ``None`` unsets a variable."""
    with _one_at_a_time, warnings.catch_warnings():
        # As main() has them; whatever another test has left may be collected meanwhile.
        warnings.resetwarnings()
        warnings.simplefilter("ignore", ResourceWarning)
        warn_in_a_line()
        result = invoked(list(map(str, arguments)), environment)
    if not isinstance(result.exception, SystemExit | None):
        raise result.exception
    return Finished(result.exit_code, result.stdout, result.stderr)


@dataclass(frozen=True)
class SessionStoreCommand:
    """``session-store`` on one database."""

    url: str
    database: str

    async def __call__(self, *arguments: Any, **environment: str) -> Finished:
        """A call in this process, which finds nobody at the terminal."""
        return await asyncio.to_thread(called, *arguments, **self._environment | environment)

    async def process(
        self, *arguments: Any, cwd: Path | None = None, stdin: Any = None, **environment: str
    ) -> Finished:
        """A call in a process of its own."""
        process = await self.started(*arguments, cwd=cwd, stdin=stdin, **environment)
        output, errors = (part.decode() for part in await process.communicate())
        assert "Traceback" not in errors, errors
        assert process.returncode is not None
        return Finished(process.returncode, output, without_progress(errors))

    async def started(
        self,
        *arguments: Any,
        cwd: Path | None = None,
        stdin: Any = None,
        stdout: Any = subprocess.PIPE,
        stderr: Any = subprocess.PIPE,
        **env: str,
    ) -> asyncio.subprocess.Process:
        """The process of a call, whose output is for the caller to read."""
        # Python reads how it is to write before it begins with anything.
        python = sys.executable if "PYTHONIOENCODING" in env else PREPARED
        return await asyncio.create_subprocess_exec(
            *(python, "-c", MAIN, *map(str, arguments)),
            env={**os.environ, **self._environment, **env},
            cwd=cwd,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
        )

    @property
    def _environment(self) -> dict[str, str]:
        return {
            "SESSION_STORE_MONGODB_URL": self.url,
            "SESSION_STORE_DATABASE": self.database,
        }

    async def on_terminal(
        self,
        columns: int,
        *arguments: Any,
        code: int = 0,
        with_errors: bool = False,
        **environment: str,
    ) -> str:
        """What a call that ends with ``code`` prints to a terminal of so many columns.

        What it says on stderr is among it only ``with_errors``.
        """
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        environment = {"TERM": "xterm-256color", "COLUMNS": "", **environment}
        stderr = slave if with_errors else subprocess.PIPE
        process = await self.started(*arguments, stdout=slave, stderr=stderr, **environment)
        os.close(slave)
        reading = asyncio.create_task(asyncio.to_thread(_read_to_the_end, master))
        _, errors = await process.communicate()
        assert process.returncode == code, errors
        return (await reading).replace("\r\n", "\n")


def _read_to_the_end(terminal: int) -> str:
    parts: list[bytes] = []
    # Linux gives an error, macOS nothing, when the last writer is gone.
    with contextlib.suppress(OSError):
        while part := os.read(terminal, 65536):
            parts.append(part)
    os.close(terminal)
    return b"".join(parts).decode()
