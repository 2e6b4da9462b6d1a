"""Work on a session that goes on after the call that began it, once per process and session."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from pymongo.errors import PyMongoError

from ..concurrency.cancellation import cancel_and_wait
from ..database.deadlines import started_without_deadline
from ..database.transactions import OutcomeUnknownError, TransientFailureError
from ..errors import SessionStoreError
from ..instruments.operations import measured_behind
from ..transcript_key import TranscriptKey
from .connection import Connection

logger = logging.getLogger("beanie_session_store.storage")

SessionWork = Callable[[Connection, TranscriptKey], Awaitable[object]]

_running: dict[tuple[Any, ...], asyncio.Task[None]] = {}
_until_closed: dict[asyncio.Task[None], int] = {}
"""What follows the server for as long as somebody wants it, with the ``id`` of its client."""


def go_on(connection: Connection, key: TranscriptKey, work: SessionWork) -> None:
    """Begin ``work``, unless it is under way here already.

    It may be cut off at any time: what it has not done, somebody else finds and does.
    """
    loop = asyncio.get_running_loop()
    name = (work, loop, id(connection.client), connection.summaries.collection.full_name, key)
    if name not in _running:
        task = _running[name] = started_without_deadline(_guarded(connection, key, work))
        task.add_done_callback(lambda _: _running.pop(name, None))


def stopped_with(client: object, task: asyncio.Task[None]) -> None:
    """Have a task cut off before a client of our own is closed, which it holds open cursors of."""
    _until_closed[task] = id(client)
    task.add_done_callback(_until_closed.pop)


async def stop(client: object) -> None:
    """Cut off what goes on with a client, before that is closed; transactions roll back."""
    tasks = [task for name, task in _running.items() if id(client) in name]
    tasks += [task for task, whose in _until_closed.items() if whose == id(client)]
    await cancel_and_wait(*tasks)


async def gone_on() -> None:
    """Wait for all such work of this event loop."""
    loop = asyncio.get_running_loop()
    while tasks := [task for task in _running.values() if task.get_loop() is loop]:
        await asyncio.gather(*tasks, return_exceptions=True)


async def _guarded(connection: Connection, key: TranscriptKey, work: SessionWork) -> None:
    try:
        # By what it is called: "follow", "sweep".
        with measured_behind(getattr(work, "__name__", "go_on"), key.session_id) as operation:
            operation.on_collection(connection.summaries.collection)
            await work(connection, key)
    except (PyMongoError, SessionStoreError, TransientFailureError, OutcomeUnknownError) as error:
        # Whoever comes to the session next goes on.
        logger.info("Left work on %s to the next one: %s", key, type(error).__name__)
