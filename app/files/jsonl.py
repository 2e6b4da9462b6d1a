"""Entries as lines of JSON, read and written in the agent's own form."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from ...models.packing import full_stack
from .damage import salvaged
from .lines import MAX_LINE_BYTES, as_utf8, lines

# What the SDK sends to a store at once.
BATCH_ENTRIES = 500
BATCH_BYTES = 1024 * 1024
_TOO_LONG = f"no JSON object, or longer than {MAX_LINE_BYTES} bytes"


@dataclass(frozen=True, slots=True)
class BrokenLine:
    """A line that is no transcript entry, or not as a whole."""

    path: Path
    number: int
    """From 1; 0 stands for a file that is no JSON Lines."""
    reason: str
    records: int = 0
    """How many whole records were found on it all the same, and read."""

    @property
    def where(self) -> str:
        """The file, and which line of it."""
        return f"{self.path}:{self.number}" if self.number else str(self.path)


@dataclass(frozen=True, slots=True)
class Batch:
    """Entries that follow one another, and the bytes they took in the file."""

    entries: list[dict[str, Any]]
    size: int


def batches(path: Path, on_broken: Callable[[BrokenLine], None]) -> Generator[Batch]:
    """The entries of a file in batches of at most 500, of about 1 MiB; blank lines are skipped.

    Raises:
        OSError: the file cannot be read.
    """
    entries: list[dict[str, Any]] = []
    size = 0
    with path.open("rb") as file:
        for number, (length, line) in enumerate(lines(file), 1):
            size += length
            if line is None:
                on_broken(BrokenLine(path, number, _TOO_LONG))
            elif line.strip():
                try:
                    entries.append(parse_object(line))
                except ValueError as error:
                    entries += _salvaged(path, number, line, error, on_broken)
            if len(entries) >= BATCH_ENTRIES or size >= BATCH_BYTES:
                yield Batch(entries, size)
                entries, size = [], 0
    if entries or size:
        yield Batch(entries, size)


def _salvaged(
    path: Path,
    number: int,
    line: bytes,
    error: ValueError,
    on_broken: Callable[[BrokenLine], None],
) -> list[dict[str, Any]]:
    """What a line holds that is no record by itself."""
    found = salvaged(line)
    if found.reason is not None or not found.records:
        is_cut = not line.endswith((b"\n", b"\r"))
        hint = " (the file ends here, perhaps in the middle of a write)"
        reason = f"{found.reason or error}{hint if is_cut else ''}"
        on_broken(BrokenLine(path, number, reason, len(found.records)))
    return found.records


def read_sidecar(path: Path, on_broken: Callable[[BrokenLine], None]) -> dict[str, Any] | None:
    """The JSON object in a file; ``None`` where it holds none.

    Raises:
        OSError: the file cannot be read.
    """
    try:
        # A byte order mark or NULs around it are no part of it.
        return parse_object(as_utf8(path.read_bytes()).strip(b"\0"))
    except ValueError as error:
        on_broken(BrokenLine(path, 0, str(error)))
        return None


def parse_object(data: bytes) -> dict[str, Any]:
    """The JSON object that some bytes hold.

    Raises:
        ValueError: they hold none; says why.
    """
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"no UTF-8 at byte {error.start}") from None
    try:
        value = full_stack(lambda: json.loads(text))
    except RecursionError:
        raise ValueError("nested too deep") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"no JSON: {error.msg} at character {error.pos}") from None
    except ValueError as error:
        raise ValueError(f"no JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"JSON, but no object: {type(value).__name__}")
    return cast("dict[str, Any]", value)


def json_line(entry: Mapping[str, Any]) -> bytes:
    """An entry as the agent writes it, without the newline."""

    def text() -> str:
        return json.dumps(entry, ensure_ascii=False, separators=(",", ":"))

    # Half an emoji has no UTF-8; JSON writes it with a backslash, and so does the agent.
    return full_stack(text).encode("utf-8", "backslashreplace")
