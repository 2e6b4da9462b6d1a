"""One transcript, or a stretch of it, as pieces of HTML in their order."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from typing import Any, cast

from ...models.views.base import EntryView
from ...models.views.blocks import (
    Block,
    DocumentBlock,
    ImageBlock,
    RedactedThinkingBlock,
    TextBlock,
    ThinkingBlock,
    UnknownBlock,
)
from ...models.views.messages import AssistantEntry, AttachmentEntry, ProgressEntry, UserEntry
from ...models.views.parsing import KNOWN_KINDS
from ...models.views.prompts import parted
from ...models.views.system import ApiErrorEntry, CompactBoundaryEntry, SystemEntry
from ..reading.glimpses import Glimpse
from ..rendering.amounts import byte_size, counted, seconds
from ..rendering.clamps import MAX_TYPED_CHARACTERS, MAX_TYPED_LINES, clamped
from ..rendering.markup import prose
from ..rendering.pieces import is_long
from ..rendering.tool_lines import Told
from ..text import line, plain
from ..transcripts.tool_calls import CallBlock, ResultBlock
from .call_pieces import call_piece, json_shown, result_text
from .joined_answers import JoinedAnswers
from .pictures import picture_of
from .piece_markup import (
    Html,
    PieceContext,
    clamped_text,
    entry_piece,
    facts,
    folded,
    hits_shown,
    into,
    line_of,
    moment_shown,
    said_inline,
)

_logger = logging.getLogger("beanie_session_store.web")

_FIRST_SENTENCE = re.compile(r"\s*(.{1,200}?[.!?…])(?:\s|$)", re.S)
_TAG = re.compile(r"\s*<([a-zA-Z_-]{1,40})[^>]{0,200}>")
_KINDS = {
    "system-reminder": "Reminder",
    "system_reminder": "Reminder",
    "task-notification": "Notification",
    "local-command-caveat": "Notice",
    "local-command-stdout": "Output of a command",
    "local-command-stderr": "Output of a command",
    "bash-stdout": "Output of a command",
    "bash-stderr": "Output of a command",
    "ide_opened_file": "Editor",
    "ide_selection": "Editor",
}


@dataclass(frozen=True, slots=True)
class ShownEntry:
    """The pieces of one entry."""

    seq: int
    html: Html
    is_prompt: bool = False
    """Whether a turn begins with it."""
    is_aside: bool = False
    """Whether a subagent wrote it into the main transcript."""
    text: str = ""
    """Of a prompt, what was asked."""
    is_seen: bool = True
    """Whether anything of it can be seen."""


@dataclass(slots=True)
class TranscriptPieces:
    """Turns entries of one transcript into pieces."""

    context: PieceContext
    answers: JoinedAnswers
    is_subagent: bool = False
    below: Mapping[tuple[int, int], tuple[Html, Sequence[Told], bool]] = field(
        default_factory=dict[tuple[int, int], tuple[Html, Sequence[Told], bool]]
    )
    """What stands in a call, by its position and part: subagents, what they came to, and whether
    they are unfolded."""
    left_out: Counter[str] = field(default_factory=Counter[str])
    """How many entries gave no piece, by their type."""
    _speaker: str = ""

    def of(self, glimpse: Glimpse, view: EntryView) -> ShownEntry:
        """The pieces of an entry; of one that cannot be shown, a line that says so."""
        try:
            return self._of(glimpse, view)
        except Exception as error:
            # Whatever one entry holds, the page goes on.
            _logger.warning("Entry %d could not be shown", glimpse.seq, exc_info=True)
            return ShownEntry(glimpse.seq, self.trouble(glimpse, type(error).__name__))

    def trouble(self, glimpse: Glimpse, why: str) -> Html:
        """The line that stands for an entry that cannot be shown."""
        address = self.context.addresses.json(glimpse.seq)
        words = (
            f"Entry {glimpse.seq} could not be shown ({said_inline(why)}). "
            f'<a href="{address}" download>JSON<span class="sr"> of entry {glimpse.seq}</span></a>'
        )
        return entry_piece(
            self.context, glimpse.seq, "meta", f'<p class="notice"><b>{words}</b></p>'
        )

    def _of(self, glimpse: Glimpse, view: EntryView) -> ShownEntry:
        if glimpse.problem is not None:
            return ShownEntry(glimpse.seq, self.trouble(glimpse, glimpse.problem))
        if isinstance(view, UserEntry | AssistantEntry):
            return self._message(glimpse, view)
        if isinstance(view, SystemEntry):
            return ShownEntry(glimpse.seq, self._system(glimpse, view))
        if isinstance(view, AttachmentEntry):
            return ShownEntry(glimpse.seq, self._attachment(glimpse, view))
        kind = glimpse.entry.get("type")
        is_known = isinstance(kind, str) and kind in KNOWN_KINDS
        if (is_known or isinstance(view, ProgressEntry)) and self.context.here != glimpse.seq:
            self.left_out[str(kind)[:60]] += 1
            return _unseen(glimpse.seq)
        return ShownEntry(glimpse.seq, self._record(glimpse, is_known))

    def _message(self, glimpse: Glimpse, view: UserEntry | AssistantEntry) -> ShownEntry:
        seq = glimpse.seq
        is_aside = view.is_sidechain and not self.is_subagent
        if isinstance(view, UserEntry) and view.is_compact_summary:
            return ShownEntry(seq, self._sum(glimpse, view))
        if isinstance(view, UserEntry) and (self.is_subagent or is_aside) and not view.tool_results:
            return ShownEntry(seq, self._task(glimpse, view), is_aside=is_aside)
        if isinstance(view, UserEntry) and view.is_prompt:
            html = self._prompt(glimpse, view)
            self._speaker = ""
            return ShownEntry(seq, html, is_prompt=True, text=view.prompt_text or "")
        html = "".join(self._blocks(glimpse, view))
        if html:
            return ShownEntry(seq, html, is_aside=is_aside)
        # The call that it answers has its place.
        return _unseen(seq, has_place=self._is_joined(glimpse, view))

    def _is_joined(self, glimpse: Glimpse, view: UserEntry | AssistantEntry) -> bool:
        calls = [
            self.answers.call_answered_by(glimpse.seq, block)
            for block in view.blocks
            if isinstance(block, ResultBlock)
        ]
        return any(call is not None and self.answers.is_shown(call) for call in calls)

    def _blocks(self, glimpse: Glimpse, view: UserEntry | AssistantEntry) -> Iterator[Html]:
        part = pictures = 0
        for block in view.blocks:
            shown = self._block(glimpse, view, block, part, pictures)
            if isinstance(block, ImageBlock | DocumentBlock):
                pictures += 1
            if shown:
                part += 1
                yield shown

    def _block(
        self,
        glimpse: Glimpse,
        view: UserEntry | AssistantEntry,
        block: Block,
        part: int,
        pictures: int,
    ) -> Html:
        seq = glimpse.seq
        if isinstance(block, CallBlock):
            call = self.answers.call(seq, block)
            if call is None:
                return ""
            below = self.below.get((seq, call.part))
            is_last = call.block.name == "TodoWrite" and self.answers.is_last_list(seq)
            # The piece is named after its place among the pieces of the entry.
            return call_piece(
                self.context, replace(call, part=part), below=below, is_last_list=is_last
            )
        if isinstance(block, ResultBlock):
            return self._result(glimpse, block, part)
        if isinstance(block, ThinkingBlock | RedactedThinkingBlock):
            return self._thinking(glimpse, block, part)
        if isinstance(block, TextBlock):
            if isinstance(view, AssistantEntry):
                return self._said(glimpse, view, block.text, part) if block.text.strip() else ""
            return self._added(glimpse, block.text, part)
        if isinstance(block, ImageBlock | DocumentBlock):
            shown = picture_of(
                self.context, seq, pictures, block, "of the conversation", is_whole=glimpse.is_whole
            )
            return entry_piece(self.context, seq, "text", shown, part=part)
        return self._unknown_block(glimpse, block, part)

    def _prompt(self, glimpse: Glimpse, view: UserEntry) -> Html:
        seq = glimpse.seq
        said = parted(block.text for block in view.blocks if isinstance(block, TextBlock))
        text = "\n".join(each.typed for each in said if each.typed)
        added = "\n".join(each.added for each in said if each.added)
        body = self._by(self.context.who or "User", "", view)
        if text.strip():
            body += f'<div class="prose typed" dir="auto">{self._typed(glimpse, text)}</div>'
        pictures = [each for each in view.blocks if isinstance(each, ImageBlock | DocumentBlock)]
        whose = f"given by {self.context.who or 'the user'}"
        for number, picture in enumerate(pictures):
            body += picture_of(self.context, seq, number, picture, whose, is_whole=glimpse.is_whole)
        html = entry_piece(self.context, seq, "prompt", body, with_json=True)
        return html + (self._added(glimpse, added, 1) if added.strip() else "")

    def _task(self, glimpse: Glimpse, view: UserEntry) -> Html:
        """What a subagent is asked; it is the model's text, which is Markdown."""
        text = view.text
        if not text.strip():
            return "".join(self._blocks(glimpse, view)) or f'<span id="e{glimpse.seq}"></span>\n'
        body = self._by("Asked by the assistant", "", view) + self._markdown(glimpse, text)
        self._speaker = ""
        return entry_piece(self.context, glimpse.seq, "prompt", body, with_json=True)

    def _said(self, glimpse: Glimpse, view: AssistantEntry, text: str, part: int) -> Html:
        if view.is_made_up:
            return self._made_up(glimpse, view, text, part)
        model = (view.message.model if view.message else None) or ""
        speaker = "Subagent" if self.is_subagent or view.is_sidechain else "Assistant"
        by = "" if self._speaker == speaker else self._by(speaker, model, view)
        self._speaker = speaker
        body = by + self._markdown(glimpse, text)
        return entry_piece(self.context, glimpse.seq, "text", body, part=part, with_json=True)

    def _made_up(self, glimpse: Glimpse, view: AssistantEntry, text: str, part: int) -> Html:
        """What the agent wrote in the model's place: an error is seen, a filler folded."""
        seq = glimpse.seq
        if view.is_api_error_message:
            shown = self.context.found.marked(said_inline(text, 1_000))
            body = f'<p class="notice"><b>Failed.</b> {shown}</p>'
            return entry_piece(self.context, seq, "meta", body, part=part)
        return self._folded_text(
            glimpse,
            "Synthetic",
            text,
            "no tokens",
            part,
            "put there by the agent, not by the model",
        )

    def _thinking(
        self, glimpse: Glimpse, block: ThinkingBlock | RedactedThinkingBlock, part: int
    ) -> Html:
        seq = glimpse.seq
        text = block.thinking if isinstance(block, ThinkingBlock) else ""
        if not text.strip():
            body = '<p class="notice">Thinking, redacted by the API or not kept</p>'
            return entry_piece(self.context, seq, "meta", body, part=part)
        first = _FIRST_SENTENCE.match(text)
        what = said_inline(first[1] if first else text)
        out = counted(len(text.split()), "word") if glimpse.is_whole else ""
        inside = self._markdown(glimpse, text, kind="quiet-prose") + facts(self.context, seq)
        return self._fold(glimpse, "think", "Thinking", what, out, inside, text, part)

    def _added(self, glimpse: Glimpse, text: str, part: int) -> Html:
        if not text.strip():
            return ""
        tag = _TAG.match(text)
        named = tag[1].lower() if tag else ""
        kind = _KINDS.get(named) or ("Hook" if named.endswith("-hook") else "")
        if not kind and text.lstrip().startswith("[Request interrupted"):
            body = f'<p class="notice"><b>Interrupted.</b> {said_inline(text.strip("[] "))}</p>'
            return entry_piece(self.context, glimpse.seq, "meta", body, part=part)
        words = text[tag.end() :].rpartition(f"</{tag[1]}>") if tag else ("", "", text)
        return self._folded_text(
            glimpse,
            "Added by the agent",
            text,
            counted(len(text.split()), "word") if glimpse.is_whole else "",
            part,
            "not typed by a person",
            what=f"{kind or named or 'Message'}: {line(words[0] or words[2], 200)}",
        )

    def _attachment(self, glimpse: Glimpse, view: AttachmentEntry) -> Html:
        kind = view.attachment.type if view.attachment else "attachment"
        texts = [
            str(cast("dict[str, Any]", each).get("content") or "")
            for each in view.rendered
            if isinstance(each, dict)
        ]
        text = "\n".join(filter(None, texts))
        raw = glimpse.entry.get("attachment")
        text = text or json_shown(
            {n: v for n, v in raw.items() if n != "type"} if isinstance(raw, dict) else raw
        )
        out = counted(len(text.split()), "word") if glimpse.is_whole else ""
        return self._folded_text(
            glimpse,
            "Added by the agent",
            text,
            out,
            0,
            "for the model",
            what=f"{kind.replace('_', ' ')}: {line(text, 200)}",
        )

    def _system(self, glimpse: Glimpse, view: SystemEntry) -> Html:
        seq = glimpse.seq
        if isinstance(view, CompactBoundaryEntry):
            return self._compaction(glimpse, view)
        if isinstance(view, ApiErrorEntry):
            words = f"<b>Tried again.</b> {said_inline(_api_error(view.error), 200)}"
            if view.retry_attempt:
                words += f"; attempt {view.retry_attempt} of {view.max_retries}"
            if view.retry_in_ms:
                words += f" after {seconds(view.retry_in_ms / 1000)}"
        elif isinstance(view.content, str) and view.content.strip():
            text = re.sub(r"</?local-command-[a-z]+>", "", view.content)
            if len(text) > 300 or "\n" in text.strip():
                out = counted(len(text.split()), "word")
                return self._folded_text(glimpse, "Notice", text, out, 0, "by the agent")
            words = self.context.found.marked(said_inline(text, 400))
        else:
            words = self._notice_of(view)
        return entry_piece(self.context, seq, "meta", f'<p class="notice">{words}</p>')

    def _notice_of(self, view: SystemEntry) -> Html:
        raw = view.raw
        if view.subtype == "stop_hook_summary":
            errors = raw.get("hookErrors")
            objected = len(cast("list[Any]", errors)) if isinstance(errors, list) else 0
            ran = raw.get("hookCount") if isinstance(raw.get("hookCount"), int) else 0
            return f"Hooks at the end of the turn: {ran} ran, {objected or 'none'} objected"
        if view.subtype == "turn_duration":
            took = raw.get("durationMs")
            return (
                f"The turn took {seconds(took / 1000)}"
                if type(took) in (int, float)
                else "The turn ended"
            )
        return f"Notice of the agent: {said_inline(str(view.subtype).replace('_', ' '), 80)}"

    def _compaction(self, glimpse: Glimpse, view: CompactBoundaryEntry) -> Html:
        told = view.compact_metadata
        before, after = (told.pre_tokens, told.post_tokens) if told else (None, None)
        words = "Compacted"
        if before is not None:
            words += f": {before:,} tokens of context"
            words += " became fewer" if after is None else f" became {after:,}"
        if told and told.trigger:
            words += f" ({'automatic' if told.trigger == 'auto' else line(told.trigger, 40)})"
        here = " here" if self.context.here == glimpse.seq else ""
        opening = f'<div class="compaction{here}" id="e{glimpse.seq}"{into(self.context)}>'
        return f"{opening}<p>{escape(words)}</p></div>\n"

    def _sum(self, glimpse: Glimpse, view: UserEntry) -> Html:
        seq = glimpse.seq
        text = view.text
        count = self.context.found.count(text)
        words = f", {counted(len(text.split()), 'word')}" if glimpse.is_whole else ""
        summary = (
            f"<span>What the agent went on from{words}{hits_shown(self.context, count)}</span>"
        )
        inside = self._markdown(glimpse, text) + facts(
            self.context, seq, "written by the agent, not by a person"
        )
        body = folded(summary, inside, is_open=self.context.is_open(seq))
        return f'<div class="compaction" id="e{seq}"{into(self.context)}>{body}</div>\n'

    def _result(self, glimpse: Glimpse, block: ResultBlock, part: int) -> Html:
        """The answer to a call that is shown elsewhere, or is not there."""
        call = self.answers.call_answered_by(glimpse.seq, block)
        if call is not None and self.answers.is_shown(call):
            return ""
        text = result_text(block)
        what = said_inline(text)
        where = ""
        if call is not None:
            address = self.context.addresses.place(call)
            where = f'<a href="{address}">to the call of entry {call}</a>'
        shown = clamped_text(
            self.context, glimpse.seq, clamped(plain(text)), is_whole=glimpse.is_whole
        )
        inside = f'<pre class="came" dir="auto" tabindex="0">{shown}</pre>' + facts(
            self.context, glimpse.seq, where
        )
        out = "" if not glimpse.is_whole else counted(text.count("\n") + 1, "line")
        return self._fold(glimpse, "call", "Answer", what, out, inside, text, part)

    def _unknown_block(self, glimpse: Glimpse, block: Block, part: int) -> Html:
        value = block.value if isinstance(block, UnknownBlock) else block.model_dump(by_alias=True)
        text = json_shown(value)
        kind = f"Block of kind {line(str(block.type), 60)}"
        return self._folded_text(glimpse, kind, text, byte_size(len(text)), part, "")

    def _record(self, glimpse: Glimpse, is_known: bool) -> Html:
        kind = said_inline(str(glimpse.entry.get("type")), 60)
        size = f", {byte_size(glimpse.size)}" if glimpse.size else ""
        words = "about the session itself" if is_known else "not known to this version"
        if not glimpse.entry:
            kind, words = "unknown", "of which too little was read to tell"
        addresses = self.context.addresses
        body = (
            f'<p class="notice">Entry of kind {kind}{size}, {words}. '
            f'<a href="{addresses.whole(glimpse.seq)}">Show it</a> · '
            f'<a href="{addresses.json(glimpse.seq)}" download>JSON'
            f'<span class="sr"> of entry {glimpse.seq}</span></a></p>'
        )
        return entry_piece(self.context, glimpse.seq, "meta", body)

    def _folded_text(
        self, glimpse: Glimpse, tool: str, text: str, out: str, part: int, fact: str, what: str = ""
    ) -> Html:
        shown = clamped_text(
            self.context, glimpse.seq, clamped(plain(text)), is_whole=glimpse.is_whole
        )
        inside = f'<pre class="came" dir="auto" tabindex="0">{shown}</pre>' + facts(
            self.context, glimpse.seq, escape(fact)
        )
        return self._fold(
            glimpse,
            "meta",
            said_inline(tool, 80),
            said_inline(what or text),
            out,
            inside,
            text,
            part,
        )

    def _fold(
        self,
        glimpse: Glimpse,
        kind: str,
        tool: Html,
        what: Html,
        out: str,
        inside: Html,
        text: str,
        part: int,
    ) -> Html:
        found = self.context.found
        told = found.marked(what) + hits_shown(self.context, found.count(text))
        is_open = self.context.is_open(glimpse.seq)
        body = folded(line_of(tool, told, escape(out)), inside, is_open=is_open)
        return entry_piece(self.context, glimpse.seq, kind, body, part=part)

    def _typed(self, glimpse: Glimpse, text: str) -> Html:
        shown = clamped(plain(text), max_lines=MAX_TYPED_LINES, max_characters=MAX_TYPED_CHARACTERS)
        return clamped_text(self.context, glimpse.seq, shown, is_whole=glimpse.is_whole)

    def _markdown(self, glimpse: Glimpse, text: str, kind: str = "prose") -> Html:
        if is_long(text) or not glimpse.is_whole:
            shown = clamped_text(
                self.context, glimpse.seq, clamped(plain(text)), is_whole=glimpse.is_whole
            )
            return f'<pre class="came" dir="auto" tabindex="0">{shown}</pre>'
        return f'<div class="{kind}" dir="auto">{self.context.found.marked(prose(text))}</div>'

    def _by(self, name: str, model: str, view: UserEntry | AssistantEntry) -> Html:
        models = f"<span><bdi>{escape(line(model, 80))}</bdi></span>" if model else ""
        return (
            f'<p class="by"><b><bdi>{escape(line(name, 80))}</bdi></b>{models}'
            f"{moment_shown(view.timestamp)}</p>"
        )


def _unseen(seq: int, *, has_place: bool = False) -> ShownEntry:
    """Where nothing of an entry is shown, a link to it still leads to its place."""
    return ShownEntry(seq, "" if has_place else f'<span id="e{seq}"></span>\n', is_seen=False)


def _api_error(error: object) -> str:
    """What the API said, in few words."""
    found = cast("dict[str, Any]", error) if isinstance(error, dict) else {}
    status = found.get("status")
    message = found.get("message")
    words = message if isinstance(message, str) else "The API did not answer"
    return f"{words} ({status})" if isinstance(status, int) else words
