"""A chart for a terminal: a bar for each period, of one part for each series."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

from ...text import line

_COLOURS = ("cyan", "magenta", "yellow", "green", "blue", "red", "white")
_SHADES = "█▓▒░▚◆·"
_ASCII = "#=+:%o."
_OTHERS = "others"
_NAME = 32


@dataclass(frozen=True, slots=True)
class Bar:
    """What one period has of each series."""

    label: str
    parts: Mapping[str, float]

    @property
    def size(self) -> float:
        """All of it together."""
        return sum(self.parts.values())


def print_chart(
    out: Console, title: str, bars: Sequence[Bar], written: Callable[[float], str]
) -> None:
    """Print bars below each other, as wide as the terminal; ``written`` spells their sizes."""
    bars, names = _fewer(bars)
    marks = _marks(out, len(names))
    labels = max(len(bar.label) for bar in bars)
    sizes = [written(bar.size) for bar in bars]
    room = max(out.width - labels - max(map(len, sizes)) - 4, 1)
    largest = max(bar.size for bar in bars)
    out.print(Text(title, style="bold"))
    for bar, size in zip(bars, sizes, strict=True):
        text = Text(f"{bar.label:<{labels}}  ")
        begin, end = 0.0, 0.0
        for name, (mark, style) in zip(names, marks, strict=True):
            begin, end = end, end + bar.parts.get(name, 0.0)
            # Both ends are rounded, so that the bar as a whole is as long as it should be.
            cells = round(end / largest * room) - round(begin / largest * room)
            text.append(mark * cells, style=style)
        text.append(f" {size}" if bar.size else "")
        text.rstrip()
        out.print(text, no_wrap=True, overflow="crop")
    if len(names) > 1:
        for name, (mark, style) in zip(names, marks, strict=True):
            total = written(sum(bar.parts.get(name, 0.0) for bar in bars))
            out.print(Text(mark * 2, style=style), Text(f"{line(name, _NAME)}  {total}"))


def _fewer(bars: Sequence[Bar]) -> tuple[list[Bar], list[str]]:
    """The bars with the smallest series put together, so that there is a colour for each."""
    totals: dict[str, float] = {}
    for bar in bars:
        for name, size in bar.parts.items():
            totals[name] = totals.get(name, 0.0) + size
    names = sorted(totals, key=lambda name: -totals[name])
    if len(names) <= len(_COLOURS):
        return list(bars), names
    shown = names[: len(_COLOURS) - 1]
    merged = [
        Bar(
            bar.label,
            {
                **{name: bar.parts.get(name, 0.0) for name in shown},
                _OTHERS: sum(size for name, size in bar.parts.items() if name not in shown),
            },
        )
        for bar in bars
    ]
    return merged, [*shown, _OTHERS]


def _marks(out: Console, count: int) -> list[tuple[str, str]]:
    """The character and the style of each series; without colours the characters differ."""
    shades = _SHADES if out.encoding.startswith("utf") else _ASCII
    if out.color_system is None:
        return [(shade, "") for shade in shades[:count]]
    return [(shades[0], colour) for colour in _COLOURS[:count]]
