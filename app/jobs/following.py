"""Importing what the agent writes to disk, as it writes it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from ..errors import SessionStoreError
from ..files.layout import SessionFiles, find_sessions
from ..store import BeanieSessionStore
from .imports import import_transcripts
from .report import OnProblem, OnProgress

ROUND_SECONDS = 2.0
"""How often one looks for what came."""

Sizes = dict[tuple[str, str], int]


async def follow_transcripts(
    store: BeanieSessionStore,
    path: Path,
    *,
    on_progress: OnProgress | None = None,
    on_problem: OnProblem | None = None,
    on_done: Callable[[], None] | None = None,
    on_failure: Callable[[Exception], None] | None = None,
) -> None:
    """Import what is at a path, and then whatever sessions grow there, until it is cancelled.

    Args:
        store: where to.
        path: as for :func:`import_transcripts`.
        on_progress: as there, of the first import.
        on_problem: as there, of the first import: what is broken is told of once.
        on_done: called once the first import is done.
        on_failure: called with each error that ended a round; the next one begins soon.

    Raises:
        TransferError: there is nothing to import at the path, from the start.
        OSError: the folder cannot be read, from the start.
    """
    known = _sizes(await asyncio.to_thread(_found, path))
    while True:
        try:
            await import_transcripts(store, path, on_progress=on_progress, on_problem=on_problem)
            break
        except SessionStoreError as error:
            _tell(on_failure, error)
            await asyncio.sleep(ROUND_SECONDS)
    if on_done is not None:
        on_done()
    while True:
        await asyncio.sleep(ROUND_SECONDS)
        try:
            found = await asyncio.to_thread(_found, path)
            grown = [each for each in found if known.get(_name(each)) != each.size]
            files = [file for each in grown if (file := _a_file_of(each)) is not None]
            # What could not be read, for it was being moved say, is looked at again.
            if not files or not (await import_transcripts(store, *files)).failed:
                known = _sizes(found)
        except (SessionStoreError, OSError) as error:
            _tell(on_failure, error)


def _found(path: Path) -> list[SessionFiles]:
    return list(find_sessions(path, lambda _: None))


def _name(session: SessionFiles) -> tuple[str, str]:
    return session.project_key, session.session_id


def _sizes(found: list[SessionFiles]) -> Sizes:
    return {_name(each): each.size for each in found}


def _a_file_of(session: SessionFiles) -> Path | None:
    """The file that names the session with all of its transcripts, or one of a subagent's."""
    return next((each.lines for each in session.transcripts if each.lines is not None), None)


def _tell(on_failure: Callable[[Exception], None] | None, error: Exception) -> None:
    if on_failure is not None:
        on_failure(error)
