"""The installed command, as its users call it."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


@dataclass(frozen=True)
class SessionStoreCommand:
    """``session-store`` on one database."""

    url: str
    database: str

    async def __call__(
        self, *arguments: Any, cwd: Path | None = None, stdin: Any = None, **environment: str
    ) -> Finished:
        process = await self.started(*arguments, cwd=cwd, stdin=stdin, **environment)
        output, errors = (part.decode() for part in await process.communicate())
        assert "Traceback" not in errors, errors
        assert process.returncode is not None
        return Finished(process.returncode, output, errors)

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
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", MAIN, *map(str, arguments)),
            env={
                **os.environ,
                "SESSION_STORE_MONGODB_URL": self.url,
                "SESSION_STORE_DATABASE": self.database,
                **env,
            },
            cwd=cwd,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            # A shell lets what it runs in the background ignore it.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )

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
