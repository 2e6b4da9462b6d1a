"""Python objects named on the command line."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def object_named(name: str) -> Any:
    """The object of a name such as ``acme.models:AcmeEntry``.

    Its module is looked for where Python looks, and last in the current folder.

    Raises:
        ImportError, AttributeError, ValueError: there is none.
    """
    module, _, attribute = name.partition(":")
    with _current_folder_searched():
        return getattr(importlib.import_module(module), attribute)


@contextmanager
def _current_folder_searched() -> Generator[None]:
    """Let imports find what is in the current folder, if it is nowhere else.

    Only for as long as it takes: a folder may hold anybody's files, and one that is named like a
    module of ours would be run in its place.
    """
    try:
        folder = str(Path.cwd())
    except OSError:
        # It was removed under us.
        yield
        return
    sys.path.append(folder)
    try:
        yield
    finally:
        # What was imported may have changed the path, and it may have named the folder before us.
        for index in reversed(range(len(sys.path))):
            if sys.path[index] == folder:
                del sys.path[index]
                break
