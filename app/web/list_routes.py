"""The list of sessions."""

from __future__ import annotations

from starlette.responses import Response

from .responses import page
from .viewer import PageRoute, Viewer


async def sessions(viewer: Viewer) -> Response:
    """The latest sessions."""
    found = await viewer.store.sessions()
    return page(viewer, "sessions.html", sessions=found.sessions)


routes = [PageRoute("/", sessions, reads_contents=False)]
