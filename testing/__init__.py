"""A pytest plugin for teams that test a service of agents whose sessions are in the store.

Ask for it in the ``conftest.py`` at the root of the tests; it never loads by itself::

    pytest_plugins = ["beanie_session_store.testing"]

Fixtures to use: ``session_store`` (a store on a real MongoDB server), ``session_store_database``,
``session_store_database_name``, ``session_store_tenant`` and ``session_store_url`` (where it is),
and ``scripted_agent`` (the real agent, offline, with a model that says what the test tells it to).
Fixtures to override: ``session_store_documents``, ``session_store_isolation``, and any of the
others. The names here are their types.

PYTEST_DONT_REWRITE: a ``conftest.py`` imports the types before pytest takes up the plugin.
"""

try:
    import pytest  # noqa: F401  # pyright: ignore[reportUnusedImport]
except ModuleNotFoundError as missing:
    raise ImportError(
        "beanie_session_store.testing is a pytest plugin, and pytest is not installed. Install it "
        "with `pip install 'beanie-session-store[testing]'`."
    ) from missing

from ..app.database.driver import Database
from ..app.loopback.replies import Text, ToolUse
from ..app.loopback.requests import ModelRequest
from .databases import Documents, Isolation
from .key_service_contract import KeyServiceContract
from .script import Script
from .scripted_agent import ScriptedAgent

pytest_plugins = ("beanie_session_store.testing.fixtures",)

__all__ = [
    "Database",
    "Documents",
    "Isolation",
    "KeyServiceContract",
    "ModelRequest",
    "Script",
    "ScriptedAgent",
    "Text",
    "ToolUse",
]
