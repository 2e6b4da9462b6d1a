"""What is imported when: nobody waits for what they do not use."""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from support.command import MAIN

import beanie_session_store as package
from beanie_session_store import BeanieSessionStore
from beanie_session_store.app.cli.root import app, load_commands

SDK = ("claude_agent_sdk", "mcp")
DRIVERS = ("beanie", "pymongo", "bson", "motor", "lazy_model")
RENDERERS = ("rich", "markdown_it", "mdformat", "nh3", "pygments")
PAGES = ("genai_prices", "jinja2", "starlette", "uvicorn")
TRACING = ("opentelemetry",)
HEAVY = (*SDK, *DRIVERS, *RENDERERS, *PAGES, *TRACING, "pydantic_settings", "asyncio")

# Whatever ends the process, the exit of the command included.
REPORT = (
    "import atexit, json, sys; "
    "names = lambda: sorted({name.partition('.')[0] for name in sys.modules}); "
    "atexit.register(lambda: print('\\n' + json.dumps(names()), file=sys.stderr)); "
)


def imported_by(source: str, *arguments: str, **environment: str) -> set[str]:
    """The top-level modules that a fresh process has when it ends."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("SESSION_STORE_")}
    finished = subprocess.run(
        [sys.executable, "-W", "error", "-c", REPORT + source, *arguments],
        env={**kept, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in finished.stderr, finished.stderr
    return set(json.loads(finished.stderr.splitlines()[-1]))


def heavy(found: set[str]) -> set[str]:
    assert "beanie_session_store" in found
    return found.intersection(HEAVY)


def paths() -> list[tuple[str, ...]]:
    load_commands()

    def below(group: Any, path: tuple[str, ...]) -> list[tuple[str, ...]]:
        inner = getattr(group, "commands", {})
        return [path, *(p for name, each in inner.items() for p in below(each, (*path, name)))]

    return below(typer.main.get_command(app), ())


HELPS = """
import json, sys
from beanie_session_store.app.cli.root import app, load_commands
load_commands()
for path in json.loads(sys.argv[1]):
    try:
        app([*path, "--help"])
    except SystemExit as end:
        assert end.code == 0, path
    assert not set(json.loads(sys.argv[2])).intersection(sys.modules), path
"""


def test_no_help_imports_anything_heavy() -> None:
    asked = [json.dumps(each) for each in (paths(), HEAVY)]
    assert len(paths()) > 18
    assert heavy(imported_by(HELPS, *asked)) == set()
    # The installed command does a little more than that.
    assert heavy(imported_by(MAIN, "retention", "set", "--help")) == set()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--version"],
        [],
        ["sesions"],
        ["schema", "nothing"],
        ["sessions", "--titel", "x"],
        ["sessions", "--limit", "many"],
        ["export", "--format", "docx", "x"],
        ["delete"],
        ["--env-file", "/nowhere", "sessions"],
    ],
    ids=" ".join,
)
def test_a_version_or_a_misuse_imports_nothing_heavy(arguments: list[str]) -> None:
    assert heavy(imported_by(MAIN, *arguments)) == set()


@pytest.mark.parametrize("words", ["session-store ", "session-store show --f"])
def test_completing_commands_and_options_imports_nothing_heavy(words: str) -> None:
    found = imported_by(
        MAIN,
        _SESSION_STORE_COMPLETE="complete_bash",
        COMP_WORDS=words,
        COMP_CWORD=str(len(words.split(" ")) - 1),
    )
    assert heavy(found) == set()


def test_the_package_alone_imports_nothing_heavy() -> None:
    assert heavy(imported_by("import beanie_session_store")) == set()
    errors = "from beanie_session_store import SessionStoreError"
    assert heavy(imported_by(errors)) == set()


def test_all_of_the_package_is_there_without_the_sdk_and_without_renderers() -> None:
    found = imported_by("from beanie_session_store import *; BeanieSessionStore()")
    assert heavy(found).isdisjoint({*SDK, *RENDERERS, *PAGES})
    assert "beanie" in found


def test_a_command_that_reads_goes_without_the_sdk(mongo_url: str, database_name: str) -> None:
    url = ("--url", mongo_url, "--database", database_name)
    assert "beanie" in (found := imported_by(MAIN, *url, "sessions", "--json"))
    assert found.isdisjoint(SDK)


APPENDING = """
import asyncio, sys, threading
from beanie_session_store import BeanieSessionStore
from beanie_session_store.app.storage.client import open_database

importing = []

class Witness:
    def find_spec(self, name, path=None, target=None):
        if name == "claude_agent_sdk":
            importing.append(threading.current_thread())

sys.meta_path.insert(0, Witness())

def has_sdk():
    return "claude_agent_sdk" in sys.modules

async def main():
    url, name = sys.argv[1:3]
    async with open_database(url, name) as database:
        store = BeanieSessionStore.on(database)
        key = {"project_key": "p", "session_id": "s"}
        assert await store.load(key) is None
        assert not has_sdk()
        await store.append(key, [])
        assert not has_sdk()
        entry = {"type": "user", "uuid": "1", "message": {"content": "Hello"}}
        await asyncio.gather(store.append(key, [entry]), store.append(key, [entry]))
        assert has_sdk()
        assert importing and threading.main_thread() not in importing
        assert (await store.list_session_summaries("p"))[0]["data"]["first_prompt"] == "Hello"
        assert await store.load(key) == [entry]

