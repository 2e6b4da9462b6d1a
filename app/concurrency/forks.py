"""Whether this process is a fork, and what it was forked from: looked at when it happens, once."""

from __future__ import annotations

import asyncio
import os

count: int = 0
"""How many forks lie between the process that imported this and the one that runs."""

was_in_loop: bool = False
"""Whether the fork was made inside a running event loop, which does not run on in it."""


def _before() -> None:
    global _is_in_loop
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        _is_in_loop = False
    else:
        _is_in_loop = True


def _after() -> None:
    global count, was_in_loop
    count += 1
    was_in_loop = _is_in_loop


_is_in_loop = False

if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_child=_after)
