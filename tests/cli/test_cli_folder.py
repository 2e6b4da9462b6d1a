"""The command line runs no file of the current folder, but for the classes that it is told to."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.command import Finished
from support.entries import KEY, turn

from beanie_session_store import BeanieSessionStore
from beanie_session_store.app.cli.python_objects import object_named
from beanie_session_store.app.database.driver import Database

# As it is installed: `python -c` and `-m` look in the current folder by themselves.
SCRIPT = Path(sys.executable).with_name("session-store")
HOSTILE = [
    "colorsys.py",
    "nh3.py",
    "rich.py",
    "typer.py",
    "beanie.py",
    "dateutil.py",
    "fiftyone.py",
]
TRAP = "from pathlib import Path\nPath({mark!r}).touch()\nraise SystemExit('trapped')\n"


@pytest.fixture
def trapped(tmp_path: Path) -> Path:
    """A folder whose files are named like modules of ours and leave a mark when they are run."""
    folder = tmp_path / "folder"
    folder.mkdir()
    trap = TRAP.format(mark=str(tmp_path / "mark"))
    for name in HOSTILE:
        (folder / name).write_text(trap)
    for package in ("claude_agent_sdk", "beanie_session_store", "pymongo"):
        (folder / package).mkdir()
        (folder / package / "__init__.py").write_text(trap)
    return folder


# What it does, several times over. Python looks in the folder of a file, and not in the current.
SEVERAL = """
import json, sys
from beanie_session_store.app.cli.root import main

for arguments in json.loads(sys.argv[1]):
    sys.argv[1:] = arguments
    try:
        main()
    except SystemExit as end:
        if end.code:
            raise
"""


async def call(folder: Path, *arguments: str, **environment: str) -> Finished:
    return await run(folder, str(SCRIPT), *arguments, **environment)


async def call_several(folder: Path, *calls: list[str], **environment: str) -> Finished:
    """Several calls in one process, to the first that fails."""
    script = folder.parent / "bin" / "several"
    script.parent.mkdir(exist_ok=True)
    script.write_text(SEVERAL)
    return await run(folder, sys.executable, str(script), json.dumps(calls), **environment)


async def run(folder: Path, *command: str, **environment: str) -> Finished:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("SESSION_STORE_", "PYTHON"))}
    process = await asyncio.create_subprocess_exec(
        *command,
        env={**kept, **environment},
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    output, errors = (part.decode() for part in await process.communicate())
    assert process.returncode is not None
    return Finished(process.returncode, output, errors)


async def test_no_file_of_the_folder_is_run(
    trapped: Path, store: BeanieSessionStore, mongo_url: str, database: Database
) -> None:
    await store.append(KEY, turn(1))
    environment = {
        "SESSION_STORE_MONGODB_URL": mongo_url,
        "SESSION_STORE_DATABASE": database.name,
    }
    finished = await call(trapped, "export", "--format", "html", "out", **environment)
    assert finished.code == 0, finished.errors
    calls = [["sessions"], ["show", "session"], ["stats"], ["--help"]]
    finished = await call_several(trapped, *calls, **environment)
    assert finished.code == 0, finished.errors
    assert "Usage" in finished.output
    assert not (trapped.parent / "mark").exists()


async def test_classes_of_the_folder_are_found_and_nothing_else_is(
    trapped: Path, store: BeanieSessionStore, mongo_url: str, database: Database
) -> None:
    await store.append(KEY, turn(1))
    (trapped / "acme_models.py").write_text(
        "import colorsys, nh3\n"
        "from beanie_session_store import SessionSummary, TranscriptEntry\n"
        "class AcmeEntry(TranscriptEntry): pass\n"
        "class AcmeSummary(SessionSummary): pass\n"
    )
    (trapped / "acme_stores.py").write_text(
        "import claude_agent_sdk\n"
        "def open_store():\n    return claude_agent_sdk.InMemorySessionStore()\n"
    )
    environment = {
        "SESSION_STORE_MONGODB_URL": mongo_url,
        "SESSION_STORE_DATABASE": database.name,
    }
    classes = ["--entries", "acme_models:AcmeEntry", "--summaries", "acme_models:AcmeSummary"]
    for arguments, more in (
        ([*classes, "sessions"], {}),
        (["sessions"], {"SESSION_STORE_ENTRIES": "acme_models:AcmeEntry"}),
        ([*classes, "sessions"], {"PYTHONSAFEPATH": "1"}),
    ):
        finished = await call(trapped, *arguments, **environment, **more)
        assert finished.code == 0, finished.errors
    copying = ["copy", "--from-store", "acme_stores:open_store", "--project", "p"]
    finished = await call(trapped, *copying, **environment)
    assert "The source has no sessions to copy" in finished.errors
    assert not (trapped.parent / "mark").exists()


def test_the_folder_is_looked_in_last_and_no_longer_than_the_import(
    trapped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trapped)
    (trapped / "acme_paths.py").write_text("import sys\nPATH = list(sys.path)\n")
    monkeypatch.delitem(sys.modules, "acme_paths", raising=False)
    before = list(sys.path)
    assert object_named("acme_paths:PATH") == [*before, str(trapped)]
    assert sys.path == before
    with pytest.raises(ImportError):
        object_named("acme_nothing:x")
    assert sys.path == before
    # Named in PYTHONPATH as well, it stays where it was.
    monkeypatch.setattr(sys, "path", [str(trapped), *before])
    assert object_named("acme_paths:PATH") == [*before, str(trapped)]
    assert sys.path == [str(trapped), *before]
    monkeypatch.delitem(sys.modules, "acme_paths", raising=False)


@pytest.mark.parametrize(
    ("module", "said"),
    [("raise ZeroDivisionError('bad')", "ZeroDivisionError: bad"), ("def f(:", "SyntaxError")],
)
async def test_a_module_that_fails_is_one_line(tmp_path: Path, module: str, said: str) -> None:
    (tmp_path / "acme_broken.py").write_text(module)
    url = "mongodb://127.0.0.1:1/x?serverSelectionTimeoutMS=1"
    finished = await call(tmp_path, "--url", url, "--entries", "acme_broken:X", "sessions")
    assert (finished.code, finished.errors.count("\n")) == (2, 1)
    assert said in finished.errors
