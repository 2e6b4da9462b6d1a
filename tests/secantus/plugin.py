"""Runs the suite on SecantusDB: ``python -m pytest -p tests.secantus.plugin``.

A test passes, or fails just as ``unsupported.toml`` says, or is not run by a rule of
``deselected.toml``. Anything else is a failure, a listed test that passes among it, so that the
lists stay true.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Generator
from typing import Any

import pytest

from .lists import Deviation, deviations, errors_of, is_of, rules
from .server import SecondEngine, second_engine

_URL = "SESSION_STORE_MONGODB_URL"


class SecondEngineLane:
    """What was found of each test."""

    def __init__(self) -> None:
        self.deviations = deviations()
        self.rules = rules()
        self.engine: SecondEngine | None = None
        self.passed = 0
        self.skipped = 0
        self.unsupported: defaultdict[str, set[str]] = defaultdict(set)
        self.deselected: Counter[str] = Counter()

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        if config.args_source is config.ArgsSource.TESTPATHS:
            self._refuse_stale_lists(items)
        kept, left_out = [], []
        for item in items:
            rule = next((rule for rule in self.rules if rule.covers(item)), None)
            if rule is None:
                kept.append(item)
            else:
                left_out.append(item)
                self.deselected[rule.reason] += 1
        config.hook.pytest_deselected(items=left_out)
        items[:] = kept

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        if session.config.option.collectonly:
            return (yield)
        before = os.environ.get(_URL)
        with second_engine() as self.engine:
            os.environ[_URL] = self.engine.url
            try:
                return (yield)
            finally:
                os.environ.pop(_URL)
                if before is not None:
                    os.environ[_URL] = before

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        expected = [
            deviation
            for deviation in self.deviations
            if any(is_of(item.nodeid, test) for test in deviation.tests)
        ]
        if report.failed and expected and call.excinfo is not None and call.when != "teardown":
            self._judge_failure(report, call.excinfo.value, expected)
        elif report.passed and call.when == "call":
            if expected:
                report.outcome = "failed"
                report.longrepr = (
                    f"{item.nodeid} passes on SecantusDB, but unsupported.toml says that it "
                    f"cannot: {expected[0].what}. Take it out of the list."
                )
            else:
                self.passed += 1
        elif report.skipped:
            self.skipped += 1
        return report

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        engine = self.engine
        if engine is None:
            return
        write = terminalreporter.write_line
        terminalreporter.section(
            f"SecantusDB {engine.version}, which says it is MongoDB {engine.imitated}"
        )
        write(f"{self.passed:5}  passed")
        write(f"{sum(map(len, self.unsupported.values())):5}  unsupported")
        for error, tests in sorted(self.unsupported.items(), key=lambda row: -len(row[1])):
            write(f"       {len(tests):5}  {error}")
        write(f"{self.skipped:5}  skipped by the test itself")
        write(f"{self.deselected.total():5}  deselected")
        for reason, count in self.deselected.most_common():
            write(f"       {count:5}  {reason}")

    def _judge_failure(
        self, report: pytest.TestReport, error: BaseException, expected: list[Deviation]
    ) -> None:
        said = list(errors_of(error))
        for deviation in expected:
            for known in deviation.errors:
                if any(known in text for text in said):
                    report.outcome = "skipped"
                    report.wasxfail = f"SecantusDB: {deviation.what}"
                    self.unsupported[f"{deviation.what}: {known}"].add(report.nodeid)
                    return
        report.sections.append(
            (
                "unsupported.toml",
                "lists this test, but with another error:\n"
                + "\n".join(error for deviation in expected for error in deviation.errors),
            )
        )

    def _refuse_stale_lists(self, items: list[pytest.Item]) -> None:
        gone = [
            test
            for deviation in self.deviations
            for test in deviation.tests
            if not any(is_of(item.nodeid, test) for item in items)
        ]
        gone += [
            f"the rule {rule.reason!r}"
            for rule in self.rules
            if not any(rule.covers(item) for item in items)
        ]
        if gone:
            raise pytest.UsageError(
                "The lists in tests/secantus name what is not there any more; take it out: "
                + ", ".join(gone)
            )


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(SecondEngineLane(), "second-engine-lane")
