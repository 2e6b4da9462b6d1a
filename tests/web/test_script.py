"""The pages' own script: short, linted, and asking for nothing that the policy forbids."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

STATIC = Path(__file__).parents[2] / "app" / "web" / "static"
SCRIPTS = sorted(STATIC.glob("*.js"))


def test_the_script_can_be_kept_in_mind() -> None:
    assert [path.name for path in SCRIPTS] == ["app.js", "live.js"]
    assert sum(path.read_text().count("\n") for path in SCRIPTS) < 400


def test_the_linter_has_nothing_to_say() -> None:
    linter = Path(sys.executable).with_name("oxlint")
    strict = [f"--deny={kind}" for kind in ("correctness", "suspicious", "perf")]
    finished = subprocess.run(
        [linter, *strict, *SCRIPTS], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stdout


def test_nothing_is_run_or_loaded_that_the_policy_forbids() -> None:
    for path in STATIC.iterdir():
        text = path.read_text()
        assert not re.search(r"\beval\(|new Function\(|document\.write", text), path.name
        addresses = set(re.findall(r"https?://[^\s\"')]+", text))
        assert addresses <= {"http://www.w3.org/2000/svg"}, path.name
        assert "@import" not in text
