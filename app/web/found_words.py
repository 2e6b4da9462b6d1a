"""The words that are looked for in a session: where an entry has them, and marked in its HTML."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from html import escape
from typing import Any, cast

from ..text import plain

# A tag ends outside of its attributes' quotes.
_PARTS = re.compile(r"""(<(?:"[^"]*"|'[^']*'|[^>"'])*>)""")
# Of what no page shows.
_NEVER = frozenset(
    {
        *("uuid", "parentUuid", "logicalParentUuid", "sessionId", "requestId", "signature"),
        *("usage", "timestamp", "version", "userType", "id", "tool_use_id", "promptId", "type"),
        *("sourceToolAssistantUUID", "sourceToolUseID", "leafUuid", "agentId", "role", "model"),
        *("entrypoint", "messageId", "permissionMode", "stop_reason", "slug", "diagnostics"),
        # The same once more, as the agent keeps it for itself.
        *("toolUseResult", "rendered", "snapshot", "trackedFileBackups", "base64", "data"),
        *("cwd", "gitBranch", "context_management", "container", "promptSource", "turnOrigin"),
    }
)
_EXCERPT_CHARACTERS = 60


@dataclass(frozen=True)
class FoundWords:
    """Words to look for, in upper or lower case."""

    words: str

    def __bool__(self) -> bool:
        return bool(self.words)

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return re.compile(re.escape(self.words), re.IGNORECASE)

    @cached_property
    def _escaped(self) -> re.Pattern[str]:
        # A character that is written by its name is one, and has none of the letters in that.
        return re.compile(f"({re.escape(escape(plain(self.words)))})|&#?\\w+;", re.IGNORECASE)

    @cached_property
    def _in_bytes(self) -> bytes | None:
        """For a first look at what is stored; ``None`` where case is more than that of ASCII."""
        return self.words.lower().encode() if self.words.isascii() else None

    def may_be_in(self, stored: bytes) -> bool:
        """Whether an entry, as it is stored, can have the words."""
        return self._in_bytes is None or self._in_bytes in stored.lower()

    def count(self, text: str) -> int:
        """How often they are in a text."""
        if not self.words:
            return 0
        if self._is_plain(text):
            return text.lower().count(self.words.lower())
        return sum(1 for _ in self._pattern.finditer(text))

    def _is_plain(self, text: str) -> bool:
        # Of a pattern that nearly fits at each character the search takes as long as both together
        # are long, times each other; of a string it does not.
        return text.isascii() and self.words.isascii()

    def _first(self, text: str) -> tuple[int, int] | None:
        if self._is_plain(text):
            at = text.lower().find(self.words.lower())
            return None if at < 0 else (at, at + len(self.words))
        found = self._pattern.search(text)
        return None if found is None else found.span()

    def excerpt(self, text: str) -> tuple[str, str, str] | None:
        """What is before, at and behind the first of them."""
        first = self._first(text)
        if first is None:
            return None
        at, behind = first
        start, end = max(0, at - _EXCERPT_CHARACTERS), behind + _EXCERPT_CHARACTERS
        return (
            ("… " if start else "") + plain(text[start:at]).replace("\n", " "),
            plain(text[at:behind]),
            plain(text[behind:end]).replace("\n", " ") + (" …" if end < len(text) else ""),
        )

    def marked(self, html: str, *, is_here: bool = False) -> str:
        """HTML of ours with each of them marked, where it stands within one text."""
        if not self.words:
            return html
        opening = '<mark class="here">' if is_here else "<mark>"
        parts = _PARTS.split(html)
        for place in range(0, len(parts), 2):
            if parts[place]:
                parts[place] = self._escaped.sub(
                    lambda found: f"{opening}{found[1]}</mark>" if found[1] else found[0],
                    parts[place],
                )
        return "".join(parts)


def texts_of(entry: Mapping[str, Any]) -> Iterator[str]:
    """All texts of an entry that a page shows, folded ones included."""
    return _texts(entry, _NEVER)


def texts_of_input(arguments: Mapping[str, Any]) -> Iterator[str]:
    """All texts of a call's arguments; they are shown whatever they are named."""
    return _texts(arguments, frozenset())


def _texts(top: Mapping[str, Any], never: frozenset[str]) -> Iterator[str]:
    waiting: list[tuple[Any, frozenset[str]]] = [(top, never)]
    while waiting:
        value, never = waiting.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            known = cast("dict[str, Any]", value)
            names = [name for name in known if name not in never]
            calls = str(known.get("type")).endswith("tool_use")
            waiting += [
                (known[name], frozenset() if calls and name == "input" else never)
                for name in reversed(names)
            ]
            # A call is named on its line, and its arguments stand in it with their names.
            yield from (name for name in names if isinstance(known[name], (int, float)))
        elif isinstance(value, list):
            waiting += [(each, never) for each in reversed(cast("list[Any]", value))]
