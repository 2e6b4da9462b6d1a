"""The HTML that all pieces of a session's page have in common: gutters, folds, clamps, times."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from html import escape

from ..rendering.amounts import byte_size
from ..rendering.clamps import Clamped
from ..rendering.markup import one_line
from ..sdk import SessionKey
from .addresses import Addresses
from .found_words import FoundWords

Html = str
"""HTML of ours, in which texts of others are escaped."""


@dataclass(frozen=True, slots=True)
class PieceAddresses:
    """Where the entries of one session are."""

    links: Addresses
    key: SessionKey

    def place(self, seq: int) -> Html:
        """An entry in its place on the page."""
        return escape(self.links.entry(self.key, seq))

    def json(self, seq: int) -> Html:
        """As it is stored."""
        return escape(self.links.within(self.key, f"e/{seq}.json"))

    def whole(self, seq: int) -> Html:
        """All that it says."""
        return escape(self.links.within(self.key, f"e/{seq}"))

    def text(self, seq: int) -> Html:
        """The same as a download."""
        return escape(self.links.within(self.key, f"e/{seq}/text"))

    def picture(self, seq: int, number: int) -> Html:
        """A picture in it."""
        return escape(self.links.within(self.key, f"e/{seq}/image/{number}"))

    def subagent(self, subpath: str) -> Html:
        """A subagent on a page of its own."""
        return escape(self.subagent_page(subpath))

    def subagent_page(self, subpath: str) -> str:
        """The same, not escaped yet."""
        return self.links.session(self.key, [("in", subpath.removeprefix("subagents/"))])


@dataclass(frozen=True, slots=True)
class PieceContext:
    """What the pieces of one page have in common."""

    addresses: PieceAddresses
    who: str = ""
    """Who asks in this session, as far as it is known."""
    cwd: str = ""
    goes_on: bool = False
    """Whether the agent may still be at work."""
    found: FoundWords = field(default_factory=lambda: FoundWords(""))
    here: int | None = None
    """The position that was asked for."""
    inside: str = ""
    """The id of what the script puts pieces into, where they come alone."""
    is_open: Callable[[int], bool] = lambda seq: False
    """Whether what folds a position is to be open."""


def entry_piece(
    context: PieceContext,
    seq: int,
    kind: str,
    body: Html,
    *,
    part: int = 0,
    others: Iterable[int] = (),
    with_json: bool = False,
) -> Html:
    """A piece with its gutter. ``others`` are positions that are shown in it as well."""
    name = f"e{seq}-{part}" if part else f"e{seq}"
    here = " here" if context.here is not None and context.here in (seq, *others) else ""
    json = (
        f'<a class="raw" href="{context.addresses.json(seq)}" download>JSON'
        f'<span class="sr"> of entry {seq}</span></a>'
        if with_json
        else ""
    )
    anchors = "".join(f'<span id="e{each}"></span>' for each in dict.fromkeys(others))
    return (
        f'<div class="entry {kind}{here}" id="{name}"{into(context)}><div class="gutter">'
        f'<a class="seq" href="{context.addresses.place(seq)}"><span class="sr">Entry </span>'
        f'{seq}</a>{json}</div><div class="body">{anchors}{body}</div></div>\n'
    )


def into(context: PieceContext) -> Html:
    """The attribute that tells the script where a piece belongs."""
    return f' data-in="{context.inside}"' if context.inside else ""


def folded(line: Html, inside: Html, *, is_open: bool = False, above: Html = "") -> Html:
    """A line that unfolds; ``above`` stands before what is inside."""
    opened = " open" if is_open else ""
    return (
        f'<details{opened}>\n<summary class="fold">{line}</summary>\n{above}'
        f'<div class="inside">{inside}</div></details>'
    )


def line_of(tool: Html, what: Html, out: Html) -> Html:
    """What stands on such a line."""
    return (
        f'<span class="tool">{tool}</span><span class="what">{what}</span>'
        f'<span class="out">{out}</span>'
    )


def facts(context: PieceContext, seq: int, *said: Html) -> Html:
    """The last line inside of what unfolds."""
    shown = "".join(f"<span>{each}</span>" for each in said if each)
    return (
        f'<p class="facts">{shown}<a href="{context.addresses.place(seq)}">Link'
        f'<span class="sr"> to entry {seq}</span></a><a href="{context.addresses.json(seq)}" '
        f'download>JSON<span class="sr"> of entry {seq}</span></a></p>'
    )


def clamped_text(context: PieceContext, seq: int, text: Clamped, *, is_whole: bool = True) -> Html:
    """A text in its lines; what is hidden of it is counted where it would stand."""
    found = context.found
    first = found.marked(escape(text.first))
    if text.is_whole and is_whole:
        return first
    addresses = context.addresses
    download = f'<a href="{addresses.text(seq)}" download>Download</a>'
    if not is_whole:
        return (
            f'{first}\n<span class="clamp"><span>Only the beginning is shown here.</span>'
            f'<a href="{addresses.whole(seq)}">Show all of entry {seq}</a>{download}</span>'
        )
    hidden = f"{text.hidden_lines:,} {'line' if text.hidden_lines == 1 else 'lines'}"
    return (
        f'{first}\n<span class="clamp"><span>{hidden} ({byte_size(text.hidden_characters)}) '
        f"{'is' if text.hidden_lines == 1 else 'are'} not shown here.</span>"
        f'<a href="{addresses.whole(seq)}">Show all {text.lines:,} lines</a>{download}</span>'
        f"{found.marked(escape(text.last))}"
    )


def stopped(context: PieceContext, seq: int, words: str, count: int) -> Html:
    """The line that stands for so many things of an entry that there is no room for."""
    is_or_are = "is" if count == 1 else "are"
    return (
        f'<p class="clamp"><span>{words} {is_or_are} not shown here.</span>'
        f'<a href="{context.addresses.whole(seq)}">Show all of entry {seq}</a></p>'
    )


def moment_shown(at: datetime | None) -> Html:
    """A time of day, which the script turns into the reader's zone."""
    if at is None:
        return ""
    return f'<time datetime="{at:%Y-%m-%dT%H:%M:%SZ}">{at:%H:%M:%S}</time>'


def hits_shown(context: PieceContext, count: int) -> Html:
    """How often what is looked for stands in what is folded."""
    if not count:
        return ""
    return f' <span class="hit">{count} {"hit" if count == 1 else "hits"}</span>'


def said_inline(text: str, length: int = 300) -> Html:
    """A text of anybody within a line of ours."""
    return f"<bdi>{one_line(text, length)}</bdi>"
