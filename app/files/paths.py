"""Paths that callers name."""

from __future__ import annotations

from pathlib import Path

from ..errors import TransferError
from ..text import shown
from .private_files import is_path


def checked_path(path: object) -> Path:
    """The path that is meant, with ``~`` resolved.

    Raises:
        TransferError: it is none, or of the home of nobody.
    """
    if not is_path(path) or not str(path).strip():
        raise TransferError(f"A path must be a path or its name, not {shown(path)}.")
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise TransferError(f"There is no home for {shown(str(path))}; write it out.") from None
