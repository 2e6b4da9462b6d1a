"""The page of a session, and all that is below it."""

from __future__ import annotations

from starlette.responses import Response

from . import entry_routes, export_routes
from .responses import fragment, html
from .session_page import session_page, window_of
from .session_view import SESSION_PATH, SessionQuery, SessionView
from .viewer import PageRoute, Viewer


async def window(viewer: Viewer) -> Response:
    """A window alone, as the script puts it into the page."""
    asked = SessionQuery.of(viewer.request.query_params)
    view = await SessionView.of(viewer)
    found, seams = await window_of(view, asked)
    return html(fragment(viewer, "window.html", window=found, seams=seams))


routes: list[PageRoute] = [
    PageRoute(SESSION_PATH, session_page),
    PageRoute(f"{SESSION_PATH}/window", window),
    *entry_routes.routes,
    *export_routes.routes,
]
