"""The report of a run on a deployment: what it is, what held of each promise, what did not."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pymongo import MongoClient
from pymongo.errors import PyMongoError

ROOT = Path(__file__).parents[2]
NOT_TRIED = "not tried"
_CLIENTS = ("beanie", "pymongo", "pydantic", "claude-agent-sdk")


@dataclass(frozen=True)
class Outcome:
    """What came of a test: ``held``, ``broken`` or ``not tried``, and why."""

    what: str
    why: str = ""


@dataclass(frozen=True)
class Deployment:
    """What the servers say of themselves. No host and no name of a user is in it."""

    version: str
    kind: str
    members: int


def described(url: str) -> Deployment:
    """What is at a URL; the driver's own errors where nothing is."""
    with MongoClient[dict[str, Any]](url, serverSelectionTimeoutMS=20_000) as client:
        hello = client.admin.command("hello")
        release = str(client.server_info()["version"])
        if hello.get("msg") == "isdbgrid":
            try:
                shards = len(client.admin.command("listShards")["shards"])
            except PyMongoError:
                shards = 0
            return Deployment(release, "sharded cluster", shards)
        if "setName" in hello:
            return Deployment(release, "replica set", len(hello.get("hosts", ())))
        return Deployment(release, "standalone server", 1)


def written(
    deployment: Deployment, by_file: Mapping[str, Mapping[str, Outcome]], left_out: int
) -> str:
    """The report as Markdown."""
    counts = {what: _count(by_file, what) for what in ("held", "broken", NOT_TRIED)}
    clients = ", ".join(f"{name} {version(name)}" for name in _CLIENTS)
    of = {"sharded cluster": "shards", "replica set": "members"}.get(deployment.kind, "server")
    lines = [
        "# What held on a deployment",
        "",
        f"- {datetime.now(timezone.utc):%Y-%m-%d}: MongoDB {deployment.version}, "
        f"{deployment.kind}, {deployment.members} {of}",
        f"- Python {platform.python_version()}, {clients}",
        f"- {counts['held']} tests held, {counts['broken']} broken, {counts[NOT_TRIED]} not tried; "
        f"{left_out} start servers of their own and say nothing of this one",
        "",
        "| promise | held | broken | not tried |",
        "| --- | --- | --- | --- |",
    ]
    for promise, tests in promises().items():
        found = [
            outcome
            for file, name in tests
            for node, outcome in by_file.get(file, {}).items()
            if node.partition("[")[0] == name
        ]
        row = [sum(each.what == what for each in found) for what in counts]
        lines.append(f"| {promise} | {' | '.join(str(each) if found else '' for each in row)} |")
    for what in ("broken", NOT_TRIED):
        nodes = [
            f"- `{file}::{name}`: {outcome.why}"
            for file, found in sorted(by_file.items())
            for name, outcome in found.items()
            if outcome.what == what
        ]
        lines += ["", f"## {what.capitalize()}", "", *(nodes or ["Nothing."])]
    return "\n".join(lines) + "\n"


def promises() -> dict[str, list[tuple[str, str]]]:
    """Each promise of docs/guarantees.md, and the tests that it names: file and function."""
    text = (ROOT / "docs" / "guarantees.md").read_text()
    return {
        row[1]: re.findall(r"`(tests/[^`:]+)::(\w+)`", row[0])
        for row in re.finditer(r"^\| \*\*(.+?)\.?\*\*.*$", text, re.MULTILINE)
    }


def _count(by_file: Mapping[str, Mapping[str, Outcome]], what: str) -> int:
    return sum(outcome.what == what for found in by_file.values() for outcome in found.values())
