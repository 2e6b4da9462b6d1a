"""Checks with Pyright and mypy, both strict, what a team sees of the types.

That is the Python code in README.md and docs, the uses of the package beside this file and the
example application; Pyright checks the package itself too. Each checker runs once, over all of it.
What is wrong with a block is said by the line of its document, and what is left out is listed::

    python tests/typed/check.py

Where Beanie 1 is installed it checks what is for Motor, and else all of the rest.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from blocks import BadBlockError, blocks_of, documents

from beanie_session_store.app.database.driver import IS_MOTOR

ROOT = Path(__file__).parents[2]
OURS = ["__init__.py", "encryption.py", "telemetry.py", "web.py", "app", "models", "migrations"]
USES = ["tests/typed/service.py", "tests/typed/refused.py", "tests/example_app"]
OF_MOTOR = ["tests/typed/motor_service.py"]

WORK = ROOT / ".types" / ("motor" if IS_MOTOR else "pymongo")
MODULES = WORK / "modules"
# A checkout has any name, and checkers find a package by its own.
PACKAGE = WORK / "beanie_session_store"

CHECKED = OF_MOTOR if IS_MOTOR else USES
PYRIGHT = {
    "extends": "../../pyproject.toml",
    "venvPath": str(Path(sys.prefix).parent),
    "venv": Path(sys.prefix).name,
    "include": [
        *(f"{PACKAGE.name}/{each}" for each in CHECKED + ([] if IS_MOTOR else OURS)),
        MODULES.name,
    ],
    "ignore": [f"{PACKAGE.name}/migrations/{each}" for each in ("2*.py", "optional/2*.py")],
}

MYPY = f"""
[mypy]
strict = True
# The files of tests are modules of their own.
namespace_packages = False
python_version = 3.10
mypy_path = {WORK}:{PACKAGE}/tests/example_app
cache_dir = {WORK}/mypy

[mypy-{PACKAGE.name}.*]
follow_imports = silent

# A namespace package, into which Pyright looks.
[mypy-opentelemetry.*]
follow_imports = skip
ignore_missing_imports = True
"""


class CheckerError(Exception):
    """A checker did not come to an end."""


def pyright() -> Iterator[str]:
    """What Pyright says, one fault a line."""
    (WORK / "pyrightconfig.json").write_text(json.dumps(PYRIGHT))
    said = _run("pyright", "--outputjson")
    for each in json.loads(said)["generalDiagnostics"]:
        file, line = each["file"], each["range"]["start"]["line"] + 1
        yield f"{file}:{line}: {each['message']} [pyright {each.get('rule', 'syntax')}]"


def mypy() -> Iterator[str]:
    """What mypy says, one fault a line."""
    (WORK / "mypy.ini").write_text(MYPY)
    uses = [str(PACKAGE / each) for each in CHECKED]
    options = ["--python-executable", sys.executable, "--no-error-summary", "--no-pretty"]
    for line in _run("mypy", *options, *uses, str(MODULES)).splitlines():
        yield f"{WORK}/{line.removeprefix(f'{WORK}/')} [mypy]"


def _run(module: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=WORK,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode not in {0, 1} or (done.returncode == 1 and not done.stdout):
        raise CheckerError(f"{module} ended with {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


def main() -> int:
    """Write down the modules, have them checked, say what was found."""
    shutil.rmtree(MODULES, ignore_errors=True)
    MODULES.mkdir(parents=True)
    PACKAGE.unlink(missing_ok=True)
    PACKAGE.symlink_to(ROOT, target_is_directory=True)
    sources: dict[str, str] = {f"{PACKAGE}/": "", f"{WORK}/": ""}
    faults: list[str] = []
    count = 0
    for document in documents(ROOT):
        name = str(document.relative_to(ROOT))
        try:
            for block in blocks_of(document.read_text()):
                if block.is_for_motor != IS_MOTOR:
                    continue
                count += 1
                if block.unchecked is not None:
                    print(f"{name}:{block.line}: not checked: {block.unchecked}")
                    continue
                module = MODULES / f"block_{count}.py"
                module.write_text(block.module)
                sources[f"{module}"] = name
        except BadBlockError as error:
            faults.append(f"{name}:{error.line}: {error}")
    with ThreadPoolExecutor() as checkers:
        for said in checkers.map(list, [pyright(), mypy()]):
            faults += said
    named = re.compile("|".join(re.escape(each) for each in sorted(sources, key=len, reverse=True)))
    for fault in faults:
        print(named.sub(lambda found: sources[found[0]], fault), file=sys.stderr)
    print(f"{count} blocks of code in the documents: {len(faults) or 'no'} errors")
    return 1 if faults or not count else 0


if __name__ == "__main__":
    sys.exit(main())
