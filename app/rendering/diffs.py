"""What an edit changed, line by line: by the tool's own patch, or by what it was to replace."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any, Final, cast

from .folded_calls import FoldedCall
from .tool_lines import replacements

MAX_ROWS: Final = 400
"""So many rows of one change are shown."""

# What compares long texts line by line takes time with the square of their length.
_MAX_COMPARED_LINES = 1_000
_MAX_WORDS_CHARACTERS = 400


@dataclass(frozen=True, slots=True)
class DiffRow:
    """A line of a change; ``sign`` is ``+``, ``-``, ``" "``, or ``@`` for lines between."""

    sign: str
    text: str
    old: int | None = None
    new: int | None = None
    changed: tuple[int, int] | None = None
    """From where to where it differs from the line that it stands for."""


def diff_rows(call: FoldedCall) -> list[DiffRow]:
    """The rows of a change; empty where nothing is known of it."""
    patch = call.told("structuredPatch")
    rows = list(_of_patch(cast("list[Any]", patch))) if isinstance(patch, list) else []
    if not rows:
        changes = [each for each in replacements(call) if any(each)]
        for number, (old, new) in enumerate(changes):
            if number:
                rows.append(DiffRow("@", "another place"))
            rows += _of_texts(old.split("\n") if old else [], new.split("\n") if new else [])
    return list(_with_words(rows))


def _of_patch(patch: Sequence[Any]) -> Iterator[DiffRow]:
    end: int | None = None
    for each in patch:
        hunk = cast("dict[str, Any]", each) if isinstance(each, dict) else {}
        lines, old, new = hunk.get("lines"), hunk.get("oldStart"), hunk.get("newStart")
        if not isinstance(lines, list) or type(old) is not int or type(new) is not int:
            continue
        if end is not None and old > end:
            yield DiffRow("@", f"{old - end:,} lines further down")
        for line in cast("list[Any]", lines):
            sign, text = str(line)[:1], str(line)[1:]
            if sign == "+":
                yield DiffRow("+", text, None, new)
                new += 1
            elif sign == "-":
                yield DiffRow("-", text, old, None)
                old += 1
            elif sign != "\\":
                yield DiffRow(" ", text, old, new)
                old, new = old + 1, new + 1
        end = old


def _of_texts(old: list[str], new: list[str]) -> Iterator[DiffRow]:
    if len(old) + len(new) > _MAX_COMPARED_LINES:
        yield from (DiffRow("-", each) for each in old)
        yield from (DiffRow("+", each) for each in new)
        return
    for kind, i1, i2, j1, j2 in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if kind == "equal":
            yield from (DiffRow(" ", each) for each in old[i1:i2])
        else:
            yield from (DiffRow("-", each) for each in old[i1:i2])
            yield from (DiffRow("+", each) for each in new[j1:j2])


def _with_words(rows: Sequence[DiffRow]) -> Iterator[DiffRow]:
    """The rows; where as many lines came as went, with where each differs from its other.

    Of the rows behind those that are shown nothing is found out.
    """
    place = 0
    while place < min(len(rows), MAX_ROWS):
        removed = _run(rows, place, "-")
        added = _run(rows, place + len(removed), "+")
        if removed and len(removed) == len(added):
            room = MAX_ROWS - place
            pairs = [_differing(*each) for each in zip(removed[:room], added[:room], strict=True)]
            removed[:room] = [old for old, _ in pairs]
            added[:room] = [new for _, new in pairs]
        # Neither of them: a row between.
        found = [*removed, *added] or [rows[place]]
        yield from found
        place += len(found)
    yield from rows[place:]


def _run(rows: Sequence[DiffRow], place: int, sign: str) -> list[DiffRow]:
    end = place
    while end < len(rows) and rows[end].sign == sign:
        end += 1
    return list(rows[place:end])


def _differing(old: DiffRow, new: DiffRow) -> tuple[DiffRow, DiffRow]:
    one, other = old.text, new.text
    shortest = min(len(one), len(other))
    if max(len(one), len(other)) > _MAX_WORDS_CHARACTERS:
        return old, new
    first = next((i for i in range(shortest) if one[i] != other[i]), shortest)
    last = next(
        (i for i in range(shortest - first) if one[-1 - i] != other[-1 - i]), shortest - first
    )
    # Of lines that have little in common all would be marked.
    if 2 * (first + last) < shortest:
        return old, new
    return (
        DiffRow("-", one, old.old, None, (first, len(one) - last)),
        DiffRow("+", other, None, new.new, (first, len(other) - last)),
    )
