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
