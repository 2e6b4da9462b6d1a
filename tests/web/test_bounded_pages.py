"""Whatever a session holds, its pages stay small, and nobody waits for another's page."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from support.conversation import Conversation, png
from support.pages import pages_of

from beanie_session_store import BeanieSessionStore
from beanie_session_store.app.reading.glimpses import SessionReader
from beanie_session_store.app.rendering.markdown import MarkdownPage
from beanie_session_store.app.web import pieces as web_pieces
from beanie_session_store.app.web.entry_texts import page_of_entry
from beanie_session_store.app.web.shown_prose import is_slow

KEY: Any = {"project_key": "-srv-shop", "session_id": "session"}
PAGE = "/s/-srv-shop/session"
MOST_BYTES = 500_000


async def got(store: BeanieSessionStore, path: str = "?from=1") -> str:
    """A page, which is as small as all of them."""
    async with pages_of(store) as client:
        answer = await client.get(PAGE + path)
    assert answer.status_code == 200
    assert len(answer.content) < MOST_BYTES
    return answer.text


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
            if row.get("subpath") and not is_late:
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


async def test_many_subagents_in_one_place_are_shown_as_far_as_there_is_room(
    store: BeanieSessionStore,
) -> None:
    main = Conversation()
    main.prompt("Look everywhere")
    for number in range(40):
        call = main.call("Agent", {"subagent_type": "x", "description": f"look {number}"}, "done")
        agent = Conversation(f"g{number}")
        agent.entries.append({"type": "agent_metadata", "agentType": "x", "toolUseId": call})
        for _ in range(40):
            agent.text("found nothing " * 40)
        await store.append({**KEY, "subpath": f"subagents/agent-g{number}"}, agent.entries)
    await store.append(KEY, main.entries)
    html = await got(store)
    assert html.count('<div class="sub" role="group"') == 40
    assert html.count("found nothing") < 400 * 40
    assert "Not shown here." in html
    assert html.count("On a page of its own") == 40
    table = html.partition('<nav class="turns"')[2].partition("</nav>")[0]
    assert table.count('class="sub-link"') == 40


BLOCKS: dict[str, tuple[list[dict[str, Any]], str]] = {
    "texts": ([{"type": "text", "text": "a"}] * 3_000, "2,800 more parts of this entry"),
    "long texts": ([{"type": "text", "text": "long " * 3_000}] * 60, "more parts of this entry"),
    "to-dos": (
        [
            {
                "type": "tool_use",
                "id": "call",
                "name": "TodoWrite",
                "input": {"todos": [{"content": "do " * 300, "status": "pending"}] * 2_000},
            }
        ],
        "1,950 more items",
    ),
}


@pytest.mark.parametrize("kind", BLOCKS)
async def test_an_entry_of_much_ends_and_says_so(store: BeanieSessionStore, kind: str) -> None:
    blocks, words = BLOCKS[kind]
    talk = Conversation()
    talk.prompt("Say much")
    talk.say(*blocks)
    talk.text("behind it")
    await store.append(KEY, talk.entries)
    html = await got(store)
    assert words in html
    assert "Show all of entry 2" in html
    assert "behind it" in html
    await got(store, "/e/2")


async def test_a_prompt_of_many_pictures_shows_the_first(store: BeanieSessionStore) -> None:
    source = {"type": "base64", "media_type": "image/png", "data": png()}
    talk = Conversation()
    talk.prompt(*[{"type": "image", "source": source}] * 1_000)
    await store.append(KEY, talk.entries)
    html = await got(store)
    assert html.count("<img ") == 50
    assert "950 more pictures are not shown here" in html


async def test_subagents_without_a_call_are_listed_as_far_as_there_is_room(
    store: BeanieSessionStore,
) -> None:
    for number in range(103):
        agent = Conversation(f"z{number}")
        agent.text("at work")
        await store.append({**KEY, "subpath": f"subagents/agent-z{number}"}, agent.entries)
    html = await got(store)
    assert html.partition('<ul class="strays">')[2].partition("</ul>")[0].count("<li>") == 100
    assert "3 more subagents" in html


async def test_subagents_of_a_turn_are_listed_as_far_as_there_is_room(
    store: BeanieSessionStore,
) -> None:
    main = Conversation()
    main.prompt("Look everywhere")
    for number in range(103):
        call = main.call("Agent", {"subagent_type": "x", "description": "look"}, "done")
        agent: list[dict[str, Any]] = [{"type": "agent_metadata", "toolUseId": call}]
        await store.append({**KEY, "subpath": f"subagents/agent-g{number}"}, agent)
    await store.append(KEY, main.entries)
    html = await got(store)
    table = html.partition('<nav class="turns"')[2].partition("</nav>")[0]
    assert table.count('class="sub-link"') == 101
    assert "3 more subagents" in table


@pytest.mark.parametrize("thinking", ["", "x"])
def test_a_page_of_an_entry_has_some_of_many_parts(thinking: str) -> None:
    parts = [{"type": "text", "text": "t"}, {"type": "thinking", "thinking": thinking}] * 3_000
    talk = Conversation()
    entry = talk.say(*parts, {"type": "tool_result", "tool_use_id": "x", "content": ""})
    entry["message"]["content"] += [parts[-2], entry["message"]["content"][-1]] * 2_000
    first = page_of_entry(entry, 1)
    found = [page_of_entry(entry, number + 1).parts for number in range(first.pages)]
    assert max(map(len, found)) <= 2_001
    said = [part for page in found for part in page]
    assert len(said) == 3_000 * (2 if thinking else 1) + 1 + 4_000


@pytest.mark.parametrize(
    "text",
    [
        "[" * 9_000,
        "![" * 9_000,
        "[a\n" * 900 + "[" * 200,
        "|a" * 90 + "|\n" + "|-" * 90 + "|\n" + "|a|\n" * 400,
        "a|b\n" + "-|" * 3_000 + "\n" + "a\n" * 400,
        "word " * 10_000,
        "\n" * 2_000,
    ],
)
async def test_what_takes_long_as_markdown_is_shown_as_it_was_written(
    store: BeanieSessionStore, text: str
) -> None:
    assert is_slow(text)
    talk = Conversation()
    talk.text(f"Look: {text} the end")
    await store.append(KEY, talk.entries)
    html = await got(store)
    assert "Shown as it was written" in html
    assert "the end" in html


@pytest.mark.parametrize(
    "text", ["- [a](http://x)\n" * 900, "|a|b|\n|-|-|\n" + "|1|2|\n" * 500, "word " * 3_000]
)
def test_what_people_are_answered_is_read_as_markdown(text: str) -> None:
    assert not is_slow(text)


async def test_of_a_long_thought_the_beginning_alone_is_searched_for_a_sentence(
    store: BeanieSessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched: list[str] = []
    pattern = web_pieces._FIRST_SENTENCE

    class Noted:
        def match(self, text: str) -> Any:
            searched.append(text)
            return pattern.match(text)

    monkeypatch.setattr(web_pieces, "_FIRST_SENTENCE", Noted())
    talk = Conversation()
    thought = "\n" * 900 + "First this. " + "Then that. " * 900
    talk.say({"type": "thinking", "thinking": thought})
    await store.append(KEY, talk.entries)
    assert "<bdi>First this.</bdi>" in await got(store)
    assert max(map(len, searched)) == 400
