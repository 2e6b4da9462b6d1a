"""What of a transcript a page shows: pieces of text, each with its place in the page's order.

Nothing is decided here about how it looks. Each entry is turned into pieces as it comes, so that
a page is written while its session is read.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol, cast

from ...models.packing import full_stack
from ...models.views.blocks import (
    Block,
    DocumentBlock,
    ImageBlock,
    McpToolResultBlock,
    RedactedThinkingBlock,
    ServerToolResultBlock,
    TextBlock,
    ThinkingBlock,
    ToolResultBlock,
    UnknownBlock,
)
from ...models.views.messages import AssistantEntry, ConversationEntry, UserEntry
from ...models.views.parsing import parse_entry
from ...models.views.prompts import Said, parted
from ...models.views.records import AgentMetadataEntry, AiTitleEntry, CustomTitleEntry, SummaryEntry
from ...models.views.system import SystemEntry
from ..transcripts.subagent_origins import agent_of
from ..transcripts.tool_calls import CallBlock, ResultBlock
from ..transcripts.workflows import run_begun

_SHELLS = frozenset({"Bash", "BashOutput"})
_MAX_OPEN_CALLS = 10_000
# To render longer ones can take hours: some parts of it go with the square of the length.
_MAX_PROSE = 100_000
_MAX_PROSE_LINES = 1_000


@dataclass(frozen=True, slots=True)
class Speaker:
    """From here on, who said it and when."""

    name: str
    at: datetime | None


@dataclass(frozen=True, slots=True)
class Prose:
    """What was said: by the model in Markdown, or by a person, whose text is no Markdown."""

    text: str
    is_typed: bool = False
    """Whether every character and every line of it stands for itself."""


@dataclass(frozen=True, slots=True)
class Output:
    """A text that is shown as it is: what a tool was given or returned."""

    title: str
    text: str
    language: str = ""
    is_folded: bool = False


@dataclass(frozen=True, slots=True)
class Call(Output):
    """What a tool was given."""

    id: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict[str, Any])
    about: str = ""
    """What it was given besides the text."""


@dataclass(frozen=True, slots=True)
class Result(Output):
    """What a tool returned."""

    name: str = ""
    """That of the tool."""
    call_id: str | None = None
    agent_id: str | None = None
    """The subagent whose outcome it is, where the agent says so."""
    run: str | None = None
    """The run of a workflow that the call began."""
    is_error: bool = False


@dataclass(frozen=True, slots=True)
class Note:
    """A line about the conversation, by the agent or by us."""

    text: str


Piece = Speaker | Prose | Output | Note


class Page(Protocol):
    """A way to write pieces down; everything in them is anybody's text."""

    ending: str

    def head(self, title: str, facts: Mapping[str, str]) -> str:
        """What comes before the first piece."""
        ...

    def subagent(self, title: str) -> str:
        """What comes before a subagent's first piece."""
        ...

    def piece(self, piece: Piece) -> str:
        """One piece."""
        ...

    def foot(self) -> str:
        """What comes behind the last piece."""
        ...


