"""The page of a session, and all that is below it."""

from __future__ import annotations

from .viewer import PageRoute

routes: list[PageRoute] = []
