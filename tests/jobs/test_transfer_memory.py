"""A session of a gigabyte goes in and out in little memory."""

from __future__ import annotations

import filecmp
import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from support.entries import message

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3600)]

GIGABYTE = 1024**3
MOST_MIB = 300
PROGRAM = Path(__file__).parents[1] / "support" / "rss.py"


def write_session(path: Path, size: int) -> None:
    """Lines of 1 to 200 KB, most of them what tools returned; every fourth without uuid."""
    path.parent.mkdir(parents=True)
    sizes = random.Random(1)
    text = "A line of what a tool has printed, 80 characters long, as they usually are. <b>\n"
    written = number = 0
    with path.open("wb") as file:
        while written < size:
            content = text * sizes.choice((12, 100, 2500))
            result = {"type": "tool_result", "tool_use_id": f"t{number}", "content": content}
            said = {"role": "user", "content": [result] if number % 20 else content[:2000]}
            entry = message(message=said, number=number)
            number += 1
            if number % 4 == 0:
                del entry["uuid"]
            line = json.dumps(entry, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
            written += file.write(line)


def test_a_session_of_a_gigabyte_takes_little_memory(
    mongo_url: str, database_name: str, tmp_path: Path
) -> None:
    projects, exported = tmp_path / "projects", tmp_path / "exported"
    main = projects / "-srv-app" / "11111111-1111-4111-8111-111111111111.jsonl"
    write_session(main, GIGABYTE)
    peaks: dict[str, float] = {}
    for step, path in (
        ("import", projects),
        ("import again", projects),
        ("jsonl", exported),
        ("markdown", exported),
        ("html", exported),
        ("archive", tmp_path / "all.tar.gz"),
        ("copy", projects),
    ):
        command = [sys.executable, PROGRAM, step, mongo_url, database_name, path]
        finished = subprocess.run(command, capture_output=True, text=True, check=False)
        assert finished.returncode == 0, finished.stderr
        peaks[step] = float(finished.stdout)
        print(f"{step}: {peaks[step]:.0f} MiB")
        assert peaks[step] < MOST_MIB, peaks
        if step == "jsonl":
            copy = exported / main.relative_to(projects)
            assert filecmp.cmp(main, copy, shallow=False)
            copy.unlink()
