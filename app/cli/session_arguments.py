"""Sessions named on the command line that something is done to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .confirm import is_anybody_there

if TYPE_CHECKING:
    from ..reading.listings import SessionListing
    from ..store import BeanieSessionStore


async def session_to_change(
    store: BeanieSessionStore, name: str, project: str | None, *, yes: bool = False
) -> SessionListing:
    """The session of that id, or on a terminal the one whose id begins so.

    A script that runs twice would else come to the next session once the first is gone.

    Raises:
        UnknownSessionError, AmbiguousSessionError: as for ``session_named``.
    """
    is_whole = yes or not is_anybody_there()
    return await store.session_named(name, project, whole_id=is_whole)
