"""The suite begins with the files that take longest."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.order import LONGEST_FIRST, place_of

TESTS = Path(__file__).parent.parent


@pytest.mark.parametrize("name", LONGEST_FIRST)
def test_a_file_that_begins_early_is_there(name: str) -> None:
    """Else one that was moved would begin last, and all others wait for it."""
    assert (TESTS / name).is_file()
    assert place_of(TESTS / name) < place_of(Path(__file__))


def test_they_come_first(request: pytest.FixtureRequest) -> None:
    places = [place_of(item.path) for item in request.session.items]
    assert places == sorted(places)
