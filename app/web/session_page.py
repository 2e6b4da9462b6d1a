"""The page of one session: its head, the table of turns, and a window of the conversation."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any, Final

from starlette.responses import RedirectResponse, Response

from ...models import SessionSummary
from ..reading.glimpses import SessionReader
from ..sdk import SessionKey
from ..text import line
from ..transcripts.outline import Outline, OutlinedSubagent, OutlinedTurn, used
from .finding import SEARCHES, FoundInSession, find
from .found_words import FoundWords
from .kept import Kept
from .outlines import Outlines
from .piece_markup import PieceAddresses, PieceContext
from .prices import Cost, cost_of
from .refusals import no_such_session
from .responses import page
from .turn_figures import cost_of_tokens, lanes_of, last_context, tokens_of
from .viewer import Viewer
from .windows import IN_PLACE, Window, WindowMaker

SESSION_PATH: Final = "/s/{project}/{session}"

LIVE_SECONDS: Final = 60
"""So long after its last entry a session is taken for one at work."""
RUNNING_SECONDS: Final = 600
"""So long a call without an answer is taken for one that runs."""

TURNS_AT_ONCE: Final = 200
_BEFORE = 20
_PLACE = re.compile(r"(t?)(\d{1,15})")

OUTLINES = Outlines()

_KEPT_SECONDS = 60
_FOUND = Kept[Hashable, FoundInSession](_KEPT_SECONDS, 16, lambda found: 1)


@dataclass(frozen=True, slots=True)
class SessionView:
    """A session and who looks at it."""

    viewer: Viewer
    key: SessionKey
    summary: SessionSummary
    reader: SessionReader
    outline: Outline | None
    now: datetime

    @classmethod
    async def of(cls, viewer: Viewer, *, is_awaited: bool = False) -> SessionView:
        """The session that an address names.

        Raises:
            Refused: 404, there is no such session.
            SessionStoreError: as for the store.
        """
        key = viewer.session_key
        summary = await viewer.store.summary(key)
        if summary is None:
            raise no_such_session()
        reader = viewer.store.reader(key)
        outline = await OUTLINES.of(reader, summary, is_awaited=is_awaited)
        return cls(viewer, key, summary, reader, outline, datetime.now(timezone.utc))

    @property
    def who(self) -> str:
        """Whose session it is, where the metadata says so."""
        field, metadata = self.viewer.who, self.summary.metadata
        value = metadata.get(field) if field and metadata else None
        return value if isinstance(value, str) else ""

    @property
    def is_live(self) -> bool:
        """Whether an entry came within the last minute."""
        return self._is_active(LIVE_SECONDS)

    @property
    def goes_on(self) -> bool:
        """Whether a call without an answer may still be running."""
        return self._is_active(RUNNING_SECONDS)

    def _is_active(self, seconds: int) -> bool:
        at, told = self.summary.active_at, self.summary.totals.last_at
        # What was imported just now may have been said long ago.
        is_recent = told is None or self.now - told < timedelta(seconds=RUNNING_SECONDS)
        return at is not None and self.now - at < timedelta(seconds=seconds) and is_recent

    @property
    def title(self) -> str:
        """What the page is called."""
        return line(
            self.summary.title or self.summary.first_prompt or self.summary.session_id, None
        )

    @property
    def last(self) -> int:
        """The position of its last entry."""
        return self.summary.next_seq - 1

    def context(self, **told: Any) -> PieceContext:
        """What its pieces have in common."""
        return PieceContext(
            PieceAddresses(self.viewer.links, self.key),
            who=self.who,
            cwd=self.summary.cwd or "",
            goes_on=self.goes_on,
            **told,
        )

    def maker(self, **told: Any) -> WindowMaker:
        """Makes windows of it."""
        return WindowMaker(self.reader, self.context(**told), self.outline, self.now)


@dataclass(frozen=True, slots=True)
class SessionQuery:
    """What of a session an address asks for."""

    at: int | None = None
    turn: int | None = None
    first: int | None = None
    to: int | None = None
    subpath: str = ""
    find: FoundWords = field(default_factory=lambda: FoundWords(""))
    search: str = "everything"
    hit: int | None = None
    turns_from: int | None = None

    @classmethod
    def of(cls, query: Mapping[str, str]) -> SessionQuery:
        """What a query says; what it says wrong counts as not said."""
        place = _PLACE.fullmatch(query.get("at", ""))
        number = int(place[2]) if place else None
        inside = query.get("in", "")
        search = inside if inside in SEARCHES else "everything"
        subpath = "" if inside in SEARCHES or not inside else _subpath(inside)
        return cls(
            None if place is None or place[1] else number,
            number if place and place[1] else None,
            _number(query, "from"),
            _number(query, "to"),
            subpath,
            FoundWords(query.get("find", "").strip()[:200]),
            search,
            _number(query, "hit"),
            _number(query, "turns"),
        )


def _number(query: Mapping[str, str], name: str) -> int | None:
    found = query.get(name, "")
    return int(found) if found.isascii() and found.isdigit() and len(found) <= 15 else None


def _subpath(written: str) -> str:
    try:
        written.encode()
    except UnicodeEncodeError:
        raise no_such_session() from None
    if "\0" in written or len(written) > 1_000:
        raise no_such_session()
    return written if written.startswith("subagents/") else f"subagents/{written}"


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
    return page(
        viewer,
        "session.html",
        **head_of(view),
        view=view,
        window=window,
        seams=_seams(view, window, subpath),
        asked=asked,
        subpath=subpath,
        agent=agent,
        agent_at=outline.above(subpath) if outline is not None and subpath else None,
        found=found,
        here=here,
        searches=SEARCHES,
        turns=turns_shown(view, asked, window),
    )


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


@dataclass(frozen=True, slots=True)
class TurnRow:
    """A row of the table of turns."""

    turn: OutlinedTurn
    href: str
    tokens: int
    cost: Cost
    agents: Sequence[tuple[OutlinedSubagent, str]]
    is_here: bool
    is_left: bool


def turns_shown(view: SessionView, asked: SessionQuery, window: Window) -> dict[str, Any] | None:
    """The table of turns, as much of it as is shown; ``None`` while they are being counted."""
    outline, links, key = view.outline, view.viewer.links, view.key
    if outline is None:
        return None
    turns = [turn for turn in outline.turns if turn.number]
    here = outline.turn_at(window.first) if window.first and not asked.subpath else None
    start = asked.turns_from or 1
    if asked.turns_from is None and here is not None and len(turns) > TURNS_AT_ONCE:
        start = (max(here.number, 1) - 1) // 100 * 100 + 1
    start = min(max(start, 1), max(len(turns), 1))
    agents: dict[int, list[tuple[OutlinedSubagent, str]]] = {}
    for subpath, agent in outline.subagents.items():
        above = outline.above(subpath)
        turn = outline.turn_at(above) if above is not None else None
        if turn is not None:
            place = links.entry(key, agent.first)
            agents.setdefault(turn.number, []).append((agent, place))
    left = outline.left_behind()
    rows = [
        TurnRow(
            turn,
            _turn_href(view, turn, window),
            tokens_of(used(turn)),
            cost_of_tokens(used(turn), turn.at),
            agents.get(turn.number, ()),
            turn is here,
            any(each.first <= turn.first < each.until for each in left),
        )
        for turn in turns[start - 1 : start - 1 + TURNS_AT_ONCE]
    ]
    hundreds = range(1, len(turns) + 1, 100) if len(turns) > TURNS_AT_ONCE else ()
    return {
        "rows": rows,
        "count": len(turns),
        "agents": len(outline.subagents),
        "groups": [
            (each, min(each + 99, len(turns)), links.session(key, [("turns", each)]))
            for each in hundreds
        ],
        "compactions": {
            turn.number: each
            for each in outline.compactions
            if (turn := outline.turn_at(each.seq)) is not None
        },
    }


def _turn_href(view: SessionView, turn: OutlinedTurn, window: Window) -> str:
    is_loaded = window.first <= turn.first <= window.last
    if is_loaded:
        return f"#t{turn.number}"
    return view.viewer.links.session(view.key, [("at", f"t{turn.number}")], at=f"t{turn.number}")


def head_of(view: SessionView) -> dict[str, Any]:
    """What the head of the page says, in figures."""
    totals, outline = view.summary.totals, view.outline
    usage = totals.usage
    agents = Cost()
    if outline is not None:
        for each in outline.subagents.values():
            agents += cost_of_tokens(used(each), each.at)
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
        "cost": cost_of(totals.cost_usd, usage),
        "agents_cost": agents,
        "lanes": lanes_of(outline) if outline is not None else None,
        "context_now": last_context(outline.turns) if outline is not None else 0,
        "exports": [
            (name, links.within(key, f"export.{ending}"))
            for name, ending in (
                ("Markdown", "md"),
                ("HTML, one file", "html"),
                ("JSON Lines, as stored", "jsonl"),
            )
        ],
    }
