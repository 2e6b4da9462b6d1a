"""Options that say which sessions are meant, the same for every command that has them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

import typer

from .blanks import is_blank
from .completion import projects, tags
from .exits import MISUSED, fail
from .terminal.figures import moment_of

OfProject = Annotated[
    str | None, typer.Option("--project", help="Of this project key.", autocompletion=projects)
]
WithTag = Annotated[str | None, typer.Option("--tag", help="With this tag.", autocompletion=tags)]
OnBranch = Annotated[str | None, typer.Option("--branch", help="Last seen on this git branch.")]
WithMetadata = Annotated[
    list[str] | None,
    typer.Option(
        "--metadata",
        metavar="NAME=VALUE",
        help="With this value in the metadata; may be repeated. A number, true, false and "
        'null are taken as such; NAME="1" is a text.',
    ),
]


def metadata_of(written: Sequence[str] | None) -> dict[str, Any] | None:
    """The values that ``NAME=VALUE`` asks for; ends the process if it is something else."""
    found: dict[str, Any] = {}
    for each in written or ():
        name, equals, value = each.partition("=")
        if not equals:
            fail(f"--metadata takes NAME=VALUE, such as user_id=u1, not {each!r}", MISUSED)
        if is_blank(value):
            fail(
                f"--metadata {name}= names no value; write {name}='\"\"' for an empty text.",
                MISUSED,
            )
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found or None


def moment_given(option: str, text: str | None, now: datetime) -> datetime | None:
    """The moment that an option says; ends the process if it says none."""
    try:
        return None if text is None else moment_of(text, now)
    except ValueError as error:
        fail(f"{option}: {error}", MISUSED)
