"""Code in colours, as HTML."""

from __future__ import annotations

from html import escape
from typing import Any, cast

from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name  # pyright: ignore[reportUnknownVariableType]
from pygments.util import ClassNotFound

# Colours are for people, and longer texts take long.
_MAX_LENGTH = 5_000
# On texts made for it, some of the others take minutes for a page of code.
_LANGUAGES = {
    *("bash", "sh", "shell", "console", "powershell", "docker", "dockerfile", "terraform", "hcl"),
    *("json", "yaml", "yml", "toml", "ini", "xml", "html", "css", "scss", "markdown", "md", "diff"),
    *("python", "py", "pycon", "javascript", "js", "jsx", "typescript", "ts", "tsx", "sql"),
    *("c", "cpp", "c++", "rust", "rs", "go", "zig", "java", "kotlin", "scala", "swift", "ruby"),
    *("rb", "php", "perl", "lua", "r", "elixir", "haskell", "graphql", "protobuf"),
}
# Typed in part only.
_formatter = cast("Any", HtmlFormatter)


def highlighted(text: str, language: str) -> str:
    """The text as HTML without a tag around it; escaped alone where colours would take long."""
    if language.lower() not in _LANGUAGES or len(text) > _MAX_LENGTH:
        return escape(text)
    try:
        lexer = get_lexer_by_name(language)
    except ClassNotFound:
        return escape(text)
    return highlight(text, lexer, _formatter(nowrap=True))


def style_of(name: str) -> str:
    """The style sheet of a palette, for what stands within ``pre``."""
    return _formatter(style=name).get_style_defs(["pre"])
