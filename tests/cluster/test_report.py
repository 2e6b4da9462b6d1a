"""What is said of a deployment is what its tests said."""

from __future__ import annotations

import pytest
from cluster.plugin import is_for_any_deployment, outcome_of
from cluster.report import NOT_TRIED, Deployment, Outcome, described, promises, written


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("E   AssertionError: assert 1 == 2", "broken"),
        ("E   OperationFailure: no such command: 'configureFailPoint', full error: {}", NOT_TRIED),
        ("E   OperationFailure: not authorized on admin to execute command { x: 1 }", NOT_TRIED),
        ("E   OperationFailure: command profile is not supported through mongos", NOT_TRIED),
        ("E   ServerError: not authorized on test_1 to execute command", "broken"),
        ("", "broken"),
    ],
)
def test_a_refused_test_is_no_broken_promise(text: str, what: str) -> None:
    outcome = outcome_of(text)
    assert outcome.what == what
    assert "full error" not in outcome.why


def test_a_report_counts_by_promise_and_names_what_broke() -> None:
    named = promises()
    assert len(named) > 30
    assert all(tests for tests in named.values())
    ((file, name), *_) = named["Atomic append"]
    found = {file: {f"{name}[1]": Outcome("held"), f"{name}[2]": Outcome("broken", "half of it")}}
    report = written(Deployment("8.0.1", "sharded cluster", 3), found, 7)
    assert "MongoDB 8.0.1, sharded cluster, 3 shards" in report
    assert "1 tests held, 1 broken, 0 not tried; 7 start" in report
    assert "| Atomic append | 1 | 1 | 0 |" in report
    assert f"- `{file}::{name}[2]`: half of it" in report
    assert "| Total order |  |  |  |" in report


def test_a_deployment_says_what_it_is(mongo_url: str) -> None:
    found = described(mongo_url)
    assert found.kind == "replica set"
    assert found.members >= 1
    assert found.version.count(".") == 2


def test_who_starts_a_server_of_its_own_says_nothing_of_a_deployment(
    request: pytest.FixtureRequest,
) -> None:
    chosen = {
        item.path.parent.name for item in request.session.items if is_for_any_deployment(item)
    }
    assert chosen.isdisjoint({"faults", "embedded", "cluster"})
