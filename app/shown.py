"""What a caller gave, as an error of ours shows it."""

from __future__ import annotations


def shown(value: object, length: int = 60) -> str:
    """The beginning of its representation, or its type where it has none.

    An integer of more than 4,300 digits has none, nor has what holds itself or was half made.
    """
    try:
        return repr(value)[:length]
    except Exception:
        return f"something of type {type(value).__name__}"