class Pieces:
    """Turns the entries of one transcript into pieces, in their order.

    Args:
        is_subagent: whether it is a subagent's transcript. In a main one, what subagents of older
            agents wrote stands between the lines of the session.
    """

    def __init__(self, *, is_subagent: bool = False) -> None:
        self._is_subagent = is_subagent
        self._speaker: str | None = None
        self._calls: dict[str, str] = {}
        self._left_out: Counter[str] = Counter()

    def of(self, entry: Mapping[str, Any]) -> Iterator[Piece]:
        """The pieces that an entry adds."""
        view = parse_entry(entry)
        if isinstance(view, UserEntry | AssistantEntry):
            yield from self._message(view)
        elif isinstance(view, SystemEntry) and isinstance(view.content, str) and view.content:
            yield Note(view.content)
        elif isinstance(view, CustomTitleEntry) and view.custom_title:
            yield Note(f"Title: {view.custom_title}")
        elif isinstance(view, AiTitleEntry) and view.ai_title:
            yield Note(f"Title: {view.ai_title}")
        elif isinstance(view, SummaryEntry) and view.summary:
            yield Note(f"Summary: {view.summary}")
        # What a subagent is stands above its transcript already.
        elif not isinstance(view, AgentMetadataEntry):
            self._left_out[str(view.type)[:60]] += 1

    def rest(self) -> Iterator[Piece]:
        """What is said of the entries that gave no piece."""
        if self._left_out:
            kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self._left_out.items()))
            yield Note(f"Entries not shown: {kinds}")

    def _message(self, entry: UserEntry | AssistantEntry) -> Iterator[Piece]:
        name = _speaker(entry, is_aside=entry.is_sidechain and not self._is_subagent)
        parts = iter(_parts(entry))
        for block in entry.blocks:
            is_result = isinstance(block, ToolResultBlock | McpToolResultBlock)
            # A result belongs to the call, whoever passes it on.
            if name != self._speaker and not is_result:
                self._speaker = name
                yield Speaker(name, entry.timestamp)
            if isinstance(block, TextBlock) and (said := next(parts, None)) is not None:
                yield from _said(said, is_typed=_is_typed(entry))
            else:
                yield from self._block(block, entry)

    def _block(self, block: Block, entry: ConversationEntry) -> Iterator[Piece]:
        if isinstance(block, TextBlock):
            yield _prose(block.text, is_typed=_is_typed(entry))
            if cited := _cited(block):
                yield Output("Citations", cited, "json", is_folded=True)
        elif isinstance(block, ThinkingBlock):
            yield Output("Thinking", block.thinking, is_folded=True)
        elif isinstance(block, CallBlock):
            if block.id is not None and len(self._calls) < _MAX_OPEN_CALLS:
                self._calls[block.id] = block.name
            yield _call(block)
        elif isinstance(block, ResultBlock):
            yield self._result(block, entry)
        else:
            described, text = _described(block), _told(block)
            yield Output(described, text, is_folded=True) if text else Note(described)

    def _result(self, block: ResultBlock, entry: ConversationEntry) -> Result:
        name = self._calls.pop(block.tool_use_id or "", "a tool")
        returned = entry.tool_use_result if isinstance(entry, UserEntry) else None
        is_error = not isinstance(block, ServerToolResultBlock) and block.is_error
        text, language = (
            (_json(block.content), "json")
            if isinstance(block, ServerToolResultBlock)
            else (_returned(block), "")
        )
        return Result(
            f"{'Error' if is_error else 'Result'} of {name}",
            text,
            language,
            is_folded=True,
            name=name,
            call_id=block.tool_use_id,
            agent_id=agent_of(returned),
            run=run_begun(returned),
            is_error=is_error,
        )

    def turn_to_another(self) -> None:
        """Say anew who speaks, for something else stands between."""
        self._speaker = None


def _parts(entry: UserEntry | AssistantEntry) -> list[Said]:
    """The texts of a prompt, each parted by who said it; none of any other entry."""
    if not isinstance(entry, UserEntry) or not entry.is_prompt:
        return []
    return parted(block.text for block in entry.blocks if isinstance(block, TextBlock))


def _said(said: Said, *, is_typed: bool) -> Iterator[Piece]:
    if said.typed:
        yield _prose(said.typed, is_typed=is_typed)
    if said.added:
        yield Output("Added by the agent", said.added, is_folded=True)


def _speaker(entry: ConversationEntry, *, is_aside: bool) -> str:
    if isinstance(entry, AssistantEntry):
        if entry.is_made_up:
            return "Agent"
        return "Subagent" if is_aside else "Assistant"
    if isinstance(entry, UserEntry) and entry.is_prompt and not is_aside:
        return "User"
    return "Agent"


