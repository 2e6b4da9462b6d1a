"""Migration scripts as files: their names, what they do, and whether they were edited."""

from __future__ import annotations

import ast
import hashlib
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import cast

from ... import migrations
from ...migrations._runner import steps_of
from ..errors import InvalidMigrationError
from ..text import shown


@dataclass(frozen=True, slots=True)
class MigrationScript:
    """One script, in Beanie's own format."""

    path: Path

    @property
    def name(self) -> str:
        """Such as ``20261123150000_create_transcript_collections``; names sort by age."""
        return self.path.stem

    @property
    def text(self) -> str:
        """The source; line ends are ``\\n`` whatever the file has."""
        return self.path.read_text(encoding="utf-8")

    @property
    def checksum(self) -> str:
        """SHA-256 of the source, hexadecimal."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def summary(self) -> str:
        """The first line of its docstring."""
        return (ast.get_docstring(ast.parse(self.text)) or self.name).split("\n")[0]

    def direction(self, name: str) -> type:
        """Its class ``Forward`` or ``Backward``, freshly loaded.

        Beanie binds Document classes to one database per process; those of a fresh module are
        nobody else's.
        """
        loader = SourceFileLoader(self.name, str(self.path))
        module = ModuleType(loader.name)
        module.__file__ = str(self.path)
        loader.exec_module(module)
        return getattr(module, name)

    def undoing(self) -> list[str]:
        """What ``Backward`` does, in words: the names of its steps."""
        return [
            step.function.__name__.replace("_", " ")  # pyright: ignore[reportUnknownMemberType]
            for step in steps_of(self.direction("Backward"))
        ]


def packaged_folder() -> Path:
    """Where the scripts of this release are."""
    (folder,) = migrations.__path__
    return Path(folder)


def optional_folder() -> Path:
    """Where the scripts are that a team runs only if it wants what they bring."""
    return packaged_folder() / "optional"


def scripts_in(folder: Path) -> list[MigrationScript]:
    """The scripts of a folder, oldest first."""
    return [MigrationScript(path) for path in sorted(folder.glob("[!_]*.py"))]


def named(scripts: list[MigrationScript], name: str) -> MigrationScript:
    """The script of a name, or of the beginning of one.

    Raises:
        InvalidMigrationError: none or several are called so.
    """
    is_name = isinstance(cast("object", name), str) and bool(name)
    found = [script for script in scripts if is_name and script.name.startswith(name)]
    exact = [script for script in found if script.name == name]
    if len(exact or found) != 1:
        known = ", ".join(script.name for script in scripts)
        raise InvalidMigrationError(
            f"{'Several migrations begin' if found else 'No migration begins'} with {shown(name)}. "
            f"Known are {known}."
        )
    return (exact or found)[0]
