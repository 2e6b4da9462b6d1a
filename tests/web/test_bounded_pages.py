"""Whatever a session holds, its pages stay small, and nobody waits for another's page."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from support.conversation import Conversation
from support.pages import pages_of

from beanie_session_store import BeanieSessionStore
from beanie_session_store.app.reading.glimpses import SessionReader
from beanie_session_store.app.rendering.markdown import MarkdownPage

KEY: Any = {"project_key": "-srv-shop", "session_id": "session"}
PAGE = "/s/-srv-shop/session"


async def test_an_export_is_rendered_beside_the_loop_a_few_entries_at_a_time(
    store: BeanieSessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    talk = Conversation()
    for number in range(70):
        talk.text(f"step {number} is done")
    await store.append(KEY, talk.entries)
    threads: set[int] = set()
    piece = MarkdownPage.piece

    def noted(self: MarkdownPage, each: Any) -> str:
        threads.add(threading.get_ident())
        return piece(self, each)

    monkeypatch.setattr(MarkdownPage, "piece", noted)
    async with pages_of(store) as client:
        answer = await client.get(f"{PAGE}/export.md")
    assert answer.text.count("is done") == 70
    assert threads
    assert threading.get_ident() not in threads


async def test_what_is_written_while_a_session_is_outlined_is_a_turn_of_it(
    store: BeanieSessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    subagent = {**KEY, "subpath": "subagents/agent-q"}
    talk, work = Conversation(), Conversation("agent")
    talk.prompt("the first turn")
    work.text("at work")
    await store.append(KEY, talk.entries)
    await store.append(subagent, work.entries)
    talk.entries.clear()
    work.entries.clear()
    talk.prompt("the late turn")
    work.text("late as well")
    rows = SessionReader.rows
    is_late = False

    async def and_meanwhile(self: SessionReader, *given: Any, **options: Any) -> Any:
        nonlocal is_late
        async for row in rows(self, *given, **{**options, "batch": 1}):
            if not is_late:
                is_late = True
                await store.append(KEY, talk.entries)
                await store.append(subagent, work.entries)
            yield row

    monkeypatch.setattr(SessionReader, "rows", and_meanwhile)
    async with pages_of(store) as client:
        await client.get(f"{PAGE}?turns=1")
        assert is_late
        page = await client.get(f"{PAGE}?turns=1")
    table = page.text.partition('<nav class="turns"')[2].partition("</nav>")[0]
    assert "the first turn" in table
    assert "the late turn" in table
