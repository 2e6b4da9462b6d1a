"""What `pyproject.toml` declares is what the lanes install."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DECLARED = dict(
    re.findall(
        r'^    "([a-z0-9-]+)>=([0-9.]+)[,"]',
        (ROOT / "pyproject.toml").read_text().split("[project.scripts]")[0],
        re.MULTILINE,
    )
)


def pinned(name: str) -> dict[str, str]:
    text = (ROOT / "constraints" / name).read_text()
    return dict(re.findall(r"^([A-Za-z0-9._-]+)==([0-9.]+)$", text, re.MULTILINE))


def release(version: str) -> tuple[int, ...]:
    numbers = [int(number) for number in version.split(".")]
    return tuple(numbers + [0] * (3 - len(numbers)))


def test_the_lowest_lane_installs_exactly_the_lowest_versions_declared() -> None:
    lowest = pinned("lowest.txt")
    assert {"beanie", "motor", "pymongo", "pydantic", "claude-agent-sdk"} < set(lowest)
    assert {name: release(version) for name, version in lowest.items()} == {
        name: release(DECLARED[name]) for name in lowest
    }


def test_the_lowest_lane_of_beanie_2_differs_in_beanie_alone() -> None:
    lowest, of_beanie2 = pinned("lowest.txt"), pinned("lowest-beanie2.txt")
    assert of_beanie2.pop("beanie") == "2.0.0"
    assert of_beanie2 == {
        name: version for name, version in lowest.items() if name not in ("beanie", "motor")
    }


@pytest.mark.parametrize("name", ["beanie2.txt", "motor.txt"])
def test_a_lane_pins_what_the_library_stands_on(name: str) -> None:
    assert {"beanie", "lazy-model"} <= set(pinned(name))
    assert {"pymongo", "pydantic", "claude-agent-sdk"} <= set(pinned("shared.txt"))
    assert "-c shared.txt" in (ROOT / "constraints" / name).read_text()


def test_every_lane_of_the_workflows_is_one_and_those_on_the_newest_may_fail() -> None:
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    lanes = set(re.findall(r"\{ lane: ([\w-]+),", workflow))
    project = (ROOT / "pyproject.toml").read_text()
    known = set(re.findall(r'^    "(py3[\w-]+)",$', project, re.MULTILINE))
    newest = {lane for lane in known if lane.endswith("newest")}
    assert len(newest) == 2
    assert newest < lanes <= known
    for lane in newest:
        (env,) = re.findall(rf"\[tool\.tox\.env\.{lane}\]\n(.*?)\n\n", project, re.DOTALL)
        assert env == "constraints = []\nignore_outcome = true"


def test_what_a_release_is_checked_for_is_where_it_is_looked_for() -> None:
    """`.ci/check-release` reads the version so, and a section of the changelog."""
    project = (ROOT / "pyproject.toml").read_text()
    assert len(re.findall(r'^version = "(\d+\.\d+\.\d+)"$', project, re.MULTILINE)) == 1
    sections = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    dated = r"\[\d+\.\d+\.\d+\] - \d{4}-\d{2}-\d{2}"
    assert sections
    assert all(re.fullmatch(rf"\[Unreleased\]|{dated}", each) for each in sections)
