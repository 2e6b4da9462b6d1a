"""Texts that are shown: a transcript's, without what a terminal trips over, and a caller's."""

from __future__ import annotations

# The escape sequences in a tool's output would otherwise run where the page is printed.
_VISIBLE = {0x7F: 0x2421, **{code: 0x2400 + code for code in range(32) if code not in b"\t\n"}}
# To some programs they end a line, to others not: what stood within one would then begin one.
_SEPARATORS = {0x2028: 0x2424, 0x2029: 0x2424}
# Half an emoji has no UTF-8. The others turn the order of what follows around.
_TURNING = (*range(0x202A, 0x202F), *range(0x2066, 0x206A))
_REPLACED = (*range(0x80, 0xA0), *range(0xD800, 0xE000), *_TURNING)
_TABLE = _VISIBLE | _SEPARATORS | dict.fromkeys(_REPLACED, 0xFFFD)


def plain(text: str) -> str:
    """The text with control characters made visible."""
    return text.replace("\r\n", "\n").translate(_TABLE)


def line(text: str, length: int | None = 200) -> str:
    """The beginning of the text, or with ``None`` all of it, as one line."""
    joined = " ".join(plain(text if length is None else text[: 4 * length]).split())
    if length is None or len(joined) <= length:
        return joined
    return joined[: length - 3] + "..."


def shown(value: object, length: int = 60) -> str:
    """The beginning of its representation, or its type where it has none.

    An integer of more than 4,300 digits has none, nor has what holds itself or was half made.
    """
    try:
        return repr(value)[:length]
    except Exception:
        return f"something of type {type(value).__name__}"
