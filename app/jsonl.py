"""Entries as lines of JSON, read and written in the agent's own form."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from ..models.packing import full_stack

# What the SDK sends to a store at once.
BATCH_ENTRIES = 500
BATCH_BYTES = 1024 * 1024
# A damaged file may have no newline for the rest of the disk.
_MAX_LINE_BYTES = 256 * 1024 * 1024
_PIECE_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class BrokenLine:
    """A line that is no transcript entry."""

    path: Path
    number: int
    """From 1; 0 stands for a file that is no JSON Lines."""
    reason: str

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
        for number, (length, line) in enumerate(_lines(file), 1):
            size += length
            if line is None:
                reason = f"no JSON object, or longer than {_MAX_LINE_BYTES} bytes"
                on_broken(BrokenLine(path, number, reason))
            elif line.strip():
                try:
                    entries.append(parse_object(line))
                except ValueError as error:
                    is_cut = not line.endswith(b"\n")
                    hint = " (the file ends here, perhaps in the middle of a write)"
                    reason = f"{error}{hint if is_cut else ''}"
                    on_broken(BrokenLine(path, number, reason))
            if len(entries) >= BATCH_ENTRIES or size >= BATCH_BYTES:
                yield Batch(entries, size)
                entries, size = [], 0
    if entries or size:
        yield Batch(entries, size)


def _lines(file: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
    """The length of each line, and the line; ``None`` of a long one that can be no entry.

    Lines end at newlines alone: JSON may hold the other separators of Unicode as they are.
    """
    while piece := file.readline(_PIECE_BYTES):
        if piece.endswith(b"\n") or len(piece) < _PIECE_BYTES:
            yield len(piece), piece
            continue
        length = len(piece)
        parts = [piece] if piece.lstrip().startswith(b"{") else None
        while rest := file.readline(_PIECE_BYTES):
            length += len(rest)
            if parts is not None:
                parts.append(rest)
            if length > _MAX_LINE_BYTES:
                parts = None
            if rest.endswith(b"\n"):
                break
        yield length, None if parts is None else b"".join(parts)


def read_sidecar(path: Path, on_broken: Callable[[BrokenLine], None]) -> dict[str, Any] | None:
    """The JSON object in a file; ``None`` where it holds none.

    Raises:
        OSError: the file cannot be read.
    """
    try:
        return parse_object(path.read_bytes())
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
