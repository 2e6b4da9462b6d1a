"""A session as a page of HTML: one file, without scripts, that loads nothing.

Texts are escaped; Markdown is rendered without HTML and sanitised on top; and the page's own
policy forbids the browser to run or to load anything, should both fail. Every word of a text can
be seen: what Markdown would swallow is shown as it was written.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape, unescape
from typing import Any

import nh3
from markdown_it.token import Token

from ..text import line, plain
from .highlighting import highlighted, style_of
from .pieces import Call, Output, Piece, Prose, Speaker
from .prose import SCHEMES, Block, blocks, parser_of_texts, words

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_TAGS = {
    *("p", "br", "hr", "blockquote", "pre", "code", "span", "em", "strong", "s", "a"),
    *("h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "li"),
    *("table", "thead", "tbody", "tr", "th", "td"),
}
_ATTRIBUTES = {"a": {"href"}, "span": {"class"}, "ol": {"start"}, "li": {"value"}}
_TAG = re.compile(r"<[^>]*>")
_NUMBER = re.compile(r'<li value="(\d+)">')
# Twice as deep as a list of fifty levels. Each takes some of Python's stack.
_MAX_NESTING = 100

_STYLE = """
:root { color-scheme: light dark; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.4rem; } h2 { margin-top: 3rem; font-size: 1.2rem; }
h3 { margin: 2rem 0 .5rem; font-size: 1rem; } time, .note, dl { color: #777; font-size: .85rem; }
dt { float: left; clear: left; width: 8rem; } dd { margin-left: 8rem; }
.prose { border-left: 3px solid #8884; padding-left: 1rem; overflow-wrap: anywhere; }
.prose > * { font-size: 1rem; }
.prose .where { color: #777; font-size: .85em; }
.typed, .prose > .written { white-space: pre-wrap; }
pre { overflow-x: auto; padding: .6rem; background: #8881; border-radius: 4px; font-size: .85rem; }
summary, .title { font: 600 .85rem ui-monospace, monospace; margin: .8rem 0 .2rem; }
table { border-collapse: collapse; } th, td { border: 1px solid #8884; padding: .2rem .5rem; }
"""


class HtmlPage:
    """Writes pieces as HTML."""

    ending = ".html"

    def __init__(self) -> None:
        self._parser = parser_of_texts(maxNesting=_MAX_NESTING)
        self._parser.enable(["table", "strikethrough"])
        self._parser.add_render_rule("fence", _fence)

    def head(self, title: str, facts: Mapping[str, str]) -> str:
        """Everything up to the first piece."""
        shown = escape(line(title, None))
        listed = "".join(
            f"<dt>{escape(name)}</dt><dd>{escape(line(value, None))}</dd>"
            for name, value in facts.items()
        )
        light, dark = style_of("default"), style_of("monokai")
        return (
            f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
            f'<meta name="referrer" content="no-referrer">\n'
            f'<meta name="viewport" content="width=device-width">\n<title>{shown}</title>\n'
            f"<style>{_STYLE}{light}\n@media (prefers-color-scheme: dark) {{ {dark} }}</style>\n"
            f"</head>\n<body>\n<h1>{shown}</h1>\n<dl>{listed}</dl>\n"
        )

    def subagent(self, title: str) -> str:
        """A heading."""
        return f"<h2>{escape(line(title, None))}</h2>\n"

    def piece(self, piece: Piece) -> str:
        """A heading, a rendered text, a block or a line."""
        if isinstance(piece, Speaker):
            at = f" <time>{piece.at:%Y-%m-%d %H:%M:%S}</time>" if piece.at else ""
            return f"<h3>{escape(piece.name)}{at}</h3>\n"
        if isinstance(piece, Prose):
            return self._prose(piece)
        if isinstance(piece, Output):
            title = escape(line(piece.title, None))
            if isinstance(piece, Call) and piece.about:
                title += f" <span>{escape(line(piece.about, None))}</span>"
            code = f"<pre>{highlighted(plain(piece.text), piece.language)}</pre>"
            if piece.is_folded:
                return f"<details><summary>{title}</summary>{code}</details>\n"
            return f'<div class="title">{title}</div>{code}\n'
        text = line(piece.text, None)
        return f'<p class="note">{escape(text)}</p>\n' if text else ""

    def foot(self) -> str:
        """What closes the page."""
        return "</body>\n</html>\n"

    def _prose(self, piece: Prose) -> str:
        text = plain(piece.text)
        if not text.strip():
            return ""
        if piece.is_typed:
            return f'<div class="prose typed">{escape(text)}</div>\n'
        env: dict[str, Any] = {}
        shown = [self._block(block, env) for block in blocks(self._parser, text, env)]
        return f'<div class="prose">{"".join(shown)}</div>\n'

    def _block(self, block: Block, env: dict[str, Any]) -> str:
        tokens = _with_addresses(block.tokens)
        shown = _sanitised(self._parser.renderer.render(tokens, self._parser.options, env))
        if words(block.source) <= _visible_words(shown):
            return shown
        return f'<pre class="written">{escape(block.source)}</pre>\n'


def _with_addresses(tokens: Sequence[Token]) -> list[Token]:
    """The tokens, with the addresses of links and the numbers of lists as they were written."""
    for token in tokens:
        if token.type == "list_item_open" and token.info:
            token.attrSet("value", token.info)
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
    begin = Token("where_open", "span", 1, {"class": "where"})
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
    label = f'<span class="where">{escape(info)}</span>' if info else ""
    language = info.partition(" ")[0]
    return f"{label}<pre><code>{highlighted(token.content, language)}</code></pre>\n"
