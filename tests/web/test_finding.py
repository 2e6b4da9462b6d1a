"""What a page shows is found, however it is stored, and the loop is not held up for it."""

from __future__ import annotations

import re
import threading
from typing import Any

import pytest
from support.entries import KEY, message
from support.pages import prompt

from beanie_session_store import BeanieSessionStore
from beanie_session_store.app.web import finding
from beanie_session_store.app.web.found_words import FoundWords, texts_of

# Of which the server takes no document, so that the entry is packed.
LONE = "\ud83d"


async def found(store: BeanieSessionStore, words: str, search: str = "everything") -> list[int]:
    hits = await finding.find(store.reader(KEY), None, FoundWords(words), search)
    return [hit.seq for hit in hits.hits]


def call(arguments: dict[str, Any]) -> dict[str, Any]:
    block = {"type": "tool_use", "id": "toolu_1", "name": "Deploy", "input": arguments}
    return message(message={"role": "assistant", "content": [block]}, type="assistant")


@pytest.mark.parametrize("words", ['says "no', "C:\\temp", "one\ntwo", "\tthree"])
async def test_what_json_escapes_is_found_in_entries_of_either_kind(
    store: BeanieSessionStore, words: str
) -> None:
    text = 'He says "no", C:\\temp is\none\ntwo and\tthree.'
    await store.append(KEY, [prompt(text), prompt(LONE + text), prompt(LONE)])
    assert await found(store, words) == [1, 2]
    assert await found(store, words, "prompts") == [1, 2]


ARGUMENTS = ["model", "version", "id", "data", "role", "cwd", "timestamp", "type", "usage"]


@pytest.mark.parametrize("search", ["everything", "calls"])
async def test_arguments_are_found_whatever_they_are_named(
    store: BeanieSessionStore, search: str
) -> None:
    await store.append(KEY, [call({name: f"needle {name}"}) for name in ARGUMENTS])
    await store.append(KEY, [call({"steps": [{"version": {"data": "needle below"}}]})])
    assert await found(store, "needle", search) == list(range(1, len(ARGUMENTS) + 2))


def test_what_no_page_shows_is_not_found_beside_arguments() -> None:
    entry = call({"version": "shown"}) | {"version": "hidden", "input": {"version": "hidden"}}
    assert "hidden" not in list(texts_of(entry))
    assert "shown" in list(texts_of(entry))


async def test_the_loop_is_free_while_texts_are_looked_through(
    store: BeanieSessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, threads = finding._hit, set[threading.Thread]()

    def watched(*arguments: Any) -> Any:
        threads.add(threading.current_thread())
        return real(*arguments)

    monkeypatch.setattr(finding, "_hit", watched)
    monkeypatch.setattr(finding, "_BYTES_AT_ONCE", 2_000)
    entries = [prompt("x" * 500 + " Needle") for _ in range(20)]
    await store.append(KEY, [*entries, prompt(LONE + "needle")])
    assert await found(store, "needle") == list(range(1, 22))
    assert threads
    assert threading.main_thread() not in threads


@pytest.mark.parametrize("words", ["aa", "Ab", "a.b", "ä", "straße", "s", "."])
@pytest.mark.parametrize(
    "text", ["aAaaa ab AB a.b", "Ääa STRASSE Straße \u017f", "", "x" * 500 + "AB"]
)
def test_plain_words_are_counted_as_all_others_are(words: str, text: str) -> None:
    spans = [each.span() for each in re.finditer(re.escape(words), text, re.IGNORECASE)]
    assert FoundWords(words).count(text) == len(spans)
    excerpt = FoundWords(words).excerpt(text)
    assert (excerpt is None) == (not spans)
    if excerpt is not None:
        assert excerpt[1] == text[spans[0][0] : spans[0][1]]
