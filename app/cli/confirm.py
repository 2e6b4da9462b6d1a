"""Asking before something is removed."""

from __future__ import annotations

import sys

import typer

from .exits import MISUSED, fail


def is_anybody_there() -> bool:
    """Whether a person at a terminal sees what is done, and can be asked."""
    return sys.stdin.isatty()


def require_consent(question: str, yes: bool) -> None:
    """Go on if ``yes`` was given or the person at the terminal agrees; else end the process."""
    if yes:
        return
    if not is_anybody_there():
        fail("There is nobody to ask here. Nothing was changed; give --yes to go ahead.", MISUSED)
    # Typer's own question would put a space into what is printed to a file.
    try:
        typer.echo(f"{question} [y/N]: ", nl=False, err=True)
        answer = sys.stdin.readline()
    except KeyboardInterrupt:
        answer = ""
    if not answer:
        typer.echo(err=True)
    if answer.strip().lower() not in ("y", "yes"):
        raise typer.Abort
