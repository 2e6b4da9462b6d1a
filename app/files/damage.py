"""What is whole of a damaged line: a line should be one record, and may hold others or parts.

Two processes that write at once, a disk that was full or a crash leave records behind one
another on one line, pieces of records before whole ones, and NULs where nothing was written.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, cast

from ...models.packing import full_stack

_decode = json.JSONDecoder().raw_decode
_BETWEEN = re.compile(r"[\s\0\ufeff]*")
_START = re.compile(r'\{\s*["}]')
_NO_UTF8 = re.compile("[\udc80-\udcff]")
# What looking for records may cost, in characters of the line: it is not to take the square.
_TRIES = 16
# Longer ones take too much memory, of which there may be four bytes for each of theirs.
_MAX_BYTES = 32 * 1024 * 1024
# Every record of the agent has one of them; blocks and results inside of records have none.
_NAMES = ("uuid", "sessionId", "leafUuid", "messageId")


@dataclass(frozen=True, slots=True)
class Salvage:
    """What was read of a damaged line."""

    records: list[dict[str, Any]]
    reason: str | None
    """Why there is more that could not be read; ``None`` if there is not."""


def salvaged(line: bytes) -> Salvage:
    """The whole records of a line, and what is wrong with the rest of it.

    A record behind a damaged one is only taken for one if it reaches to the end of the line or to
    another record and says which it is: parts of a record are objects too.
    """
    if len(line) > _MAX_BYTES:
        return Salvage([], None)
    # Bytes that are no UTF-8 spoil the record that they are in, and no other.
    return _DamagedLine(line.decode("utf-8", "surrogateescape")).read()


class _DamagedLine:
    def __init__(self, text: str) -> None:
        self._text = text
        self._left = _TRIES * len(text)
        self._records: list[dict[str, Any]] = []
        self._reason: str | None = None

    def read(self) -> Salvage:
        at = self._next(0)
        while at < len(self._text):
            try:
                value, end = self._value(at)
            except ValueError as error:
                at = self._behind(at, error)
                continue
            if not isinstance(value, dict):
                self._note(f"JSON, but no object: {type(value).__name__}")
            elif spoilt := _NO_UTF8.search(self._text, at, end):
                self._note(f"no UTF-8 at byte {self._bytes_before(spoilt.start())}")
            else:
                self._records.append(cast("dict[str, Any]", value))
            at = self._next(end)
        return Salvage(self._records, self._reason)

    def _value(self, at: int) -> tuple[Any, int]:
        try:
            return full_stack(lambda: _decode(self._text, at))
        except RecursionError:
            raise ValueError("nested too deep") from None

    def _next(self, at: int) -> int:
        """The place of what comes next, behind all that means nothing."""
        between = _BETWEEN.match(self._text, at)
        return between.end() if between else at

    def _behind(self, start: int, error: ValueError) -> int:
        """The place of the next whole record behind one that is damaged, or the line's end."""
        reason = str(error)
        if isinstance(error, json.JSONDecodeError):
            reason = f"no JSON: {error.msg} at character {error.pos}"
        self._note(reason)
        # Not only behind where the parser gave up: one that was cut where a value was to come
        # looks as if it held the next.
        place = start + 1
        while self._left > 0 and (found := _START.search(self._text, place)):
            if self._is_record(found.start()):
                return found.start()
            place = found.start() + 1
        return len(self._text)

    def _is_record(self, at: int) -> bool:
        """Whether a whole record begins here, and no part of one."""
        try:
            value, end = self._value(at)
        except ValueError as error:
            reached = error.pos if isinstance(error, json.JSONDecodeError) else len(self._text)
            # The error counts the lines before it, if at a quick pace.
            self._left -= max(reached - at, 1) + reached // 16
            return False
        self._left -= end - at
        record = cast("dict[str, Any]", value)
        if not isinstance(record.get("type"), str) or not any(map(record.__contains__, _NAMES)):
            return False
        behind = self._next(end)
        return behind == len(self._text) or self._text[behind] == "{"

    def _bytes_before(self, at: int) -> int:
        return len(self._text[:at].encode("utf-8", "surrogateescape"))

    def _note(self, reason: str) -> None:
        # The first one tells where the trouble begins.
        self._reason = self._reason or reason
