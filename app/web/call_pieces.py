"""A call of a tool and what came back, as one piece that folds to a line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from ...models.packing import full_stack
from ...models.views.blocks import (
    DocumentBlock,
    ImageBlock,
    McpToolResultBlock,
    ServerToolResultBlock,
    TextBlock,
    ToolReferenceBlock,
    ToolResultBlock,
)
from ...models.views.messages import AssistantEntry, UserEntry
from ..rendering.amounts import counted, seconds
from ..rendering.call_lines import CallLine, call_line
from ..rendering.clamps import clamped, cut_line
from ..rendering.diffs import MAX_ROWS, DiffRow, diff_rows
from ..rendering.folded_calls import MINUS, FoldedCall, LinePart, Told
from ..rendering.markup import code, one_line
from ..rendering.tool_lines import todo_items
from ..text import plain
from ..transcripts.tool_calls import CallBlock, ResultBlock
from .pictures import MAX_PICTURES, picture_of
from .piece_markup import (
    Html,
    PieceContext,
    clamped_text,
    entry_piece,
    facts,
    folded,
    hits_shown,
    line_of,
    said_inline,
    stopped,
)
from .shown_prose import shown_prose

_DIFFS = frozenset({"Edit", "MultiEdit", "Write"})
_SHELLS = frozenset({"Bash", "PowerShell"})
_QUIET = frozenset({"TodoWrite", "Write"})
_UNFOLDED_DIFF = 24
_MAX_TODOS = 50
_STATES = {"completed": ("done", "done"), "in_progress": ("now", "now")}
_DRAWN = {
    "done": '<path d="M2 7.5 5.5 11 12 3.5"/>',
    "now": '<circle cx="7" cy="7" r="5.5"/><path class="half" d="M7 1.5a5.5 5.5 0 0 1 0 11z"/>',
    "open": '<circle cx="7" cy="7" r="5.5"/>',
}


@dataclass(frozen=True, slots=True)
class AnsweredCall:
    """A call, with what came back as far as it was read."""

    seq: int
    part: int
    """Which piece of its entry it is, from 0."""
    block: CallBlock
    entry: AssistantEntry
    is_whole: bool = True
    result: ResultBlock | None = None
    result_entry: UserEntry | AssistantEntry | None = None
    result_seq: int | None = None
    result_is_whole: bool = True
    result_size: int = 0
    """Bytes of the entry that has it."""
    pictures_before: int = 0
    """How many pictures the entry of the result has before its own."""
    goes_on: bool = False
    """Whether the answer may still come."""
    waits_seconds: float | None = None

    @property
    def took(self) -> float | None:
        """Seconds from the call to its answer."""
        if self.result_entry is None:
            return self.waits_seconds
        begun, ended = self.entry.timestamp, self.result_entry.timestamp
        return (ended - begun).total_seconds() if begun and ended else None

    @property
    def is_error(self) -> bool:
        """Whether the tool says that it failed."""
        return bool(getattr(self.result, "is_error", False))


def call_piece(
    context: PieceContext,
    call: AnsweredCall,
    *,
    below: tuple[Html, Sequence[Told], bool] | None = None,
    is_last_list: bool = False,
) -> Html:
    """The piece of a call.

    ``below`` is what stands in it of the subagents that it started, what these came to, and
    whether they are unfolded.
    """
    told = _folded(context, call)
    denial = (
        call.result_entry.tool_denial_kind if isinstance(call.result_entry, UserEntry) else None
    )
    line = call_line(
        told,
        is_error=call.is_error,
        is_answered=call.result is not None,
        goes_on=call.goes_on,
        denial=denial,
    )
    rows = diff_rows(told) if call.block.name in _DIFFS else []
    inside = [*_inside(context, call, told, line, rows, has_agents=below is not None)]
    count = context.found.count(told.output) + sum(map(context.found.count, _texts(told.input)))
    others = [] if call.result_seq is None else [call.result_seq]
    places = [call.seq, *others]
    is_open = (
        any(map(context.is_open, places))
        or (0 < len(rows) <= _UNFOLDED_DIFF)
        or (is_last_list and told.name == "TodoWrite")
        or (below is not None and below[2])
    )
    agents, agent_told = (below[0], below[1]) if below is not None else ("", ())
    body = folded(
        _summary(context, line, agent_told, count), "".join(inside), is_open=is_open, above=agents
    )
    kinds = ["call"]
    kinds += ["agent"] if agents else []
    kinds += ["fails"] if line.has_failed else []
    kinds += ["runs"] if line.is_running else []
    return entry_piece(
        context,
        call.seq,
        " ".join(kinds),
        body,
        part=call.part,
        others=[each for each in others if each != call.seq],
    )


def runs_shown(runs: Sequence[LinePart]) -> Html:
    """The parts of a line."""
    return "".join(
        f"<code><bdi>{one_line(run.text, 400)}</bdi></code>"
        if run.is_code
        else (" " if run.text[:1] == " " else "") + said_inline(run.text, 400)
        for run in runs
        if run.text
    )


def outcome_shown(outcome: Sequence[Told]) -> Html:
    """How it came out."""
    parts = [
        f'<span class="{told.tone}">{one_line(told.text, 120)}</span>'
        if told.tone
        else f"<bdi>{one_line(told.text, 120)}</bdi>"
        for told in outcome
    ]
    is_change = bool(outcome) and all(told.tone in ("add", "del") for told in outcome)
    return (" " if is_change else " · ").join(parts)


def _summary(context: PieceContext, line: CallLine, agent_told: Sequence[Told], count: int) -> Html:
    mark = f' <span class="quiet">{escape(line.mark)}</span>' if line.mark else ""
    what = context.found.marked(runs_shown(line.what)) + hits_shown(context, count)
    outcome = line.outcome if line.has_failed or line.is_running else agent_told or line.outcome
    return line_of(said_inline(line.label, 60) + mark, what, outcome_shown(outcome))


def _folded(context: PieceContext, call: AnsweredCall) -> FoldedCall:
    entry = call.result_entry
    return FoldedCall(
        call.block.name,
        call.block.input,
        result_text(call.result),
        entry.tool_use_result if isinstance(entry, UserEntry) else None,
        sum(1 for _ in result_pictures(call.result)),
        context.cwd,
        context.who,
        call.took,
        call.result_is_whole,
        call.result_size,
    )


def result_text(result: ResultBlock | None) -> str:
    """What the model was told, as text."""
    if result is None:
        return ""
    if isinstance(result, ServerToolResultBlock):
        return json_shown(result.content)
    if isinstance(result.content, str):
        return result.content
    parts: list[str] = []
    for block in result.content:
        if isinstance(block, TextBlock):
            parts.append(block.text)
        elif isinstance(block, ToolReferenceBlock):
            parts.append(f"[tool {block.tool_name}]")
        elif not isinstance(block, ImageBlock):
            parts.append(f"[{block.type!s}]")
    return "\n".join(parts)


def result_pictures(result: ResultBlock | None) -> Iterator[ImageBlock | DocumentBlock]:
    """The pictures and documents that came back."""
    if isinstance(result, ToolResultBlock | McpToolResultBlock) and isinstance(
        result.content, list
    ):
        for block in result.content:
            if isinstance(block, ImageBlock | DocumentBlock):
                yield block


def json_shown(value: Any) -> str:
    """A value as JSON for people."""
    try:
        return json.dumps(value, ensure_ascii=False, indent=2)
    except RecursionError:
        # Without an indent it takes less of the stack.
        return full_stack(lambda: json.dumps(value, ensure_ascii=False))


def _texts(arguments: Mapping[str, Any]) -> Iterator[str]:
    for value in arguments.values():
        if isinstance(value, str):
            yield value
        elif isinstance(value, (list, dict)):
            yield json_shown(value)


def _inside(
    context: PieceContext,
    call: AnsweredCall,
    told: FoldedCall,
    line: CallLine,
    rows: Sequence[DiffRow],
    *,
    has_agents: bool,
) -> Iterator[Html]:
    if told.name == "TodoWrite" and (items := todo_items(told.input)):
        yield _todo_list(context, call.seq, items)
    elif told.name == "ExitPlanMode" and told.text("plan"):
        yield shown_prose(context, call.seq, told.text("plan"))
    elif rows:
        yield _diff(context, call.seq, rows)
    elif told.name in _SHELLS and told.text("command"):
        yield _shell(context, call, told)
    elif told.name == "Write" and told.text("content"):
        shown = clamped(plain(told.text("content")))
        text = clamped_text(context, call.seq, shown, is_whole=call.is_whole)
        yield f'<pre class="given" dir="auto" tabindex="0">{text}</pre>'
    elif told.input and not has_agents:
        shown = clamped(plain(json_shown(told.input)))
        text = clamped_text(context, call.seq, shown, is_whole=call.is_whole)
        yield f'<pre class="given" dir="auto" tabindex="0">{text}</pre>'
    seq = call.seq if call.result_seq is None else call.result_seq
    # That a list or a file was changed says the line already.
    is_said = not line.has_failed and (bool(rows) or told.name in _QUIET)
    if told.output.strip() and not is_said:
        text = clamped(plain(told.output), of_failure=line.has_failed)
        shown = clamped_text(context, seq, text, is_whole=call.result_is_whole)
        bad = " bad" if line.has_failed else ""
        yield f'<pre class="came{bad}" dir="auto" tabindex="0">{shown}</pre>'
    pictures = list(result_pictures(call.result))
    for number, picture in enumerate(pictures[:MAX_PICTURES], call.pictures_before):
        yield picture_of(
            context, seq, number, picture, "returned by the tool", is_whole=call.result_is_whole
        )
    if (hidden := len(pictures) - MAX_PICTURES) > 0:
        yield stopped(context, seq, counted(hidden, "more picture"), hidden)
    said = [
        said_inline(told.name, 120) if told.name != line.label else "",
        f"took {seconds(took)}" if (took := call.took) is not None and call.result else "",
        f"answer: entry {call.result_seq}" if call.result_seq not in (None, call.seq) else "",
    ]
    yield facts(context, call.seq, *said)


def _shell(context: PieceContext, call: AnsweredCall, told: FoldedCall) -> Html:
    command = told.text("command")
    rest = {name: value for name, value in told.input.items() if name != "command"}
    shown = clamped(plain(command))
    text = (
        context.found.marked(code(command, "bash"))
        if shown.is_whole and call.is_whole
        else clamped_text(context, call.seq, shown, is_whole=call.is_whole)
    )
    about = ", ".join(
        f"{name}: {value if isinstance(value, str) else json_shown(value)}"
        for name, value in rest.items()
    )
    name = f'<p class="block-name" dir="auto">{one_line(about, 400)}</p>' if about else ""
    return f'{name}<pre class="given" dir="auto" tabindex="0">{text}</pre>'


def _todo_list(context: PieceContext, seq: int, items: Sequence[tuple[str, str]]) -> Html:
    shown: list[str] = []
    for state, text in items[:_MAX_TODOS]:
        kind, word = _STATES.get(state, ("open", "open"))
        shown.append(
            f'<li class="{kind}"><svg viewBox="0 0 14 14" aria-hidden="true">{_DRAWN[kind]}</svg>'
            f'<span dir="auto"><span class="sr">{word}: </span>'
            f"{context.found.marked(one_line(text, 1_000))}</span></li>"
        )
    hidden = len(items) - _MAX_TODOS
    rest = stopped(context, seq, counted(hidden, "more item"), hidden) if hidden > 0 else ""
    return f'<ul class="todo">{"".join(shown)}</ul>{rest}'


def _diff(context: PieceContext, seq: int, rows: Sequence[DiffRow]) -> Html:
    shown = [context.found.marked(_diff_row(row)) for row in rows[:MAX_ROWS]]
    hidden = len(rows) - MAX_ROWS
    if hidden > 0:
        shown.append(
            f'<span class="clamp"><span>{counted(hidden, "line")} of this change are not shown '
            f'here.</span><a href="{context.addresses.whole(seq)}">Show all</a></span>'
        )
    return f'<pre class="diff">{"".join(shown)}</pre>'


def _diff_row(row: DiffRow) -> Html:
    text = plain(cut_line(row.text))
    if row.sign == "@":
        return f'<span class="gap"><i></i><i></i><b></b><span>{escape(text)}</span></span>'
    shown = escape(text)
    if row.changed is not None and text == row.text and row.changed[0] < row.changed[1]:
        start, end = row.changed
        shown = f"{escape(text[:start])}<em>{escape(text[start:end])}</em>{escape(text[end:])}"
    tag, sign = {"+": ("ins", "+"), "-": ("del", MINUS)}.get(row.sign, ("span", "&nbsp;"))
    numbers = "".join(f"<i>{number or ''}</i>" for number in (row.old, row.new))
    return f'<{tag}>{numbers}<b>{sign}</b><span dir="auto">{shown}</span></{tag}>'
