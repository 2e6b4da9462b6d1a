"""Code in colours, as HTML."""

from __future__ import annotations

from html import escape
from typing import Any, cast

from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name  # pyright: ignore[reportUnknownVariableType]
from pygments.util import ClassNotFound

# Typed in part only.
_formatter = cast("Any", HtmlFormatter)


def highlighted(text: str, language: str) -> str:
    """The text as HTML without a tag around it; escaped alone where the language is unknown."""
    try:
        lexer = get_lexer_by_name(language)
    except ClassNotFound:
        return escape(text)
    return highlight(text, lexer, _formatter(nowrap=True))


def style_of(name: str) -> str:
    """The style sheet of a palette, for what stands within ``pre``."""
    return _formatter(style=name).get_style_defs(["pre"])
