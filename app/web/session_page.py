"""The page of one session: its head, the table of turns, and a window of the conversation."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

from starlette.responses import RedirectResponse, Response

from ..transcripts.outline import Outline, OutlinedSubagent, used
from .costs import Cost, cost_of
from .finding import SEARCHES, FoundInSession, find
from .kept import Kept
from .piece_markup import PieceAddresses
from .refusals import no_such_session
from .responses import page
from .session_view import SessionQuery, SessionView
from .turn_figures import cost_of_tokens, lanes_of, last_context
from .turns_table import turns_shown
from .viewer import Viewer
from .windows import IN_PLACE, Window, WindowMaker

_BEFORE = 20
_MAX_STRAYS = 100

_KEPT_SECONDS = 60
_FOUND = Kept[Hashable, FoundInSession](_KEPT_SECONDS, 16, lambda found: 1)


async def session_page(viewer: Viewer) -> Response:
    """A session.

    Raises:
        Refused: 404, there is no such session.
        SessionStoreError: as for the store.
    """
    asked = SessionQuery.of(viewer.request.query_params)
    view = await SessionView.of(
        viewer, is_awaited=asked.turns_from is not None or asked.turn is not None
    )
    found = await _find(view, asked) if asked.find else None
    links, key = viewer.links, view.key
    if found is not None and found.hits:
        number = min(max(asked.hit or 1, 1), len(found.hits))
        if asked.hit != number:
            return RedirectResponse(found.address(links, key, number), 303)
        return await _shown(view, asked, found, at=found.hits[number - 1].seq)
    at = asked.at
    if asked.turn is not None and view.outline is not None:
        turn = view.outline.turn_numbered(asked.turn)
        at = turn.first if turn is not None else None
    return await _shown(view, asked, found, at=at)


async def _find(view: SessionView, asked: SessionQuery) -> FoundInSession:
    """What is found, once for all the hits that one goes through."""
    summary = view.summary
    name = (view.reader.key, summary.id, summary.next_seq, view.outline is None, asked.find.words)
    key = (*name, asked.search, asyncio.get_running_loop())
    found = _FOUND.get(key)
    if found is None:
        found = await find(view.reader, view.outline, asked.find, asked.search)
        _FOUND.put(key, found)
    return found


async def _shown(
    view: SessionView, asked: SessionQuery, found: FoundInSession | None, at: int | None
) -> Response:
    """The page with the window that holds a position, or is asked for otherwise."""
    viewer, outline = view.viewer, view.outline
    subpath, here = asked.subpath, at
    if at is not None:
        place = await view.reader.place_of(at)
        if place is None:
            at = here = None
        elif place != subpath:
            above = _in_place(outline, place)
            if subpath == "" and above is not None:
                at = above
            else:
                subpath = place

    def is_here(seq: int) -> bool:
        return seq == here

    maker = view.maker(
        found=asked.find,
        here=here,
        is_open=is_here,
    )
    window = await _window(view, maker, asked, at, subpath)
    if subpath and not window.first:
        raise no_such_session()
    agent = outline.subagents.get(subpath) if outline is not None else None
    strays = _strays(view) if not subpath and window.next is None else []
    return page(
        viewer,
        "session.html",
        **head_of(view, subpath),
        view=view,
        window=window,
        seams=_seams(view, window, subpath),
        asked=asked,
        subpath=subpath,
        agent=agent,
        agent_at=outline.above(subpath) if outline is not None and subpath else None,
        found=found,
        strays=strays[:_MAX_STRAYS],
        more_strays=len(strays[_MAX_STRAYS:]),
        here=here,
        searches=SEARCHES,
        turns=turns_shown(view, asked, window),
    )


def _strays(view: SessionView) -> list[tuple[OutlinedSubagent, str]]:
    """The subagents that stand under no call, each with its own page."""
    outline = view.outline
    if outline is None:
        return []
    addresses = PieceAddresses(view.viewer.links, view.key)
    return [
        (agent, addresses.subagent_page(subpath))
        for subpath, agent in outline.subagents.items()
        if outline.above(subpath) is None
    ]


def _in_place(outline: Outline | None, subpath: str) -> int | None:
    """Where in the main transcript a subagent's entries are shown whole."""
    agent = outline.subagents.get(subpath) if outline is not None else None
    if outline is None or agent is None or agent.entries >= IN_PLACE:
        return None
    caller = outline.caller_of(subpath)
    return caller[0] if caller is not None and not caller[1] else None


