"""How a call ends: its exit codes, and what it says last."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import warnings
from typing import Any, NoReturn

import typer

from ..text import plain

FAILED = 1
MISUSED = 2
"""Exit codes: what was asked for failed; it was asked for wrongly."""

INTERRUPTED = 130
CLOSED = 141
TERMINATED = 143
"""Exit codes of a process that an interrupt, a closed pipe or a SIGTERM ended, as shells have
them."""

# Its user and password may be anything, an @ or a / included.
# What we say ourselves of the form of a URL is no secret.
_CREDENTIALS = re.compile(r"(\w://)(?!user:password@).*@")


def fail(message: str, code: int = FAILED) -> NoReturn:
    """End the process with one line on stderr."""
    complain(message)
    raise typer.Exit(code)


def complain(message: str) -> None:
    """Say on one line of stderr what went wrong, without the password of a URL in it."""
    _say("error", message)


def warn_in_a_line() -> None:
    """Let the warnings of libraries be one line each too, instead of a place in their source."""

    def shown(message: Warning | str, *_: Any) -> None:
        _say("warning", str(message))

    warnings.showwarning = shown


def _say(kind: str, message: str) -> None:
    line = " ".join(plain(_CREDENTIALS.sub(r"\1***@", message)).split())
    # When nobody reads what is said last, there is nobody to tell.
    with contextlib.suppress(OSError):
        typer.echo(f"{kind}: {line}", err=True)


def give_up_output() -> None:
    """Write no more to stdout, whose reader is gone or whose disk is full."""
    # Else the interpreter tries once more at its end, and complains.
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
