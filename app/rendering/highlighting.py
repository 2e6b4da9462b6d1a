"""Code in colours, as HTML."""

from __future__ import annotations

from functools import cache
from html import escape
from typing import Any, Final

from pygments.lexers import get_lexer_by_name  # pyright: ignore[reportUnknownVariableType]
from pygments.token import Token
from pygments.util import ClassNotFound

# Colours are for people, and longer texts take long.
_MAX_LENGTH = 5_000
# On texts made for it, some of the others take minutes for a page of code.
_LANGUAGES = {
    *("bash", "sh", "shell", "console", "powershell", "docker", "dockerfile"),
    *("json", "yaml", "yml", "toml", "ini", "xml", "html", "css", "scss", "markdown", "md", "diff"),
    *("python", "py", "pycon", "javascript", "js", "jsx", "typescript", "ts", "tsx", "sql"),
    *("c", "cpp", "c++", "rust", "rs", "go", "zig", "java", "kotlin", "scala", "swift", "ruby"),
    *("rb", "php", "perl", "lua", "r", "elixir", "haskell", "graphql", "protobuf"),
}
_CLASSES: tuple[tuple[Any, str], ...] = (
    (Token.Keyword, "k"),
    (Token.Name.Tag, "k"),
    (Token.Literal.String, "s"),
    (Token.Literal.Number, "m"),
    (Token.Comment, "c"),
    (Token.Generic.Inserted, "s"),
    (Token.Generic.Deleted, "m"),
)

CODE_STYLE: Final = """
:root { --syn-word: #7a2a8c; --syn-text: #1c6439; --syn-note: #5a646d; --syn-number: #8a4200; }
@media (prefers-color-scheme: dark) {
:root { --syn-word: #d6a6e6; --syn-text: #8fd3a6; --syn-note: #98a2a9; --syn-number: #eab27a; }
}
.k { color: var(--syn-word); } .s { color: var(--syn-text); }
.c { color: var(--syn-note); font-style: italic; } .m { color: var(--syn-number); }
"""
"""The colours of code, for pages that have no style sheet of their own."""


def highlighted(text: str, language: str) -> str:
    """The text as HTML without a tag around it; escaped alone where colours would take long."""
    if language.lower() not in _LANGUAGES or len(text) > _MAX_LENGTH:
        return escape(text)
    lexer = _lexer(language.lower())
    if lexer is None:
        return escape(text)
    return "".join(_coloured(kind, part) for kind, part in lexer.get_tokens(text))


@cache
def _lexer(language: str) -> Any:
    try:
        return get_lexer_by_name(language, stripnl=False, ensurenl=False)
    except ClassNotFound:
        return None


def _coloured(kind: Any, part: str) -> str:
    name = next((name for known, name in _CLASSES if kind in known), None)
    return f'<span class="{name}">{escape(part)}</span>' if name else escape(part)
