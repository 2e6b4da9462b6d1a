"""Typed access to what the agent writes: a view for every kind of entry.

    view = parse_entry(entry)
    if isinstance(view, AssistantEntry):
        print(view.text, view.message.usage)

Views are made for reading. What is stored is the entry itself, and ``view.raw`` is that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast, get_args

from . import messages, records, system
from .base import EntryView, UnknownEntry
from .blocks import KNOWN_BLOCKS

_MESSAGES: tuple[type[EntryView], ...] = (
    messages.UserEntry,
    messages.AssistantEntry,
    messages.AttachmentEntry,
    messages.ProgressEntry,
    system.SystemEntry,
)


def _named(views: Iterable[type[EntryView]], field: str) -> dict[str, type[EntryView]]:
    return {name: view for view in views for name in get_args(view.model_fields[field].annotation)}


def _views(module: Any, base: type[EntryView]) -> list[type[EntryView]]:
    found = cast("dict[str, object]", vars(module)).values()
    return [
        value
        for value in found
        if isinstance(value, type) and issubclass(value, base) and value is not base
    ]


_BY_TYPE = _named([*_MESSAGES, *_views(records, EntryView)], "type")
_BY_SUBTYPE = _named(_views(system, system.SystemEntry), "subtype")

KNOWN_KINDS = frozenset(_BY_TYPE)
"""The ``type`` of every entry that has a view of its own."""


def parse_entry(entry: Mapping[str, Any]) -> EntryView:
    """The typed view of a transcript entry.

    It costs microseconds and never fails: a kind that is not known gives an
    :class:`UnknownEntry`, a field that does not fit its default.
    """
    return view_class(entry).model_validate(entry)


def view_class(entry: Mapping[str, Any]) -> type[EntryView]:
    """The class of the view that :func:`parse_entry` gives."""
    kind = entry.get("type")
    view = _BY_TYPE.get(kind, UnknownEntry) if isinstance(kind, str) else UnknownEntry
    if view is system.SystemEntry:
        subtype = entry.get("subtype")
        view = _BY_SUBTYPE.get(subtype, view) if isinstance(subtype, str) else view
    return view


def unmodelled(entries: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """How many entries and blocks there are of each kind that has no view here.

    Keys are the ``type`` of an entry, ``system/<subtype>``, and ``block/<type>`` of a content
    block. What is empty is all known. Attachments have one view for all of their types.
    """
    return dict(Counter(name for entry in entries for name in _unknown_names(entry)))


def _unknown_names(entry: Mapping[str, Any]) -> Iterator[str]:
    kind = entry.get("type")
    if not isinstance(kind, str) or kind not in KNOWN_KINDS:
        yield str(kind)
    elif kind == "system":
        subtype = entry.get("subtype")
        if not isinstance(subtype, str) or subtype not in _BY_SUBTYPE:
            yield f"system/{subtype}"
    elif kind in ("user", "assistant"):
        message = entry.get("message")
        if isinstance(message, dict):
            yield from _unknown_blocks(cast("dict[str, Any]", message).get("content"))


def _unknown_blocks(content: Any) -> Iterator[str]:
    waiting = [content]
    while waiting:
        content = waiting.pop()
        for item in cast("list[Any]", content) if isinstance(content, list) else ():
            block = cast("dict[str, Any]", item) if isinstance(item, dict) else {}
            kind = block.get("type")
            if not isinstance(kind, str) or kind not in KNOWN_BLOCKS:
                yield f"block/{kind}"
            elif kind in ("tool_result", "mcp_tool_result"):
                waiting.append(block.get("content"))
