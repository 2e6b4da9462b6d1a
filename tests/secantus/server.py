"""SecantusDB as a process of its own, on loopback, with data of its own."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pymongo import MongoClient

PROGRAM = Path(__file__).with_name("serve.py")
STOP_SECONDS = 30


@dataclass(frozen=True)
class SecondEngine:
    """A server that answers: where, and what it says it is."""

    url: str
    version: str
    imitated: str
    """The MongoDB version that it says it is."""
    log: Path


@contextmanager
def second_engine() -> Iterator[SecondEngine]:
    """Start SecantusDB, and stop it and remove its data at exit.

    Raises:
        RuntimeError: it did not start; the text carries what it said.
    """
    with tempfile.TemporaryDirectory(prefix="second-engine-") as name:
        directory = Path(name)
        log = directory / "log.txt"
        with log.open("wb") as written:
            process = subprocess.Popen(
                [sys.executable, str(PROGRAM), str(directory / "data")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=written,
                # An interrupt at the terminal is for the tests, which then stop the server.
                start_new_session=True,
                text=True,
            )
        with process:
            try:
                yield _answering(process, log)
            finally:
                _stop(process)


def _answering(process: subprocess.Popen[str], log: Path) -> SecondEngine:
    assert process.stdout is not None
    # Whoever adds a database or options begins with the slash.
    url = process.stdout.readline().strip().rstrip("/")
    if not url:
        process.wait(STOP_SECONDS)
        raise RuntimeError(
            f"SecantusDB did not start (exit code {process.returncode}). Install it with "
            f"`pip install --pre SecantusDB`, or read what it said:\n{log.read_text()}"
        )
    with MongoClient(url, serverSelectionTimeoutMS=30_000) as client:
        imitated = client.server_info()["version"]
        version = client.admin.command("serverStatus")["secantus"]["version"]
    return SecondEngine(url, version, imitated, log)


def _stop(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
