"""Usage and cost, as charts, tables and CSV."""

from __future__ import annotations

from starlette.responses import Response

from .responses import page
from .viewer import PageRoute, Viewer


async def figures(viewer: Viewer) -> Response:
    """Usage and cost."""
    return page(viewer, "figures.html")


routes = [PageRoute("/figures", figures, reads_contents=False)]
