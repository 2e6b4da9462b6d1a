"""How long tests wait for what must come."""

from __future__ import annotations

WATCHDOG_SECONDS = 240
"""Tells a hang from a busy machine, and nothing else: no promise is about so long a time."""
