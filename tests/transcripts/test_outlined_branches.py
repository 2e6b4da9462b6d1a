"""Branches of an outline are found in one go over its turns, and once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from beanie_session_store.app.transcripts.outline import Outline, OutlinedTurn


class Turns(list[OutlinedTurn]):
    """Turns that count how many of them are looked at."""

    looked_at = 0

    def __getitem__(self, place: Any) -> Any:
        self.looked_at += 1
        return super().__getitem__(place)

    def __iter__(self) -> Iterator[OutlinedTurn]:
        for each in super().__iter__():
            self.looked_at += 1
            yield each


def interleaved(count: int) -> Outline:
    """Two conversations of which each goes on from its own last answer but one."""
    outline = Outline()
    for number in range(count):
        parent = f"a{number - 2}" if number > 1 else None
        prompt = {"type": "user", "said": "hello", "uuid": f"u{number}", "parent": parent}
        outline.add({**prompt, "seq": 2 * number + 1})
        answer = {"type": "assistant", "uuid": f"a{number}", "parent": f"u{number}"}
        outline.add({**answer, "seq": 2 * number + 2})
    return outline


def test_many_branches_take_no_look_at_all_turns_each() -> None:
    outline = interleaved(2_000)
    turns = outline.turns = Turns(outline.turns)
    left = outline.left_behind()
    assert len(left) == 999
    assert {(each.turns, each.messages) for each in left} == {(1, 2)}
    assert turns.looked_at < 50 * len(turns)


@pytest.mark.parametrize("count", [0, 1, 2, 40])
def test_a_position_is_in_what_was_left_behind_or_is_not(count: int) -> None:
    outline = interleaved(count)
    left = outline.left_behind()
    for seq in range(2 * count + 2):
        found = [each for each in left if each.first <= seq < each.until]
        assert [outline.left_at(seq)] == (found or [None])


def test_what_came_later_is_taken_into_account() -> None:
    outline = interleaved(6)
    before = outline.left_behind()
    assert outline.left_behind() is before
    outline.add({"seq": 13, "type": "user", "said": "back", "uuid": "u6", "parent": "a0"})
    assert [(each.first, each.until) for each in outline.left_behind()] == [(3, 13)]
