"""A session as a page of HTML: one file, without scripts, that loads nothing.

Texts are escaped; Markdown is rendered without HTML and sanitised on top; and the page's own
policy forbids the browser to run or to load anything, should both fail.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

import nh3

from .highlighting import highlighted, style_of
from .page import Output, Piece, Prose, Speaker
from .plain_text import line, plain
from .prose import SCHEMES, parser_of_texts

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_TAGS = {
    *("p", "br", "hr", "blockquote", "pre", "code", "span", "em", "strong", "s", "a"),
    *("h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "li"),
    *("table", "thead", "tbody", "tr", "th", "td"),
}
_ATTRIBUTES = {"a": {"href", "title"}, "span": {"class"}, "ol": {"start"}}

_STYLE = """
:root { color-scheme: light dark; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.4rem; } h2 { margin-top: 3rem; font-size: 1.2rem; }
h3 { margin: 2rem 0 .5rem; font-size: 1rem; } time, .note, dl { color: #777; font-size: .85rem; }
dt { float: left; clear: left; width: 8rem; } dd { margin-left: 8rem; }
.prose { border-left: 3px solid #8884; padding-left: 1rem; overflow-wrap: anywhere; }
.prose > * { font-size: 1rem; }
pre { overflow-x: auto; padding: .6rem; background: #8881; border-radius: 4px; font-size: .85rem; }
summary, .title { font: 600 .85rem ui-monospace, monospace; margin: .8rem 0 .2rem; }
table { border-collapse: collapse; } th, td { border: 1px solid #8884; padding: .2rem .5rem; }
"""


class HtmlPage:
    """Writes pieces as HTML."""

    ending = ".html"

    def __init__(self) -> None:
        self._parser = parser_of_texts(highlight=_highlighted_fence)
        self._parser.enable(["table", "strikethrough"])

    def head(self, title: str, facts: Mapping[str, str]) -> str:
        """Everything up to the first piece."""
        shown = escape(line(title))
        listed = "".join(
            f"<dt>{escape(name)}</dt><dd>{escape(line(value))}</dd>"
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
        return f"<h2>{escape(line(title))}</h2>\n"

    def piece(self, piece: Piece) -> str:
        """A heading, a rendered text, a block or a line."""
        if isinstance(piece, Speaker):
            at = f" <time>{piece.at:%Y-%m-%d %H:%M:%S}</time>" if piece.at else ""
            return f"<h3>{escape(piece.name)}{at}</h3>\n"
        if isinstance(piece, Prose):
            rendered = self._parser.render(plain(piece.text))
            return f'<div class="prose">{_sanitised(rendered)}</div>\n' if rendered.strip() else ""
        if isinstance(piece, Output):
            title = escape(line(piece.title))
            code = f"<pre>{highlighted(plain(piece.text), piece.language)}</pre>"
            if piece.is_folded:
                return f"<details><summary>{title}</summary>{code}</details>\n"
            return f'<div class="title">{title}</div>{code}\n'
        return f'<p class="note">{escape(line(piece.text))}</p>\n' if piece.text.strip() else ""

    def foot(self) -> str:
        """What closes the page."""
        return "</body>\n</html>\n"


def _sanitised(html: str) -> str:
    return nh3.clean(
        html,
        tags=_TAGS,
        attributes=_ATTRIBUTES,
        url_schemes=SCHEMES,
        link_rel="noopener noreferrer nofollow",
    )


def _highlighted_fence(text: str, language: str, _: str) -> str:
    return highlighted(text, language)
