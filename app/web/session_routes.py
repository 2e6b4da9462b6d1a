"""The page of a session, and all that is below it."""

from __future__ import annotations

from starlette.responses import Response

from . import entry_routes, export_routes
from .responses import fragment, html
from .session_page import Asked, SessionView, session_page, window_of
from .viewer import PageRoute, Viewer


async def window(viewer: Viewer) -> Response:
    """A window alone, as the script puts it into the page."""
    asked = Asked.of(viewer.request.query_params)
    view = await SessionView.of(viewer)
    found, seams = await window_of(view, asked)
    return html(fragment(viewer, "window.html", window=found, seams=seams))


_SESSION = "/s/{project}/{session}"

routes: list[PageRoute] = [
    PageRoute(_SESSION, session_page),
    PageRoute(f"{_SESSION}/window", window),
    *entry_routes.routes,
    *export_routes.routes,
]
