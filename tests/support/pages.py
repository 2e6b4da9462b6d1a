"""The pages as a browser gets them, mounted as a team mounts them, without a socket."""

from __future__ import annotations

import itertools
from datetime import datetime, timedelta, timezone
from html.parser import HTMLParser
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Mount

from beanie_session_store import BeanieSessionStore
from beanie_session_store.web import Access, session_pages

MOUNT = "/team/sessions"

_numbers = itertools.count()


def pages_of(
    store: BeanieSessionStore,
    *,
    contents: bool = True,
    actor: str | None = None,
    mount: str = MOUNT,
    **options: Any,
) -> httpx.AsyncClient:
    """A client of pages that show the store's sessions to whoever asks, from their mount on."""

    async def access(request: Request) -> Access:
        return Access(store, contents=contents, actor=actor)

    return client_of(session_pages(access, **options), mount=mount)


def client_of(pages: Any, *, mount: str = MOUNT) -> httpx.AsyncClient:
    """A client of the pages, from their mount on."""
    app = Starlette(routes=[Mount(mount, pages)])
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url=f"http://team.example{mount}"
    )


def prompt(text: str, *, at: datetime | None = None, **fields: Any) -> dict[str, Any]:
    """What a person asks."""
    return {
        "type": "user",
        "uuid": f"prompt-{next(_numbers)}",
        "timestamp": stamp(at),
        "message": {"role": "user", "content": text},
        **fields,
    }


def answer(
    text: str,
    *calls: str,
    at: datetime | None = None,
    model: str = "claude-opus-4-5",
    tokens: tuple[int, int, int, int] = (10, 5, 0, 0),
) -> dict[str, Any]:
    """What the model says and which tools it calls; tokens in, out, to the cache and from it."""
    number = next(_numbers)
    kinds = ("input", "output", "cache_creation_input", "cache_read_input")
    blocks = [
        {"type": "tool_use", "id": f"call-{number}-{n}", "name": name, "input": {}}
        for n, name in enumerate(calls)
    ]
    return {
        "type": "assistant",
        "uuid": f"answer-{number}",
        "timestamp": stamp(at),
        "message": {
            "id": f"response-{number}",
            "role": "assistant",
            "model": model,
            "content": [{"type": "text", "text": text}, *blocks],
            "usage": {f"{kind}_tokens": n for kind, n in zip(kinds, tokens, strict=True)},
        },
    }


def failed(asked: dict[str, Any], call: int = 0) -> dict[str, Any]:
    """The failure of a call of that answer."""
    block = asked["message"]["content"][1 + call]
    result = {"type": "tool_result", "tool_use_id": block["id"], "content": "no", "is_error": True}
    return prompt("", message={"role": "user", "content": [result]}, at=_moment(asked))


def account(usd: float, model: str = "claude-opus-4-5") -> dict[str, Any]:
    """The agent's own account of cost."""
    return {
        "type": "cost-state",
        "totalCostUSD": usd,
        "startTime": 1,
        "modelUsage": {model: {"costUSD": usd}},
    }


def stamp(at: datetime | None = None) -> str:
    """A time as the agent writes it; now by default."""
    moment = at or datetime.now(timezone.utc)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.000Z"


def days_ago(days: float) -> datetime:
    """So many days before now."""
    return datetime.now(timezone.utc) - timedelta(days=days)


def _moment(entry: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(entry["timestamp"].replace("Z", "+00:00"))


class _Rows(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self._is_open = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "tr":
            self.rows.append([])
        self._is_open = self._is_open or tag in ("td", "th")
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._is_open = False

    def handle_data(self, data: str) -> None:
        if self._is_open:
            self.rows[-1][-1] += data


def rows_of(html: str) -> list[list[str]]:
    """The text of the cells of all rows of all tables."""
    parser = _Rows()
    parser.feed(html)
    parser.close()
    return [[" ".join(cell.split()) for cell in row] for row in parser.rows]


class _Shape(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[object] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, [name for name, _ in attrs]))
        self.links += [value or "" for name, value in attrs if name in ("href", "src", "action")]

    def handle_endtag(self, tag: str) -> None:
        self.tags.append(tag)

    def handle_comment(self, data: str) -> None:
        self.tags.append("comment")


def shape_of(html: str) -> list[object]:
    """The elements of a page with the names of their attributes, without any text."""
    return _shape(html).tags


def links_of(html: str) -> list[str]:
    """All addresses that a page names."""
    return _shape(html).links


def _shape(html: str) -> _Shape:
    parser = _Shape()
    parser.feed(html)
    parser.close()
    return parser
