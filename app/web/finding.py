"""Find in a session: through all that is stored of it, folded, clamped and subagents' texts too."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from ...models.views.blocks import TextBlock, ThinkingBlock
from ...models.views.messages import AssistantEntry, UserEntry
from ...models.views.parsing import parse_entry
from ..reading.glimpses import SessionReader, StoredWhole
from ..sdk import SessionKey
from ..text import line
from ..transcripts.outline import Outline
from ..transcripts.tool_calls import CallBlock, ResultBlock
from .addresses import Addresses
from .found_words import FoundWords, texts_of, texts_of_input

SEARCHES: Final = {
    "everything": "everything",
    "prompts": "prompts",
    "answers": "answers",
    "calls": "tool calls",
    "failures": "failures",
}
"""Where to look, as addresses and people name it."""

MOST_HITS: Final = 1_000
"""So many are listed; the rest is counted."""

_BYTES_AT_ONCE: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class HitInSession:
    """An entry that has the words."""

    seq: int
    subpath: str
    what: str
    """What kind of entry it is."""
    count: int
    excerpt: tuple[str, str, str]
    turn: int | None


@dataclass(frozen=True, slots=True)
class FoundInSession:
    """What was found."""

    words: FoundWords
    search: str
    hits: list[HitInSession]
    more: int
    """How many entries beyond those have them."""
    unread: int
    """How many entries could not be read."""

    def address(self, links: Addresses, key: SessionKey, number: int) -> str:
        """Where a hit is shown."""
        search = None if self.search == "everything" else self.search
        query = [("find", self.words.words), ("in", search), ("hit", number)]
        return links.session(key, query, at=f"e{self.hits[number - 1].seq}")


async def find(
    reader: SessionReader, outline: Outline | None, words: FoundWords, search: str
) -> FoundInSession:
    """The entries of a session that have some words, by their positions.

    Raises:
        SessionStoreError: as for the store.
    """
    hits: list[HitInSession] = []
    more = unread = size = 0
    waiting: list[StoredWhole] = []

    async def look() -> None:
        # What is long takes long, and the loop is for all who look at pages.
        found = await asyncio.to_thread(_hits, waiting.copy(), words, search, outline)
        hits.extend(found)
        waiting.clear()

    async for stored in reader.stored(words.may_be_in):
        if stored.entry is None:
            unread += 1
            continue
        waiting.append(stored)
        size += stored.size or _BYTES_AT_ONCE
        if size >= _BYTES_AT_ONCE:
            await look()
            size = 0
    await look()
    hits.sort(key=lambda hit: hit.seq)
    more = max(0, len(hits) - MOST_HITS)
    return FoundInSession(words, search, hits[:MOST_HITS], more, unread)


def _hits(
    entries: list[StoredWhole], words: FoundWords, search: str, outline: Outline | None
) -> list[HitInSession]:
    found = [
        _hit(each.seq, each.subpath, each.entry or {}, words, search, outline) for each in entries
    ]
    return [hit for hit in found if hit is not None]


def _hit(
    seq: int,
    subpath: str,
    entry: Mapping[str, Any],
    words: FoundWords,
    search: str,
    outline: Outline | None,
) -> HitInSession | None:
    if search == "everything":
        texts, what = list(texts_of(entry)), ""
    else:
        texts, what = list(_texts_in(entry, search)), ""
    counts = [(words.count(text), text) for text in texts]
    count = sum(each for each, _ in counts)
    if not count:
        return None
    first = next(text for each, text in counts if each)
    excerpt = words.excerpt(first)
    above = seq if not subpath else outline.above(subpath) if outline is not None else None
    turn = outline.turn_at(above) if outline is not None and above is not None else None
    what = what or _kind_of(entry)
    return HitInSession(
        seq, subpath, what, count, excerpt or ("", "", ""), turn.number if turn else None
    )


def _texts_in(entry: Mapping[str, Any], search: str) -> Iterator[str]:
    view = parse_entry(entry)
    if isinstance(view, UserEntry):
        if search == "prompts" and view.is_prompt:
            yield view.prompt_text or ""
        for result in view.tool_results:
            if search == "calls" or (search == "failures" and result.is_error):
                yield from texts_of(
                    {
                        "content": result.content
                        if isinstance(result.content, str)
                        else [b.model_dump() for b in result.content]
                    }
                )
    elif isinstance(view, AssistantEntry):
        for block in view.blocks:
            if search == "answers" and isinstance(block, TextBlock):
                yield block.text
            elif search == "calls" and isinstance(block, CallBlock):
                yield block.name
                yield from texts_of_input(block.input)
        if search == "failures" and view.is_api_error_message:
            yield view.text


def _kind_of(entry: Mapping[str, Any]) -> str:
    """What an entry is, in a word or two."""
    view = parse_entry(entry)
    if isinstance(view, UserEntry):
        if view.is_prompt:
            return "prompt"
        results = [block for block in view.blocks if isinstance(block, ResultBlock)]
        failed = any(getattr(block, "is_error", False) for block in results)
        return (
            ("failed call" if failed else "answer of a tool") if results else "added by the agent"
        )
    if isinstance(view, AssistantEntry):
        for block in view.blocks:
            if isinstance(block, CallBlock):
                return line(block.name, 60)
            if isinstance(block, ThinkingBlock):
                return "thinking"
        return "answer"
    return line(str(cast("object", entry.get("type"))), 60)
