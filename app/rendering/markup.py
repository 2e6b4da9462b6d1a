"""Texts of a transcript as HTML that can do no harm: Markdown, what a person typed, code.

Texts are escaped; Markdown is rendered without HTML and sanitised on top. Every word of a text can
be seen: what Markdown would swallow is shown as it was written. What stands within is anybody's
writing, in either direction, and turns nothing around beside it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from html import escape, unescape
from typing import Any

import nh3
from markdown_it.token import Token

from ..text import line, plain
from .highlighting import highlighted
from .prose import SCHEMES, Block, blocks, parser_of_texts, words

_TAGS = {
    *("p", "br", "hr", "blockquote", "pre", "code", "span", "em", "strong", "s", "a", "div"),
    *("h3", "h4", "h5", "h6", "ul", "ol", "li"),
    *("table", "thead", "tbody", "tr", "th", "td"),
}
_ATTRIBUTES = {
    "a": {"href"},
    "span": {"class"},
    "ol": {"start"},
    "li": {"value"},
    "th": {"scope"},
    "pre": {"tabindex", "class"},
    "div": {"tabindex", "class"},
}
_TAG = re.compile(r"<[^>]*>")
_NUMBER = re.compile(r'<li value="(\d+)">')
# Twice as deep as a list of fifty levels. Each takes some of Python's stack.
_MAX_NESTING = 100


def prose(text: str, *, highest: int = 3) -> str:
    """A text of the model, which is Markdown; ``highest`` is the level of its largest heading."""
    env: dict[str, Any] = {}
    shown = [_block(block, env, highest) for block in blocks(_parser(), plain(text), env)]
    return "".join(shown)


def typed(text: str) -> str:
    """What a person typed: every character and every line of it stands for itself."""
    return escape(plain(text))


def code(text: str, language: str = "") -> str:
    """A text as it is, in colours where its language is known."""
    return highlighted(plain(text), language) if language else escape(plain(text))


def one_line(text: str, length: int | None = None) -> str:
    """A text as one line."""
    return escape(line(text, length))


@cache
def _parser() -> Any:
    parser = parser_of_texts(maxNesting=_MAX_NESTING)
    parser.enable(["table", "strikethrough"])
    parser.add_render_rule("fence", _fence)
    parser.add_render_rule("code_block", _code_block)
    return parser


def _block(block: Block, env: dict[str, Any], highest: int) -> str:
    parser = _parser()
    shown = _sanitised(
        parser.renderer.render(_prepared(block.tokens, highest), parser.options, env)
    )
    if words(block.source) <= _visible_words(shown):
        return shown
    return f'<pre class="written" tabindex="0">{escape(block.source)}</pre>\n'


def _prepared(tokens: Sequence[Token], highest: int) -> list[Token]:
    """The tokens, with the addresses of links and the numbers of lists as they were written."""
    for token in tokens:
        if token.type == "list_item_open" and token.info:
            token.attrSet("value", token.info)
        elif token.type in ("heading_open", "heading_close"):
            level = min(int(token.tag[1]) + highest - 1, 6)
            token.tag = f"h{level}"
        elif token.type == "th_open":
            token.attrs = {"scope": "col"}
        elif token.children:
            token.children = _with_addresses_within(token.children)
    return list(tokens)


def _with_addresses_within(children: Sequence[Token]) -> list[Token]:
    found: list[Token] = []
    where = ""
    begun = 0
    for child in children:
        if child.type == "link_open":
            where = " ".join(str(child.attrs.get(name, "")) for name in ("href", "title")).strip()
            begun = len(found)
        found.append(child)
        if child.type == "link_close" and where:
            text = "".join(each.content for each in found[begun + 1 :])
            if text not in (where, where.removeprefix("mailto:")):
                found += _where(where)
            where = ""
    return found


def _where(address: str) -> list[Token]:
    begin = Token("where_open", "span", 1, {"class": "address"})
    return [begin, Token("text", "", 0, content=f" ({address})"), Token("where_close", "span", -1)]


def _visible_words(html: str) -> Any:
    return words(unescape(_TAG.sub(" ", html) + " ".join(_NUMBER.findall(html))))


def _sanitised(html: str) -> str:
    return nh3.clean(
        html,
        tags=_TAGS,
        attributes=_ATTRIBUTES,
        url_schemes=SCHEMES,
        link_rel="noopener noreferrer nofollow",
    )


def _fence(_: Any, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
    token = tokens[index]
    info = token.info.strip()
    label = f'<span class="language">{escape(info)}</span>' if info else ""
    language = info.partition(" ")[0]
    # What scrolls sideways is to be reached by keys.
    shown = highlighted(token.content, language)
    return f'{label}<pre tabindex="0"><code>{shown}</code></pre>\n'


def _code_block(_: Any, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
    return f'<pre tabindex="0"><code>{escape(tokens[index].content)}</code></pre>\n'
