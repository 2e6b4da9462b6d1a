"""Runs tests with every store encrypting: ``pytest -p tests.encryption.plugin tests/writing``."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from beanie_session_store import BeanieSessionStore
from beanie_session_store.app.encryption.encryption import Encryption
from beanie_session_store.app.encryption.local_keys import LocalKeys

_folder = tempfile.TemporaryDirectory()
_encryption = Encryption(LocalKeys.generate(Path(_folder.name) / "keys"), required=True)
_init: Any = BeanieSessionStore.__init__


def _encrypting(self: Any, **arguments: Any) -> None:
    if arguments.get("encryption") is None:
        arguments["encryption"] = _encryption
    _init(self, **arguments)


BeanieSessionStore.__init__ = _encrypting  # type: ignore[method-assign]
