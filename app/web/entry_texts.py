"""All that one entry says, as texts with their names, and a page of them at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from ...models.views.blocks import (
    DocumentBlock,
    ImageBlock,
    TextBlock,
    ThinkingBlock,
)
from ...models.views.messages import AssistantEntry, UserEntry
from ...models.views.parsing import parse_entry
from ..rendering.folded_calls import FoldedCall
from ..rendering.tool_lines import replacements
from ..text import plain
from ..transcripts.tool_calls import CallBlock, ResultBlock
from .call_pieces import json_shown, result_text

PAGE_LINES: Final = 2_000
PAGE_CHARACTERS: Final = 300_000
"""A page ends with whichever comes first; a line that is longer than all of it is continued."""


@dataclass(frozen=True, slots=True)
class EntryText:
    """A text of an entry."""

    name: str
    """What it is: the tool, the argument."""
    text: str


@dataclass(frozen=True, slots=True)
class EntryPage:
    """Some of the lines."""

    number: int
    pages: int
    first_line: int
    last_line: int
    lines: int
    parts: list[EntryText]
    """The texts of which the page has something, cut to that."""


def texts_of_entry(entry: Mapping[str, Any]) -> Iterator[EntryText]:
    """The texts of an entry, in their order; of what is no message, all of it as JSON."""
    view = parse_entry(entry)
    has_any = False
    for block in view.blocks if isinstance(view, UserEntry | AssistantEntry) else ():
        for each in _of_block(block):
            has_any = True
            yield each
    if not has_any:
        content = entry.get("content")
        if isinstance(content, str) and content:
            yield EntryText("Notice", content)
        else:
            yield EntryText("As it is stored", json_shown(dict(entry)))


def page_of_entry(entry: Mapping[str, Any], number: int) -> EntryPage:
    """A page of its lines; the last one where there are fewer."""
    texts = list(texts_of_entry(entry))
    starts = list(_page_starts(texts))
    number = min(max(number, 1), len(starts))
    begin = starts[number - 1]
    end = starts[number] if number < len(starts) else (len(texts), 0, 0)
    parts: list[EntryText] = []
    for place in range(begin[0], min(end[0], len(texts) - 1) + 1):
        text = texts[place]
        start = begin[1] if place == begin[0] else 0
        stop = end[1] if place == end[0] else len(text.text)
        if stop > start or (not text.text and place != end[0]):
            parts.append(EntryText(text.name, plain(text.text[start:stop])))
    lines = sum(text.text.count("\n") + 1 for text in texts)
    first = begin[2] + 1
    last = end[2] if number < len(starts) else lines
    return EntryPage(number, len(starts), first, max(last, first), lines, parts)


def _page_starts(texts: list[EntryText]) -> Iterator[tuple[int, int, int]]:
    """Where each page begins: which text, which character of it, how many lines before it."""
    yield (0, 0, 0)
    lines = characters = total = 0
    for place, text in enumerate(texts):
        at = 0
        size = len(text.text)
        if not size:
            # That there is nothing in it is said in a line.
            if lines >= PAGE_LINES:
                yield (place, 0, total)
                lines = characters = 0
            lines += 1
            total += 1
        while at < size:
            end = text.text.find("\n", at)
            end = size if end < 0 else end + 1
            stop = min(end, at + PAGE_CHARACTERS)
            if characters and (lines >= PAGE_LINES or characters + (stop - at) > PAGE_CHARACTERS):
                yield (place, at, total)
                lines = characters = 0
            characters += stop - at
            at = stop
            if stop == end:
                lines += 1
                total += 1


def _of_block(block: Any) -> Iterator[EntryText]:
    if isinstance(block, TextBlock):
        if block.text:
            yield EntryText("Text", block.text)
    elif isinstance(block, ThinkingBlock):
        if block.thinking:
            yield EntryText("Thinking", block.thinking)
    elif isinstance(block, CallBlock):
        yield from _of_call(block)
    elif isinstance(block, ResultBlock):
        failed = " of a failure" if getattr(block, "is_error", False) else ""
        yield EntryText(f"Answer{failed}", result_text(block))
    elif isinstance(block, ImageBlock | DocumentBlock):
        source = block.source
        kind = (source and source.media_type) or "unknown kind"
        text = source.data or "" if source and source.type == "text" else ""
        yield EntryText(f"{str(block.type).title()}, {kind}", text)
    else:
        value = getattr(block, "value", None)
        yield EntryText(
            f"Block of kind {block.type!s}",
            json_shown(value if value is not None else block.model_dump(by_alias=True)),
        )


def _of_call(block: CallBlock) -> Iterator[EntryText]:
    """A call: long arguments as the texts that they are, the others as JSON."""
    rest: dict[str, Any] = {}
    texts: list[EntryText] = []
    for name, value in block.input.items():
        if isinstance(value, str) and ("\n" in value or len(value) > 200):
            texts.append(EntryText(f"{block.name}: {name}", value))
        elif name == "edits" and isinstance(value, list):
            for old, new in replacements(FoldedCall(block.name, block.input)):
                texts += [
                    EntryText(f"{block.name}: old_string", old),
                    EntryText(f"{block.name}: new_string", new),
                ]
        else:
            rest[name] = cast("object", value)
    if rest or not texts:
        yield EntryText(block.name, json_shown(rest))
    yield from texts
