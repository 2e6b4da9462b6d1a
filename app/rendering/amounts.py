"""Amounts as people read them: counts with their noun, bytes, seconds."""

from __future__ import annotations

_UNITS = ("bytes", "kB", "MB", "GB")


def counted(number: int, noun: str) -> str:
    """A count and its noun: ``1 line``, ``2,041 lines``, ``3 matches``."""
    ending = "" if number == 1 else "es" if noun.endswith(("ch", "s")) else "s"
    return f"{number:,} {noun}{ending}"


def byte_size(size: float) -> str:
    """Bytes: ``812 bytes``, ``41 kB``, ``1.1 MB``."""
    unit = 0
    while size >= 999.5 and unit < len(_UNITS) - 1:
        size /= 1000
        unit += 1
    digits = 1 if unit > 1 and size < 99.5 else 0
    return f"{size:.{digits}f} {_UNITS[unit]}"


def seconds(took: float) -> str:
    """A duration: ``0.4 s``, ``41 s``, ``9 min 40 s``, ``2 h 5 min``."""
    if took < 9.95:
        return f"{max(took, 0):.1f} s"
    whole = round(took)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes} min" if minutes else f"{hours:,} h"
