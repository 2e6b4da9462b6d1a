"""Pages to look at sessions with, to mount in an application of a team.

Ask for them where the application is made; they never load by themselves::

    from beanie_session_store.web import Access, session_pages

    app.mount("/sessions", session_pages(access))

``access`` is the team's own function: it says for each request whose sessions may be seen, and
whether what was said in them, too.
"""

try:
    import jinja2  # noqa: F401  # pyright: ignore[reportUnusedImport]
    import starlette  # noqa: F401  # pyright: ignore[reportUnusedImport]
except ModuleNotFoundError as missing:
    raise ImportError(
        f"beanie_session_store.web needs {missing.name}, which is not installed. Install it with "
        "`pip install 'beanie-session-store[web]'`."
    ) from missing

from .app.web.access import Access, AskAccess
from .app.web.application import session_pages

__all__ = ["Access", "AskAccess", "session_pages"]
