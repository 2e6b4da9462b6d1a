"""Work that outlives its caller's ``pymongo.timeout``.

A task takes over the variables of whoever starts it, the driver's deadline among them. What goes on
behind the call, or is done for others too, would fail for ever once that has passed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import Context, copy_context
from typing import Any, TypeVar

import pymongo

T = TypeVar("T")


def started_without_deadline(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """A task with all that its caller's context holds, but for the driver's deadline."""
    deadline = Context()
    deadline.run(pymongo.timeout(1).__enter__)
    context = Context()
    for variable, value in copy_context().items():
        if variable not in deadline:
            context.run(variable.set, value)
    return context.run(asyncio.get_running_loop().create_task, work)
