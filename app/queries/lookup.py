"""A session named by the beginning of its id, as people name commits."""

from __future__ import annotations

from typing import Any

from ..database.reads import retried
from ..errors import AmbiguousSessionError, UnknownSessionError
from ..reading.listings import ListedRow, SessionListing, listed_rows, listing_of
from ..storage.connection import Connection
from ..storage.criteria import BY_KEY, NOT_EXPIRED
from ..text import line
from ..transcript_key import checked_name
from .prefixes import beginning_with

_CANDIDATES = 4


async def session_named(
    connection: Connection, tenant: str, name: str, project_key: str | None, whole_id: bool
) -> SessionListing:
    """The one session of the tenant whose id is ``name``, or else begins with it.

    With ``whole_id`` the beginning of an id is none.

    Raises:
        InvalidKeyError: the name or the project key is none.
        UnknownSessionError: there is no such session.
        AmbiguousSessionError: there are several.
    """
    query: dict[str, Any] = {"tenant": tenant}
    if project_key is not None:
        query["project_key"] = checked_name("project_key", project_key)
    begin = checked_name("the name of a session", name)
    beginnings = beginning_with(begin)
    found: list[SessionListing] = []
    for ids in (begin, beginnings):
        found = await _found(connection, {**query, "session_id": ids})
        if found and whole_id and ids is beginnings:
            break
        if len(found) > 1:
            raise _ambiguous(name, tenant, found)
        if found:
            return found[0]
    where = "" if project_key is None else f" in project {line(project_key)}"
    others = (
        f". The id {line(found[0].session_id)} begins so, but only a whole id is taken here"
        if found
        else ", and none whose id begins so"
    )
    raise UnknownSessionError(
        f"There is no session {line(name)} of tenant {line(tenant)}{where}{others}. List the "
        "sessions to see which there are, or name another tenant or project."
    )


async def _found(connection: Connection, query: dict[str, Any]) -> list[SessionListing]:
    async def attempt() -> list[ListedRow]:
        found = connection.summaries.find(
            query,
            NOT_EXPIRED,
            rows=listed_rows(connection),
            # In the order of the index that has the ids, which is how the server comes to use it.
            sort=BY_KEY,
            limit=_CANDIDATES + 1,
        )
        return await found.to_list()

    return [await listing_of(connection, row) for row in await retried(connection.client, attempt)]


def _ambiguous(name: str, tenant: str, found: list[SessionListing]) -> AmbiguousSessionError:
    several = len({listing.session_id for listing in found}) > 1
    shown = [
        f"{line(listing.session_id)} (project {line(listing.project_key)})"
        for listing in found[:_CANDIDATES]
    ]
    more = ", and more" if len(found) > _CANDIDATES else ""
    advice = "Give more of the id" if several else "Name the project too"
    return AmbiguousSessionError(
        f"Several sessions of tenant {line(tenant)} are named {line(name)}: "
        f"{', '.join(shown)}{more}. {advice}."
    )
