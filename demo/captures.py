"""``python -m demo.captures``: run what docs/cli.md shows, and write down what it prints.

The document says what is run: every line that begins with ``$ `` in a block of kind ``console``.
What follows it is replaced by what a terminal of 80 columns shows, without colours. The sessions
are those of :mod:`.recorded`, on a server that lives as long as the run.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import pty
import re
import select
import shlex
import struct
import subprocess
import sys
import tempfile
import termios
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from beanie_session_store import EmbeddedMongo

from .recorded import write_sessions

DOCUMENT = Path(__file__).parents[1] / "docs" / "cli.md"
COLUMNS = 80

_BLOCK = re.compile(r"(```console\n)(.*?)(```\n)", re.DOTALL)
# What differs from run to run, as it could be for a reader.
_MASKS = (
    (re.compile(r"^so far: .*\n", re.MULTILINE), ""),
    (re.compile(r"127\.0\.0\.1:\d+"), "localhost:27017"),
    (re.compile(r"embedded-[0-9a-f]{8}"), "rs0"),
    (re.compile(r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC"), "2026-11-02 08:00:00 UTC"),
    (re.compile(r"--after \S+"), "--after WzE3OTU2MjA4MjQyNjYsICI2YjA2..."),
)


def captured(document: str, program: Sequence[str] = ("session-store",)) -> str:
    """The document with what its commands print today; ``program`` is what is run for ours."""
    with _workplace(program) as run:
        return _BLOCK.sub(lambda block: block[1] + _rewritten(block[2], run) + block[3], document)


def _rewritten(block: str, run: Callable[[str], str]) -> str:
    written = ""
    for line in block.splitlines():
        if line.startswith("$ "):
            gap = "\n" if written and not written.splitlines()[-1].startswith("$ ") else ""
            written += f"{gap}{line}\n{run(line[2:])}"
    return written


@contextmanager
def _workplace(program: Sequence[str]) -> Iterator[Callable[[str], str]]:
    """A home with recorded sessions, and a server; gives what runs a command line there."""
    with tempfile.TemporaryDirectory() as home, EmbeddedMongo() as mongo:
        write_sessions(Path(home) / ".claude" / "projects")
        environment = {
            "HOME": home,
            "LANG": "C.UTF-8",
            "NO_COLOR": "1",
            "PATH": f"{Path(sys.executable).parent}:{os.defpath}",
            "SESSION_STORE_MONGODB_URL": mongo.url,
            "SESSION_STORE_DATABASE": "claude",
            "SESSION_STORE_TENANT": "acme",
            "TERM": "xterm-256color",
        }
        yield lambda line: _masked(_run(_words(line, program), Path(home), environment))


def _words(line: str, program: Sequence[str]) -> list[str]:
    words = shlex.split(line)
    if words[0] == "session-store" and "|" not in words:
        return [*program, *words[1:]]
    return ["sh", "-c", line]


def _run(words: list[str], home: Path, environment: dict[str, str]) -> str:
    """What a command line prints to a terminal; what it says on stderr comes by a pipe."""
    terminal, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
    errors, pipe = os.pipe()
    nobody = subprocess.DEVNULL
    process = subprocess.Popen(
        words, cwd=home, env=environment, stdin=nobody, stdout=slave, stderr=pipe
    )
    os.close(slave)
    os.close(pipe)
    parts: list[bytes] = []
    open_ends = [errors, terminal]
    while open_ends:
        for end in select.select(open_ends, [], [])[0]:
            part = _read(end)
            parts.append(part)
            if not part:
                open_ends.remove(end)
                os.close(end)
    code = process.wait()
    said = b"".join(parts).decode().replace("\r\n", "\n")
    return said if code == 0 else f"{said}[exit code {code}]\n"


def _read(end: int) -> bytes:
    try:
        return os.read(end, 65536)
    except OSError:
        # How a terminal says that nobody writes to it any more.
        return b""


def _masked(text: str) -> str:
    for pattern, replacement in _MASKS:
        text = pattern.sub(replacement, text)
    return "".join(line.rstrip() + "\n" for line in text.splitlines())


def main() -> None:
    """Rewrite the document."""
    argparse.ArgumentParser(prog="python -m demo.captures", description=__doc__).parse_args()
    before = DOCUMENT.read_text()
    after = captured(before)
    DOCUMENT.write_text(after)
    print(f"{DOCUMENT.name}: {'unchanged' if before == after else 'written'}")


if __name__ == "__main__":
    main()