async def _window(
    view: SessionView, maker: WindowMaker, asked: SessionQuery, at: int | None, subpath: str
) -> Window:
    if at is not None:
        return await maker.window(at, subpath=subpath, shift=_BEFORE)
    if asked.to is not None:
        return await maker.window(asked.to, subpath=subpath, backwards=True)
    if asked.first is not None:
        return await maker.window(asked.first, subpath=subpath)
    if view.is_live:
        return await maker.window(view.last, subpath=subpath, backwards=True)
    return await maker.window(0, subpath=subpath)


async def window_of(
    view: SessionView, asked: SessionQuery
) -> tuple[Window, dict[str, Seam | None]]:
    """The window that is asked for by its begin or its end, without the page around it."""
    maker = view.maker(found=asked.find)
    window = await _window(view, maker, asked, None, asked.subpath)
    return window, _seams(view, window, asked.subpath)


@dataclass(frozen=True, slots=True)
class Seam:
    """Where the window ends and the session does not."""

    words: str
    href: str
    fragment: str
    """Where the script finds what belongs there."""


def _seams(view: SessionView, window: Window, subpath: str) -> dict[str, Seam | None]:
    links, key = view.viewer.links, view.key
    inside = subpath.removeprefix("subagents/")

    def seam(words: str, name: str, seq: int) -> Seam:
        query = [(name, seq), ("in", inside)]
        return Seam(words, links.session(key, query), links.within(key, "window", query))

    before = after = None
    if window.previous is not None:
        before = seam(f"Entries up to {window.previous:,} are not loaded.", "to", window.previous)
    if window.next is not None:
        after = seam(f"Entries from {window.next:,} on are not loaded.", "from", window.next)
    itself = seam(
        f"Entries {window.first:,} to {window.last:,} are not loaded.", "from", window.first
    )
    return {"before": before, "after": after, "itself": itself}


def head_of(view: SessionView, subpath: str = "") -> dict[str, Any]:
    """What the head of the page says, in figures, and its downloads."""
    totals, outline = view.summary.totals, view.outline
    usage, prices = totals.usage, view.viewer.store.prices
    agents = Cost()
    if outline is not None:
        for each in outline.subagents.values():
            agents += cost_of_tokens(used(each), each.at, prices)
    failure = outline.first_failure if outline is not None else None
    links, key = view.viewer.links, view.key
    return {
        "title": view.title,
        "counted": totals.is_counted,
        "calls": sum(row.calls for row in totals.tools),
        "failures": sum(row.errors for row in totals.tools),
        "first_failure": links.entry(key, failure) if failure is not None else None,
        "tokens": sum(r.input + r.output + r.cache_creation + r.cache_read for r in usage),
        "cached": sum(row.cache_read for row in usage),
        "cost": cost_of(totals),
        "agents_cost": agents,
        "lanes": lanes_of(outline, prices) if outline is not None else None,
        "context_now": last_context(outline.turns) if outline is not None else 0,
        "exports": [
            ("Markdown", links.within(key, "export.md")),
            ("HTML, one file", links.within(key, "export.html")),
            (
                "JSON Lines, as stored" + (", of this subagent" if subpath else ""),
                links.within(key, "export.jsonl", [("in", subpath.removeprefix("subagents/"))]),
            ),
        ],
    }
