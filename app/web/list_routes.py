"""The list of sessions, and what was said in them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from http import HTTPStatus
from itertools import groupby
from typing import Any

from starlette.responses import RedirectResponse, Response

from ..errors import SchemaOutdatedError
from .list_filters import PERIODS, Filter, ListFilters, who_parameter
from .responses import page
from .search_hits import hits_of
from .session_rows import SessionRow
from .viewer import PageRoute, Viewer
from .wording import day

_ON_A_PAGE = 50
# More than one chooses from without reading.
_MOST_PROJECTS = 200


async def sessions(viewer: Viewer) -> Response:
    """The latest sessions that meet the conditions, or what was said in them."""
    wanted = ListFilters.of(viewer)
    if list(viewer.request.query_params.multi_items()) != wanted.query:
        # A form writes every field, and equal lists are to have equal addresses.
        return RedirectResponse(viewer.links.sessions(wanted.query), HTTPStatus.SEE_OTHER)
    if not viewer.access.contents:
        return await _as_figures(viewer, wanted)
    now = datetime.now(timezone.utc)
    context: dict[str, Any] = {**_context(viewer, wanted), "projects": await _projects(viewer)}
    if wanted.said:
        try:
            hits, are_more = await hits_of(viewer, wanted, now)
        except SchemaOutdatedError:
            return page(viewer, "search_off.html", **context)
        return page(viewer, "hits.html", hits=hits, are_more=are_more, **context)
    found = await viewer.store.sessions(
        *wanted.criteria(), **wanted.arguments(now), limit=_ON_A_PAGE, after=wanted.after or None
    )
    rows = [SessionRow.of(each, viewer.who, now) for each in found.sessions]
    return page(
        viewer,
        "sessions.html",
        days=_by_day(rows, now),
        count=len(rows),
        cursor=found.cursor,
        excluding=[] if rows else await _excluding(viewer, wanted, now),
        **context,
    )


async def _as_figures(viewer: Viewer, wanted: ListFilters) -> Response:
    """The list for who may not see what was said; none of that leaves the database."""
    now = datetime.now(timezone.utc)
    found = await viewer.store.sessions(
        *wanted.criteria(),
        **wanted.arguments(now),
        limit=_ON_A_PAGE,
        after=wanted.after or None,
        figures_only=True,
    )
    rows = [SessionRow.of(each, viewer.who, now) for each in found.sessions]
    return page(
        viewer,
        "sessions_figures.html",
        days=_by_day(rows, now),
        count=len(rows),
        cursor=found.cursor,
        excluding=[] if rows else await _excluding(viewer, wanted, now),
        projects=await _projects(viewer),
        **_context(viewer, wanted),
    )


def _context(viewer: Viewer, wanted: ListFilters) -> dict[str, Any]:
    return {
        "wanted": wanted,
        "periods": PERIODS,
        "who_parameter": viewer.who and who_parameter(viewer.who),
    }


async def _projects(viewer: Viewer) -> Sequence[str]:
    """The projects to choose from; none where there are too many."""
    found = await viewer.store.projects()
    return found if len(found) <= _MOST_PROJECTS else ()


async def _excluding(viewer: Viewer, wanted: ListFilters, now: datetime) -> list[Filter]:
    """The conditions each of which alone leaves nothing."""
    found: list[Filter] = []
    for each in wanted.in_use if len(wanted.in_use) > 1 else ():
        others = wanted.without(each.name)
        some = await viewer.store.sessions(
            *others.criteria(), **others.arguments(now), limit=1, figures_only=True
        )
        if some.sessions:
            found.append(each)
    return found


def _by_day(rows: Sequence[SessionRow], now: datetime) -> list[tuple[str, list[SessionRow]]]:
    """The rows under their days (UTC), the latest first."""
    # What was imported at once is all equally recent to the store, but not to people.
    last = sorted(rows, key=lambda row: row.at or now, reverse=True)
    grouped = groupby(last, lambda row: "" if row.at is None else day(row.at, now))
    return [(heading, list(each)) for heading, each in grouped]


routes = [PageRoute("/", sessions, reads_contents=False)]
