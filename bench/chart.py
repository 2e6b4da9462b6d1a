"""The results as one SVG of bars, legible on light and on dark pages."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

from .measures import Samples
from .results import Chart

_WIDTH = 760
_NAMES = 150
_VALUES = 90
_BAR, _GAP = 15, 5
_TITLE, _GROUP = 34, 22

_STYLE = """
text { font: 12px system-ui, sans-serif; fill: #1f2328; }
.title { font-size: 14px; font-weight: 600; }
.group { fill: #59636e; }
.bar { fill: #9aa4b2; }
.ours { fill: #1a7f37; }
.spread { stroke: #1f2328; stroke-width: 1; opacity: .55; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; }
  .group { fill: #9198a1; }
  .bar { fill: #59636e; }
  .ours { fill: #3fb950; }
  .spread { stroke: #e6edf3; }
}
"""


def svg(charts: Sequence[Chart], ours: str) -> str:
    """The charts one below the other; bars are medians, thin lines reach from p10 to p90."""
    parts: list[str] = []
    y = 8
    for chart in charts:
        y = _draw(parts, chart, ours, y)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y + 8}" '
        f'width="{_WIDTH}" height="{y + 8}" role="img">'
    )
    label = "<title>Benchmark results: medians, and p10 to p90</title>"
    return "\n".join([head, label, f"<style>{_STYLE}</style>", *parts, "</svg>", ""])


def _draw(parts: list[str], chart: Chart, ours: str, y: int) -> int:
    y += 22
    parts.append(_text(8, y, f"{chart.title}, {chart.unit}", "title"))
    y += _TITLE - 22
    medians = [each.median for group in chart.groups.values() for each in group.values()]
    scale = (_WIDTH - _NAMES - _VALUES) / max(medians)
    for name, group in chart.groups.items():
        if name:
            y += _GROUP
            parts.append(_text(8, y - 7, name, "group"))
        for contender, samples in group.items():
            _draw_bar(parts, contender, samples, scale, y, contender == ours)
            y += _BAR + _GAP
    return y


def _draw_bar(
    parts: list[str], name: str, samples: Samples, scale: float, y: int, is_ours: bool
) -> None:
    middle = y + _BAR / 2
    width = samples.median * scale
    kind = "bar ours" if is_ours else "bar"
    parts.append(_text(_NAMES - 8, y + 12, name, "", "end"))
    parts.append(
        f'<rect class="{kind}" x="{_NAMES}" y="{y}" width="{width:.1f}" height="{_BAR}" rx="2"/>'
    )
    edge = _WIDTH - _VALUES
    low = min(_NAMES + samples.percentile(10) * scale, edge)
    high = min(_NAMES + samples.percentile(90) * scale, edge)
    if high > low:
        parts.append(
            f'<line class="spread" x1="{low:.1f}" x2="{high:.1f}" y1="{middle}" y2="{middle}"/>'
        )
    value = samples.median
    label = f"{value:,.0f}" if value >= 100 else f"{value:.1f}"
    parts.append(_text(max(_NAMES + width, high) + 6, y + 12, label, ""))


def _text(x: float, y: float, text: str, kind: str, anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'
