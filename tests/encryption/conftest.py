"""Stores that encrypt."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from beanie_session_store import BeanieSessionStore
from beanie_session_store.app.database.driver import Database
from beanie_session_store.encryption import Encryption, LocalKeys

NewStore = Callable[..., BeanieSessionStore]


@pytest.fixture
def keys(tmp_path: Path) -> LocalKeys:
    """Keys of the test's own."""
    return LocalKeys.generate(tmp_path / "keys")


@pytest.fixture
def encryption(keys: LocalKeys) -> Encryption:
    """Encryption with those keys, one for each user, that takes what is plain."""
    return Encryption(keys, subject="user_id")


@pytest.fixture
def sealing(database: Database, encryption: Encryption) -> BeanieSessionStore:
    """A store of the default tenant that encrypts."""
    return BeanieSessionStore(metadata={"user_id": "u1"}, encryption=encryption)


@pytest.fixture
def new_store(database: Database, keys: LocalKeys) -> NewStore:
    """Makes further stores with the same keys, in which nothing is remembered."""

    def made(**arguments: Any) -> BeanieSessionStore:
        options = {"subject": "user_id", "required": arguments.pop("required", False)}
        arguments.setdefault("encryption", Encryption(keys, **options))
        return BeanieSessionStore(**{"metadata": {"user_id": "u1"}, **arguments})

    return made
