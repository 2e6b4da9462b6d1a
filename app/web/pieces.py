"""One transcript, or a stretch of it, as pieces of HTML in their order."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape

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
from ...models.views.system import SystemEntry
from ..reading.glimpses import Glimpse
from ..rendering.amounts import byte_size, counted
from ..rendering.clamps import MAX_TYPED_CHARACTERS, MAX_TYPED_LINES, clamped
from ..rendering.folded_calls import Told
from ..text import line, plain
from ..transcripts.tool_calls import CallBlock, ResultBlock
from .call_pieces import call_piece, json_shown, result_text
from .folded_texts import fold, folded_text
from .joined_answers import JoinedAnswers
from .notices import attachment_piece, record_piece, system_piece, trouble_piece
from .pictures import MAX_PICTURES, picture_of
from .piece_markup import (
    Html,
    PieceContext,
    clamped_text,
    entry_piece,
    facts,
    folded,
    hits_shown,
    into,
    moment_shown,
    said_inline,
    stopped,
)
from .shown_prose import shown_prose

_logger = logging.getLogger("beanie_session_store.web")

# A window of 500 kB is to have room for an entry, whatever is in it.
_MAX_BLOCKS = 200
_MAX_ENTRY_CHARACTERS = 100_000

_FIRST_SENTENCE = re.compile(r"(.{1,200}?[.!?…])(?:\s|$)", re.S)
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
            trouble = trouble_piece(self.context, glimpse, type(error).__name__)
            return ShownEntry(glimpse.seq, trouble)

    def _of(self, glimpse: Glimpse, view: EntryView) -> ShownEntry:
        if glimpse.problem is not None:
            return ShownEntry(glimpse.seq, trouble_piece(self.context, glimpse, glimpse.problem))
        if isinstance(view, UserEntry | AssistantEntry):
            return self._message(glimpse, view)
        if isinstance(view, SystemEntry):
            return ShownEntry(glimpse.seq, system_piece(self.context, glimpse, view))
        if isinstance(view, AttachmentEntry):
            return ShownEntry(glimpse.seq, attachment_piece(self.context, glimpse, view))
        kind = glimpse.entry.get("type")
        is_known = isinstance(kind, str) and kind in KNOWN_KINDS
        if (is_known or isinstance(view, ProgressEntry)) and self.context.here != glimpse.seq:
            self.left_out[str(kind)[:60]] += 1
            return _unseen(glimpse.seq)
        return ShownEntry(glimpse.seq, record_piece(self.context, glimpse, is_known))

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
        part = pictures = size = 0
        for place, block in enumerate(view.blocks):
            if part >= _MAX_BLOCKS or size >= _MAX_ENTRY_CHARACTERS:
                rest = counted(len(view.blocks) - place, "more part")
                words = f"{rest} of this entry, with what answers them,"
                shown = stopped(self.context, glimpse.seq, words, len(view.blocks) - place)
                yield entry_piece(self.context, glimpse.seq, "meta", shown, part=part)
                return
            shown = self._block(glimpse, view, block, part, pictures)
            if isinstance(block, ImageBlock | DocumentBlock):
                pictures += 1
            if shown:
                part += 1
                size += len(shown)
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
        for number, picture in enumerate(pictures[:MAX_PICTURES]):
            body += picture_of(self.context, seq, number, picture, whose, is_whole=glimpse.is_whole)
        if (hidden := len(pictures) - MAX_PICTURES) > 0:
            body += stopped(self.context, seq, counted(hidden, "more picture"), hidden)
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
        return folded_text(
            self.context,
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
        first = _FIRST_SENTENCE.match(text.lstrip()[:400])
        what = said_inline(first[1] if first else text)
        out = counted(len(text.split()), "word") if glimpse.is_whole else ""
        inside = self._markdown(glimpse, text, kind="quiet-prose") + facts(self.context, seq)
        return fold(self.context, glimpse, "think", "Thinking", what, out, inside, text, part)

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
        return folded_text(
            self.context,
            glimpse,
            "Added by the agent",
            text,
            counted(len(text.split()), "word") if glimpse.is_whole else "",
            part,
            "not typed by a person",
            what=f"{kind or named or 'Message'}: {line(words[0] or words[2], 200)}",
        )

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
        return fold(self.context, glimpse, "call", "Answer", what, out, inside, text, part)

    def _unknown_block(self, glimpse: Glimpse, block: Block, part: int) -> Html:
        value = block.value if isinstance(block, UnknownBlock) else block.model_dump(by_alias=True)
        text = json_shown(value)
        kind = f"Block of kind {line(str(block.type), 60)}"
        return folded_text(self.context, glimpse, kind, text, byte_size(len(text)), part, "")

    def _typed(self, glimpse: Glimpse, text: str) -> Html:
        shown = clamped(plain(text), max_lines=MAX_TYPED_LINES, max_characters=MAX_TYPED_CHARACTERS)
        return clamped_text(self.context, glimpse.seq, shown, is_whole=glimpse.is_whole)

    def _markdown(self, glimpse: Glimpse, text: str, kind: str = "prose") -> Html:
        return shown_prose(self.context, glimpse.seq, text, kind=kind, is_whole=glimpse.is_whole)

    def _by(self, name: str, model: str, view: UserEntry | AssistantEntry) -> Html:
        models = f"<span><bdi>{escape(line(model, 80))}</bdi></span>" if model else ""
        return (
            f'<p class="by"><b><bdi>{escape(line(name, 80))}</bdi></b>{models}'
            f"{moment_shown(view.timestamp)}</p>"
        )


def _unseen(seq: int, *, has_place: bool = False) -> ShownEntry:
    """Where nothing of an entry is shown, a link to it still leads to its place."""
    return ShownEntry(seq, "" if has_place else f'<span id="e{seq}"></span>\n', is_seen=False)
