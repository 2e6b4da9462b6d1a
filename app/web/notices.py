"""What the agent says of the conversation, and what it adds to it, as pieces."""

from __future__ import annotations

import re
from html import escape
from typing import Any, cast

from ...models.views.messages import AttachmentEntry
from ...models.views.system import ApiErrorEntry, CompactBoundaryEntry, SystemEntry
from ..reading.glimpses import Glimpse
from ..rendering.amounts import byte_size, counted, seconds
from ..text import line
from .call_pieces import json_shown
from .folded_texts import folded_text
from .piece_markup import Html, PieceContext, entry_piece, into, said_inline


def attachment_piece(context: PieceContext, glimpse: Glimpse, view: AttachmentEntry) -> Html:
    """What the agent added for the model."""
    kind = view.attachment.type if view.attachment else "attachment"
    texts = [
        str(cast("dict[str, Any]", each).get("content") or "")
        for each in view.rendered
        if isinstance(each, dict)
    ]
    text = "\n".join(filter(None, texts))
    raw = glimpse.entry.get("attachment")
    if isinstance(raw, dict):
        raw = {n: v for n, v in cast("dict[str, Any]", raw).items() if n != "type"}
    text = text or json_shown(raw)
    out = counted(len(text.split()), "word") if glimpse.is_whole else ""
    return folded_text(
        context,
        glimpse,
        "Added by the agent",
        text,
        out,
        0,
        "for the model",
        what=f"{kind.replace('_', ' ')}: {line(text, 200)}",
    )


def system_piece(context: PieceContext, glimpse: Glimpse, view: SystemEntry) -> Html:
    """A notice of the agent."""
    seq = glimpse.seq
    if isinstance(view, CompactBoundaryEntry):
        return _compaction(context, glimpse, view)
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
            return folded_text(context, glimpse, "Notice", text, out, 0, "by the agent")
        words = context.found.marked(said_inline(text, 400))
    else:
        words = _notice_of(view)
    return entry_piece(context, seq, "meta", f'<p class="notice">{words}</p>')


def _compaction(context: PieceContext, glimpse: Glimpse, view: CompactBoundaryEntry) -> Html:
    told = view.compact_metadata
    before, after = (told.pre_tokens, told.post_tokens) if told else (None, None)
    words = "Compacted"
    if before is not None:
        words += f": {before:,} tokens of context"
        words += " became fewer" if after is None else f" became {after:,}"
    if told and told.trigger:
        words += f" ({'automatic' if told.trigger == 'auto' else line(told.trigger, 40)})"
    here = " here" if context.here == glimpse.seq else ""
    opening = f'<div class="compaction{here}" id="e{glimpse.seq}"{into(context)}>'
    return f"{opening}<p>{escape(words)}</p></div>\n"


def record_piece(context: PieceContext, glimpse: Glimpse, is_known: bool) -> Html:
    """An entry of which a page shows no more than that it is there."""
    kind = said_inline(str(glimpse.entry.get("type")), 60)
    size = f", {byte_size(glimpse.size)}" if glimpse.size else ""
    words = "about the session itself" if is_known else "not known to this version"
    if not glimpse.entry:
        kind, words = "unknown", "of which too little was read to tell"
    addresses = context.addresses
    body = (
        f'<p class="notice">Entry of kind {kind}{size}, {words}. '
        f'<a href="{addresses.whole(glimpse.seq)}">Show it</a> · '
        f'<a href="{addresses.json(glimpse.seq)}" download>JSON'
        f'<span class="sr"> of entry {glimpse.seq}</span></a></p>'
    )
    return entry_piece(context, glimpse.seq, "meta", body)


def trouble_piece(context: PieceContext, glimpse: Glimpse, why: str) -> Html:
    """The line that stands for an entry that cannot be shown."""
    address = context.addresses.json(glimpse.seq)
    words = (
        f"Entry {glimpse.seq} could not be shown ({said_inline(why)}). "
        f'<a href="{address}" download>JSON<span class="sr"> of entry {glimpse.seq}</span></a>'
    )
    return entry_piece(context, glimpse.seq, "meta", f'<p class="notice"><b>{words}</b></p>')


def _notice_of(view: SystemEntry) -> Html:
    raw = view.raw
    if view.subtype == "stop_hook_summary":
        errors = raw.get("hookErrors")
        objected = len(cast("list[Any]", errors)) if isinstance(errors, list) else 0
        ran = raw.get("hookCount") if isinstance(raw.get("hookCount"), int) else 0
        return f"Hooks at the end of the turn: {ran} ran, {objected or 'none'} objected"
    if view.subtype == "turn_duration":
        took = raw.get("durationMs")
        if isinstance(took, (int, float)):
            return f"The turn took {seconds(took / 1000)}"
        return "The turn ended"
    return f"Notice of the agent: {said_inline(str(view.subtype).replace('_', ' '), 80)}"


def _api_error(error: object) -> str:
    """What the API said, in few words."""
    found = cast("dict[str, Any]", error) if isinstance(error, dict) else {}
    status = found.get("status")
    message = found.get("message")
    words = message if isinstance(message, str) else "The API did not answer"
    return f"{words} ({status})" if isinstance(status, int) else words
