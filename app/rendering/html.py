"""A session as a page of HTML: one file, without scripts, that loads nothing.

Texts are written by :mod:`.markup`, and the page's own policy forbids the browser to run or to
load anything, should that fail.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from ..text import line, plain
from .highlighting import CODE_STYLE
from .markup import code, prose, typed
from .pieces import Call, Output, Piece, Prose, Speaker

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"

_STYLE = """
:root { color-scheme: light dark; --ink: #15191d; --ink-3: #59616a; --paper: #fff; }
:root { --code: #f4f6f8; --line: #77818a; --link: #0a5c6b; }
@media (prefers-color-scheme: dark) {
:root { --ink: #e6eaec; --ink-3: #98a2a9; --paper: #161b1e; --code: #1d2327; --link: #74c7d6; }
}
body { margin: 0; background: var(--paper); color: var(--ink); }
body { font: 16px/1.5 system-ui, sans-serif; }
header, main { max-width: 60rem; margin: 0 auto; overflow-wrap: anywhere; }
header { padding: 1.5rem 1rem 0; } main { padding: 0 1rem 3rem; } a { color: var(--link); }
h1 { font-size: 1.4rem; } h2 { margin-top: 3rem; font-size: 1.2rem; }
h3 { margin: 2rem 0 .5rem; font-size: 1rem; } time, .note, dl { color: var(--ink-3); }
time, .note, dl { font-size: .85rem; font-weight: 400; } h4, h5, h6 { font-size: 1rem; }
dl { display: grid; grid-template-columns: auto 1fr; gap: 0 1rem; } dd { margin: 0; }
.prose { border-left: 3px solid var(--line); padding-left: 1rem; }
.prose .address, .prose .language { color: var(--ink-3); font-size: .85em; }
.typed, .prose > .written { white-space: pre-wrap; }
pre { overflow-x: auto; padding: .6rem; background: var(--code); border-radius: 4px; }
pre, summary, .title { font-family: ui-monospace, monospace; font-size: .85rem; }
summary, .title { font-weight: 600; margin: .8rem 0 .2rem; min-height: 1.5rem; }
:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
table { border-collapse: collapse; } th, td { border: 1px solid var(--line); padding: .2rem .5rem; }
@media print { pre { white-space: pre-wrap; overflow-wrap: anywhere; } }
"""
_HEADINGS = 4


class HtmlPage:
    """Writes pieces as HTML."""

    ending = ".html"

    def head(self, title: str, facts: Mapping[str, str]) -> str:
        """Everything up to the first piece."""
        shown = escape(line(title, None))
        listed = "".join(
            f"<dt>{escape(name)}</dt><dd>{escape(line(value, None))}</dd>"
            for name, value in facts.items()
        )
        return (
            f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
            f'<meta name="referrer" content="no-referrer">\n'
            f'<meta name="viewport" content="width=device-width">\n<title>{shown}</title>\n'
            f"<style>{_STYLE}{CODE_STYLE}</style>\n</head>\n<body>\n"
            f'<header><h1 dir="auto">{shown}</h1>\n<dl>{listed}</dl></header>\n'
            f"<main>\n<h2>Conversation</h2>\n"
        )

    def subagent(self, title: str) -> str:
        """A heading."""
        return f'<h2 dir="auto">{escape(line(title, None))}</h2>\n'

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
            # What scrolls sideways is to be reached by keys.
            shown = f'<pre tabindex="0" dir="auto">{code(piece.text, piece.language)}</pre>'
            if piece.is_folded:
                return f"<details><summary><bdi>{title}</bdi></summary>{shown}</details>\n"
            return f'<div class="title" dir="auto">{title}</div>{shown}\n'
        text = line(piece.text, None)
        return f'<p class="note" dir="auto">{escape(text)}</p>\n' if text else ""

    def foot(self) -> str:
        """What closes the page."""
        return "</main>\n</body>\n</html>\n"

    def _prose(self, piece: Prose) -> str:
        if not plain(piece.text).strip():
            return ""
        if piece.is_typed:
            return f'<div class="prose typed" dir="auto">{typed(piece.text)}</div>\n'
        return f'<div class="prose" dir="auto">{prose(piece.text, highest=_HEADINGS)}</div>\n'
