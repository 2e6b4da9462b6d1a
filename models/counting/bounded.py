"""Values of entries as a summary keeps them: within bounds, and nothing where they do not fit."""

from __future__ import annotations

MAX_TEXT = 200
"""Longest title, prompt, branch, directory or tag on a summary, in characters."""

OTHER = "(other)"
"""Stands for the models and tools beyond what a summary has room for."""

_MAX_NAME = 128
"""Bytes of UTF-8."""
# Sums of what lies below stay in what BSON holds.
_MAX_COUNT = 2**36
_MAX_NUMBER = 1e15


def bounded_count(value: object) -> int:
    """A count; 0 where it is none."""
    return value if type(value) is int and 0 <= value < _MAX_COUNT else 0


def bounded_number(value: object) -> float | None:
    """A number; ``None`` where it is none."""
    is_number = type(value) is float or type(value) is int
    # Comparing first: an integer may be too large for a float, and NaN is below nothing.
    return float(value) if is_number and abs(value) < _MAX_NUMBER else None  # pyright: ignore[reportArgumentType]


def bounded_name(value: str) -> str:
    """The beginning of a name, of a model or tool say."""
    if value.isascii():
        return value[:_MAX_NAME]
    return _storable(value[:_MAX_NAME]).encode()[:_MAX_NAME].decode(errors="ignore")


def bounded_text(value: str) -> str:
    """The beginning of a text."""
    return _storable(value[:MAX_TEXT])


def bytes_of(text: str) -> int:
    """What a text takes in BSON, without what is around it."""
    return len(text) if text.isascii() else len(text.encode())


def _storable(value: str) -> str:
    # BSON has no lone surrogates.
    return value if value.isascii() else value.encode("utf-8", "replace").decode()
