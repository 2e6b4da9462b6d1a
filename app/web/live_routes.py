"""What changes while one looks, as server-sent events."""

from __future__ import annotations

from .viewer import PageRoute

routes: list[PageRoute] = []