asyncio.run(main())
"""


async def test_the_first_append_loads_the_sdk_beside_the_event_loop(
    store: BeanieSessionStore, mongo_url: str, database_name: str
) -> None:
    found = await asyncio.to_thread(imported_by, APPENDING, mongo_url, database_name)
    assert found >= {"claude_agent_sdk", "mcp"}


CONNECTING = """
import asyncio, sys
from beanie_session_store import BeanieSessionStore

async def main():
    url, name = sys.argv[1:3]
    async with BeanieSessionStore.connect(url, database=name):
        assert "claude_agent_sdk" in sys.modules

asyncio.run(main())
"""

UPGRADING = """
import asyncio, sys
from beanie_session_store import upgrade_schema
from beanie_session_store.app.storage.client import open_database

async def main():
    url, name = sys.argv[1:3]
    async with open_database(url, name) as database:
        await upgrade_schema(database)
        assert "claude_agent_sdk" in sys.modules

asyncio.run(main())
"""


@pytest.mark.parametrize(
    "source",
    [
        pytest.param(CONNECTING, id="connect"),
        pytest.param(UPGRADING, id="upgrade_schema", marks=pytest.mark.soak),
    ],
)
def test_what_an_application_does_at_start_loads_the_sdk(
    source: str, mongo_url: str, database_name: str
) -> None:
    assert "claude_agent_sdk" in imported_by(source, mongo_url, database_name)


def test_preload_loads_the_sdk_from_any_thread_and_again() -> None:
    source = """
from concurrent.futures import ThreadPoolExecutor
import beanie_session_store as package
with ThreadPoolExecutor(8) as pool:
    list(pool.map(lambda _: package.preload(), range(32)))
package.preload()
"""
    assert set(SDK) <= imported_by(source)


def test_many_threads_may_ask_for_the_first_names_at_once() -> None:
    source = """
import threading
import beanie_session_store as package
public = sorted(package.__all__) * 2
barrier = threading.Barrier(len(public))
found, failures = [], []
def ask(name):
    barrier.wait()
    try:
        found.append((name, getattr(package, name)))
    except BaseException as error:
        failures.append((name, error))
threads = [threading.Thread(target=ask, args=(name,)) for name in public]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
assert not failures, failures
for name, value in found:
    assert value is getattr(package, name), name
"""
    assert "beanie" in imported_by(source)


def test_readers_checkers_and_the_interpreter_see_the_same_names() -> None:
    tree = ast.parse(Path(inspect.getfile(package)).read_text())
    (typed,) = (
        each
        for each in tree.body
        if isinstance(each, ast.If) and ast.unparse(each.test) == "TYPE_CHECKING"
    )
    checkers = {
        alias.name: f".{each.module}"
        for each in typed.body
        if isinstance(each, ast.ImportFrom)
        for alias in each.names
    }
    at_run_time: dict[str, str] = vars(package)["_HOME_OF"]
    assert checkers == at_run_time
    assert sorted(checkers) == sorted(package.__all__)
    starred: dict[str, Any] = {}
    exec("from beanie_session_store import *", starred)
    assert set(package.__all__) <= set(starred)
    assert set(package.__all__) <= set(dir(package))
    for name in package.__all__:
        assert starred[name] is getattr(package, name)


def test_a_name_that_is_not_there_is_refused_as_by_any_module() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'BeanieSesionStore'"):
        _ = package.BeanieSesionStore  # pyright: ignore
    with pytest.raises(ImportError, match="cannot import name 'nothing'"):
        exec("from beanie_session_store import nothing", {})
    assert not hasattr(package, "__wrapped__")


def test_what_looks_into_a_module_finds_the_face() -> None:
    members = dict(inspect.getmembers(package))
    assert members["BeanieSessionStore"] is BeanieSessionStore
    shown = subprocess.run(
        [sys.executable, "-W", "error", "-m", "pydoc", "beanie_session_store.BeanieSessionStore"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "Stores Claude Agent SDK sessions in MongoDB, for one tenant." in shown
    # Annotations can be looked up, whether or not the SDK was imported.
    for _, method in inspect.getmembers(BeanieSessionStore, inspect.isfunction):
        inspect.signature(method)
    inspect.get_annotations(BeanieSessionStore.append, eval_str=True)


def test_values_and_errors_pass_between_processes() -> None:
    error = package.UnknownSessionError("There is none.")
    listing = package.SessionListing("p", "s", 1)
    assert pickle.loads(pickle.dumps(package.BeanieSessionStore)) is BeanieSessionStore
    assert pickle.loads(pickle.dumps(listing)) == listing
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    source = f"import pickle; assert pickle.loads({pickle.dumps(listing)!r}).session_id == 's'"
    assert "beanie_session_store" in imported_by(source)


def test_the_sdk_finds_every_method_of_the_store() -> None:
    from claude_agent_sdk import ClaudeAgentOptions, SessionStore
    from claude_agent_sdk._internal.session_store_validation import (
        validate_session_store_options,  # pyright: ignore[reportUnknownVariableType]
    )

    offered = [name for name, _ in inspect.getmembers(SessionStore, inspect.isfunction)]
    methods = [name for name in offered if not name.startswith("_")]
    assert {"append", "load", "list_sessions", "delete"} <= set(methods)
    for name in methods:
        ours, theirs = getattr(BeanieSessionStore, name), getattr(SessionStore, name)
        assert ours is not theirs
        # What ours takes besides is by keyword and has a default.
        given = inspect.signature(ours).parameters.values()
        taken = [each.name for each in given if each.kind is not each.KEYWORD_ONLY]
        assert taken == list(inspect.signature(theirs).parameters), name
    options = ClaudeAgentOptions(session_store=BeanieSessionStore(), continue_conversation=True)
    validate_session_store_options(options)
