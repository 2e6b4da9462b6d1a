"""Runs what any deployment can be asked, and writes down what held: ``tests/cluster/run.py``.

Each test that works on the server that ``SESSION_STORE_MONGODB_URL`` names gets the marker
``cluster``; those that start servers of their own are left out. A test that fails because the
deployment refuses what the test does to it (fail points, the profiler, parameters of the server)
was not tried, and counts as neither held nor broken.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from pathlib import Path

import pytest

from .report import NOT_TRIED, Outcome, described, written

_OWN_SERVERS = {"standalone_url", "secured", "standalone_databases"}
_FOLDERS_OF_OWN_SERVERS = ("faults", "embedded", "secantus", "testing", "cluster")

_REFUSED = re.compile(
    "|".join(
        (
            r"no such command: '?(configureFailPoint|profile|replSetStepDown)",
            r"configureFailPoint",
            r"(profile|setParameter|fsync|replSetStepDown)\b.*not (supported|allowed|authorized)",
            r"not authorized on (admin|local|config)",
            r"test commands",
            r"is not allowed in this atlas tier|CMD_NOT_ALLOWED|AtlasError",
        )
    ),
    re.IGNORECASE,
)


class ClusterLane:
    """What was found of each test."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.outcomes: dict[str, Outcome] = {}
        self.left_out = 0

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        kept, left_out = [], []
        for item in items:
            if is_for_any_deployment(item):
                item.add_marker(pytest.mark.cluster)
                kept.append(item)
            else:
                left_out.append(item)
        config.hook.pytest_deselected(items=left_out)
        self.left_out = len(left_out)
        items[:] = kept

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        known = self.outcomes.get(report.nodeid)
        if report.failed:
            self.outcomes[report.nodeid] = outcome_of(report.longreprtext)
        elif report.skipped:
            self.outcomes[report.nodeid] = Outcome(NOT_TRIED, "skipped")
        elif known is None and report.when == "call":
            self.outcomes[report.nodeid] = Outcome("held")

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if hasattr(session.config, "workerinput"):
            return
        by_file: defaultdict[str, dict[str, Outcome]] = defaultdict(dict)
        for node, outcome in self.outcomes.items():
            file, _, name = node.partition("::")
            by_file[file][name] = outcome
        deployment = described(os.environ["SESSION_STORE_MONGODB_URL"])
        self.output.write_text(written(deployment, by_file, self.left_out))
        # What could not be tried is no failure of the deployment.
        if session.exitstatus == pytest.ExitCode.TESTS_FAILED and not any(
            each.what == "broken" for each in self.outcomes.values()
        ):
            session.exitstatus = pytest.ExitCode.OK


def is_for_any_deployment(item: pytest.Item) -> bool:
    """Whether a test works on the server that it is given, and on no other."""
    names = set(getattr(item, "fixturenames", ()))
    folder = item.path.parent.name
    return (
        "mongo_url" in names
        and not names & _OWN_SERVERS
        and folder not in _FOLDERS_OF_OWN_SERVERS
        and not any(item.iter_markers("faults"))
    )


def outcome_of(text: str) -> Outcome:
    """What a failure means: that the deployment refused the test, or that it broke a promise."""
    errors = [line[1:].strip() for line in text.splitlines() if line.startswith("E ")]
    said = errors[0] if errors else text.strip().splitlines()[-1] if text.strip() else "no message"
    what = NOT_TRIED if _REFUSED.search("\n".join(errors)) else "broken"
    return Outcome(what, said.partition(", full error")[0][:300])


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--cluster-report", default="cluster-report.md", help="where the report goes")


def pytest_configure(config: pytest.Config) -> None:
    if not os.environ.get("SESSION_STORE_MONGODB_URL"):
        raise pytest.UsageError("SESSION_STORE_MONGODB_URL names the deployment, and is not set.")
    config.pluginmanager.register(ClusterLane(Path(config.getoption("--cluster-report"))))
