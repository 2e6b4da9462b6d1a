"""What comes to a session while one looks is what a page that is loaded then shows."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from typing import Any

from starlette.requests import Request
from support.conversation import Conversation, shop
from support.pages import pages_of

from beanie_session_store import BeanieSessionStore
from beanie_session_store.app.web.access import Access
from beanie_session_store.app.web.addresses import Addresses
from beanie_session_store.app.web.live_pieces import live_fragments
from beanie_session_store.app.web.viewer import Viewer

KEY: Any = {"project_key": "-srv-shop", "session_id": "session"}


def viewer_of(store: BeanieSessionStore) -> Viewer:
    """Somebody who looks at the session."""
    parts = {"project": KEY["project_key"], "session": KEY["session_id"]}
    scope = {"type": "http", "method": "GET", "headers": [], "path_params": parts}
    return Viewer(Request(scope), Access(store), Addresses.below("", "0"), None)


async def came(store: BeanieSessionStore, after: int) -> list[tuple[int, str]]:
    """All that comes behind a position, as the script asks for it."""
    found: list[tuple[int, str]] = []
    while more := await live_fragments(viewer_of(store), KEY, after):
        assert [seq for seq, _ in more] == sorted({seq for seq, _ in more})
        assert more[0][0] > after
        found += more
        after = more[-1][0]
    return found


def elements(html: str) -> dict[str, str]:
    """The elements of the first level by their ids, each with the id of what it belongs into."""
    found = re.findall(
        r'^<(?:div|section|header|span)[^>]*? id="([^"]+)"(?: data-in="([^"]+)")?', html, re.M
    )
    return dict(found)


async def test_each_entry_comes_once_and_into_its_turn(store: BeanieSessionStore) -> None:
    talk = Conversation(at=datetime.now(timezone.utc))
    talk.prompt("Look")
    talk.text("I look.")
    await store.append(KEY, talk.entries)
    first = await came(store, 0)
    shown = elements("".join(html for _, html in first))
    assert shown["t1"] == ""
    assert shown["e2"] == "t1"
    assert "head-figures" in shown
    talk.entries.clear()
    talk.call("Bash", {"command": "sleep 1"})
    talk.prompt("And now")
    await store.append(KEY, talk.entries)
    second = await came(store, first[-1][0])
    assert [seq for seq, _ in second] == [3, 4]
    assert "running" in second[0][1]
    assert elements(second[0][1])["e3"] == "t1"
    assert '<section class="turn" id="t2"' in second[1][1]
    assert await came(store, 4) == []


async def test_an_answer_comes_as_its_call_anew(store: BeanieSessionStore) -> None:
    talk = Conversation(at=datetime.now(timezone.utc))
    talk.prompt("Look")
    talk.call("Bash", {"command": "ls"})
    await store.append(KEY, talk.entries)
    talk.entries.clear()
    answer = {"type": "tool_result", "tool_use_id": "toolu-main-1", "content": "one\ntwo"}
    talk.prompt(answer)
    await store.append(KEY, talk.entries)
    ((seq, html),) = await came(store, 2)
    assert seq == 3
    assert elements(html)["e2"] == "t1"
    assert "2 lines" in html
    assert "running" not in html
    assert 'id="t1-head"' in html


async def test_what_a_subagent_writes_comes_in_its_call(store: BeanieSessionStore) -> None:
    transcripts = shop()
    await store.append(KEY, transcripts[""])
    agent = transcripts["subagents/agent-a1"]
    sub: Any = {**KEY, "subpath": "subagents/agent-a1"}
    await store.append(sub, agent[:3])
    after = len(transcripts[""]) + 3
    await store.append(sub, agent[3:])
    found = await came(store, after)
    html = "".join(html for _, html in found)
    assert elements(html)["e18"] == "t1"
    assert "no idempotency key" in html
    assert found[-1][0] == len(transcripts[""]) + len(agent)


async def test_all_that_came_is_what_a_page_shows(store: BeanieSessionStore) -> None:
    transcripts = shop()
    for subpath, entries in transcripts.items():
        await store.append({**KEY, "subpath": subpath} if subpath else KEY, entries)
    html = "".join(html for _, html in await came(store, 0))
    async with pages_of(store) as client:
        page = (await client.get("/s/-srv-shop/session?from=1")).text
    pieces = re.compile(r'<div class="entry[^"]*" id="(e\d+(?:-\d+)?)"')
    assert set(pieces.findall(page)) == set(pieces.findall(html))