def _is_typed(entry: ConversationEntry) -> bool:
    """Whether its texts are no Markdown: those of the model are, also where it asks a subagent."""
    return isinstance(entry, UserEntry) and not (entry.is_compact_summary or entry.is_sidechain)


def is_long(text: str) -> bool:
    """Whether a text is too long to be rendered as Markdown."""
    return len(text) > _MAX_PROSE or text.count("\n") > _MAX_PROSE_LINES


def _prose(text: str, *, is_typed: bool) -> Piece:
    if is_long(text):
        return Output("Long text", text, is_folded=True)
    return Prose(text, is_typed)


def subagent_title(subpath: str, metadata: Mapping[str, Any]) -> str:
    """What a subagent is called: its kind and its task, where the agent says so."""
    kind, task = (str(metadata.get(name) or "") for name in ("agentType", "description"))
    return f"Subagent {': '.join(filter(None, (kind, task))) or subpath}"


def journals_left_out(journals: int, entries: int) -> Note:
    """What is said of what workflows keep beside the transcripts of their agents."""
    return Note(f"Journals of workflows, not shown: {journals}, with {entries} entries")


def _call(block: CallBlock) -> Call:
    command = block.input.get("command")
    if block.name in _SHELLS and isinstance(command, str):
        rest = {name: value for name, value in block.input.items() if name != "command"}
        about = ", ".join(
            f"{name}: {value if isinstance(value, str) else _json(value)}"
            for name, value in rest.items()
        )
        return Call(block.name, command, "bash", id=block.id, arguments=block.input, about=about)
    return Call(block.name, _json(block.input), "json", id=block.id, arguments=block.input)


def _returned(block: ToolResultBlock | McpToolResultBlock) -> str:
    if isinstance(block.content, str):
        return block.content
    parts: list[str] = []
    for each in block.content:
        is_text = isinstance(each, TextBlock)
        parts += [each.text, _cited(each)] if is_text else [_described(each), _told(each)]
    return "\n".join(filter(None, parts)).strip("\n")


def _cited(block: TextBlock) -> str:
    return _json(block.citations) if block.citations else ""


def _described(block: Block) -> str:
    if isinstance(block, ImageBlock | DocumentBlock) and (source := block.source) is not None:
        kind = source.media_type or source.type or "unknown kind"
        where = source.url or source.file_id
        size = f"{len(source.data or '') * 3 // 4:,} bytes" if where is None else where
        return f"[{block.type}: {kind}, {size}]"
    return f"[{block.type!s}]"


def _told(block: Block) -> str:
    """What a block of no shape of its own on a page says."""
    if isinstance(block, RedactedThinkingBlock):
        return ""
    if isinstance(block, UnknownBlock):
        value = block.value
    else:
        value = block.model_dump(by_alias=True, exclude_unset=True)
    if isinstance(block, ImageBlock | DocumentBlock) and (source := block.source) is not None:
        # Of pictures and files the size is told; a document may be a text as well.
        told = {"source": source.data} if source.type == "text" else {}
        value = {**{n: v for n, v in value.items() if n != "source"}, **told}
    if isinstance(value, dict):
        value = {n: v for n, v in cast("dict[str, Any]", value).items() if n != "type"}
    return _json(value) if value else ""


# Escapes of JSON, but for quotation marks and backslashes.
_ESCAPES = re.compile(r'\\(?:(["\\])|([nrtbf])|u([0-9a-f]{4}))')
_CONTROLS = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f"}


def _json(value: Any) -> str:
    """A value as JSON for people: lines of a text are lines."""
    try:
        written = json.dumps(value, ensure_ascii=False, indent=2)
    except RecursionError:
        # Without an indent it is written by other code, which needs less of the stack.
        written = full_stack(lambda: json.dumps(value, ensure_ascii=False))
    return _ESCAPES.sub(_unescaped, written)


def _unescaped(escape: re.Match[str]) -> str:
    quoted, control, code = escape.groups()
    if quoted:
        return escape.group()
    return _CONTROLS[control] if control else chr(int(code, 16))
