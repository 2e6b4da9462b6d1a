"""A team that tests its service with the plugin, in a pytest of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

from support.processes import PREPARED

FILES = Path(__file__).parents[1] / "team"
_INI = """
[pytest]
asyncio_mode = {mode}
asyncio_default_fixture_loop_scope = function
filterwarnings =
    error
    ignore::DeprecationWarning:claude_agent_sdk.*
    ignore:Accessing (the|this):DeprecationWarning:(beanie|lazy_model).*
    ignore:Exception ignored in. <socket\\.socket:pytest.PytestUnraisableExceptionWarning
"""
# As a conftest.py does that names the types before the plugin is taken up.
_CONFTEST = """
from beanie_session_store.testing import ScriptedAgent

pytest_plugins = ["beanie_session_store.testing"]
"""


@dataclass(frozen=True)
class Outcome:
    """What a run of the team's tests came to."""

    code: int
    output: str
    said: Mapping[str, str]
    """Why each test did not pass, by its name; empty of those that passed."""


STARTED_ANEW = (sys.executable, "-m", "pytest")
FORKED = (
    *(PREPARED, "-c", "import sys, pytest; sys.exit(pytest.main())"),
    # Of plugins that the store imports too.
    *("-W", "ignore:Module already imported:pytest.PytestAssertRewriteWarning"),
)


@dataclass(frozen=True)
class Team:
    """A folder of tests, and a host with the credentials of somebody in its environment."""

    folder: Path
    mode: str = "strict"
    variables: Mapping[str, str] = field(default_factory=dict)
    program: Sequence[str] = FORKED

    def __post_init__(self) -> None:
        (self.folder / "tmp").mkdir(parents=True)
        (self.folder / "pytest.ini").write_text(_INI.format(mode=self.mode))
        (self.folder / "conftest.py").write_text(_CONFTEST)

    def add(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)

    def copy(self, *files: Path) -> None:
        for file in files:
            name = f"test_{file.name}" if file.parent == FILES else file.name
            shutil.copyfile(file, self.folder / name)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        command = [*self.program, "-p", "no:cacheprovider", "-rA"]
        report = f"--junitxml={self.folder / 'report.xml'}"
        return subprocess.Popen(
            [*command, f"--basetemp={self.folder / 'base'}", report, *arguments],
            cwd=self.folder,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *arguments: str) -> Outcome:
        with self.start(*arguments) as process:
            output = process.communicate()[0]
        return Outcome(process.returncode, output, _said(self.folder / "report.xml"))

    def environment(self) -> dict[str, str]:
        kept = {key: os.environ[key] for key in ("SESSION_STORE_MONGOD",) if key in os.environ}
        return {
            "HOME": str(self.folder),
            "TMPDIR": str(self.folder / "tmp"),
            "PATH": os.environ["PATH"],
            "ANTHROPIC_API_KEY": "a real key",
            "CLAUDE_CODE_USE_BEDROCK": "1",
            "HTTPS_PROXY": "http://127.0.0.1:9",
            **kept,
            **self.variables,
        }

    def processes(self) -> list[str]:
        """The commands that still run for the team: servers, agents and their tools."""
        found: list[str] = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                command = (process / "cmdline").read_bytes().replace(b"\0", b" ")
                surroundings = (process / "environ").read_bytes()
            except OSError:
                continue
            if os.fsencode(self.folder) in command + surroundings:
                found.append(os.fsdecode(command))
        return found


def _said(report: Path) -> dict[str, str]:
    said: dict[str, str] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        name = f"{case.get('classname', '').rpartition('.')[2]}.{case.get('name')}"
        reasons = [each.text or "" for each in case if each.tag in ("failure", "error")]
        said[re.sub(r"^test_\w+\.", "", name)] = "\n".join(reasons)
    return said
