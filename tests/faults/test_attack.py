"""Every promise at once, on a replica set that is broken in every way we know."""

from __future__ import annotations

import os

import pytest
from faults.run import attack
from faults.schedule import FAULTS

SECONDS = float(os.environ.get("FAULTS_SECONDS", "180"))
HUGE = int(os.environ.get("FAULTS_HUGE", "20000"))
SEED = int(os.environ.get("FAULTS_SEED", "1"))


@pytest.mark.faults
@pytest.mark.timeout(SECONDS + 1200)
def test_no_promise_is_broken_whatever_fails() -> None:
    report = attack(SECONDS, SEED, huge=HUGE)
    print(report.text())
    assert not report.problems
    assert not report.findings
    assert report.crashes, "no writer was killed, so nothing was proved"
    assert report.operations["append ok"] > SECONDS
    assert len(report.faults) > min(SECONDS / 20, len(FAULTS) / 2)
