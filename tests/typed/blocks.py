"""The Python code of the documents, block by block, as modules that a type checker can take.

A module has each line where its document has it, so what is said of a line holds for both. What a
document does not show is in comments, which Markdown hides::

    <!-- assumed
    from beanie_session_store import BeanieSessionStore

    store = BeanieSessionStore()
    -->

stands before each block below it, up to the next such comment (an empty one ends it), and
``<!-- unchecked: why -->`` right above a block leaves it out. A block that awaits outside of a
function is the body of one, and one that imports ``motor`` is for Beanie 1. That is all.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

_PYTHON = {"python", "py", "python3", "pycon"}
_ASSUMED = re.compile(r"<!-- assumed(?:\n(.*)| )-->\s*", re.DOTALL)
_UNCHECKED = re.compile(r"<!-- unchecked: (.*?)\s*-->\s*", re.DOTALL)
_STATEMENTS = (ast.Import, ast.ImportFrom, ast.AsyncFor, ast.AsyncWith, ast.FunctionDef, ast.With)


@dataclass(frozen=True, slots=True)
class Block:
    """A block of Python code in a document."""

    line: int
    """Of its first line of code in the document, from 1."""
    module: str
    """The block with what is assumed, each line in its place."""
    unchecked: str | None
    """Why it is left out."""

    @property
    def is_for_motor(self) -> bool:
        """Whether it is for Beanie 1, whose databases are Motor's."""
        return re.search(r"^\s*(from|import) motor\b", self.module, re.MULTILINE) is not None


class BadBlockError(Exception):
    """A document has something at a line that no checker could be given."""

    def __init__(self, line: int, what: str) -> None:
        super().__init__(what)
        self.line = line


def documents(root: Path) -> list[Path]:
    """The documents whose code is checked."""
    return [root / "README.md", *sorted((root / "docs").rglob("*.md"))]


def blocks_of(text: str) -> Iterator[Block]:
    """The blocks of a document, in order.

    Raises:
        BadBlockError: a block is no Python, or Python that does not say so; a comment is odd.
    """
    assumed: list[tuple[int, str]] = []
    unchecked: tuple[int, str] | None = None
    for token in MarkdownIt().parse(text):
        if token.map is None:
            continue
        begin, end = token.map
        if token.type == "html_block":
            if found := _ASSUMED.fullmatch(token.content):
                assumed = [*enumerate((found[1] or "").splitlines(), begin + 2)]
            elif found := _UNCHECKED.fullmatch(token.content):
                unchecked = end, " ".join(found[1].split())
            elif re.match(r"<!--\s*(assumed|unchecked)", token.content):
                raise BadBlockError(begin + 1, "a comment that is neither assumed nor unchecked")
        elif token.type == "fence":
            line = begin + 2
            kind = token.info.split()[0].lower() if token.info.strip() else ""
            if kind in _PYTHON:
                why = unchecked[1] if unchecked and _is_blank(text, unchecked[0], begin) else None
                yield Block(line, _module(assumed, token.content, line), why)
            elif not kind and _is_python(token.content):
                raise BadBlockError(line, "Python in a block that does not say so: ```python")


def _is_blank(text: str, begin: int, end: int) -> bool:
    return not "".join(text.splitlines()[begin:end]).strip()


def _module(assumed: list[tuple[int, str]], code: str, line: int) -> str:
    placed = dict(assumed)
    lines = code.splitlines()
    if _awaits(code, line):
        placed[line - 1] = "async def block() -> None:"
        lines = [f"    {each}" for each in lines]
    placed |= dict(enumerate(lines, line))
    return "\n".join(placed.get(number, "") for number in range(1, max(placed) + 1)) + "\n"


def _awaits(code: str, line: int) -> bool:
    try:
        compiled = compile(code, "block", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    except SyntaxError as error:
        at = line + (error.lineno or 1) - 1
        raise BadBlockError(at, f"no Python: {error.msg}") from None
    return bool(compiled.co_flags & inspect.CO_COROUTINE)


def _is_python(code: str) -> bool:
    try:
        body = ast.parse(code).body
    except SyntaxError:
        return False
    return any(isinstance(each, _STATEMENTS) for each in body)
