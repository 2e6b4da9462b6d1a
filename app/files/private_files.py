"""Folders and files for their owner alone: transcripts are nobody else's, whatever the umask."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO, TypeGuard

FOLDER_MODE = 0o700
FILE_MODE = 0o600


def is_path(value: object) -> TypeGuard[str | Path]:
    """Whether the file system can be asked for it: a text without NUL and without half an emoji."""
    if not isinstance(value, (str, Path)):
        return False
    try:
        return b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:
        return False


def make_private_folder(folder: Path) -> None:
    """Make a folder, and those above it, unless they are there; those stay as they are.

    Raises:
        OSError: one cannot be made.
    """
    missing: list[Path] = []
    nearest = folder
    while not nearest.exists():
        missing.append(nearest)
        nearest = nearest.parent
    for each in reversed(missing):
        try:
            # By itself, parents=True would make those above with the usual mode.
            each.mkdir(mode=FOLDER_MODE)
        except FileExistsError:
            if not each.is_dir():
                raise
        else:
            each.chmod(FOLDER_MODE)
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is no folder")


def create_private_file(path: Path, *, buffering: int = -1) -> BinaryIO:
    """Open a new file for writing.

    Raises:
        FileExistsError: there is one of that name.
        OSError: it cannot be made.
    """
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE)
    return os.fdopen(handle, "wb", buffering=buffering)
