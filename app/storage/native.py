"""What BSON gives back as it was: told before it is stored."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

from bson import Code

from ..text import shown

# What MongoDB documents as the limit. The server takes some more, but how much depends on its
# version and on the nesting of our own documents.
MAX_NATIVE_DEPTH = 90

_SCALARS = frozenset({str, int, float, bool, type(None)})
_VALUES: Callable[[Any], Iterable[Any]] = dict[Any, Any].values


class NotJsonError(ValueError):
    """Says which value is none that ``json.loads`` could have returned."""


def reads_back_as_dbref(document: bytes) -> bool:
    """Whether PyMongo could take a part of it for a DBRef, which needs both keys."""
    return b"\x02$ref\0" in document and b"$id\0" in document


def is_plainly_native(entries: Iterable[Any]) -> bool:
    """Whether dicts that BSON took are read back as they were, and nothing but JSON.

    ``False`` says that one must look at each. Going through all of them level by level needs
    hardly a call, so it takes half of the time of one by one.
    """
    level: list[Any] = list(entries)
    for _ in range(MAX_NATIVE_DEPTH):
        below: list[Any] = []
        for container in level:
            members: Iterable[object]
            if type(container) is dict:
                if "$ref" in container:
                    return False
                members = _VALUES(container)
            else:
                members = container
            for member in members:
                kind = type(member)
                if kind is str:
                    continue
                if kind is dict or kind is list:
                    below.append(member)
                elif kind not in _SCALARS:
                    return False
        if not below:
            return True
        level = below
    return False


def checked_depth(value: Any, room: int = MAX_NATIVE_DEPTH) -> int:
    """How many levels ``value`` nests, looking no deeper than ``room``.

    Refuses what JSON does not have. It asks for exact types first, and leaves the rare rest
    (subclasses, and what is refused) to a function of its own.
    """
    if not room:
        check_deep(value)
        return 1
    depth = 0
    members: Iterable[Any] = value
    if isinstance(value, dict):
        mapping = cast("dict[Any, Any]", value)
        for key in mapping:
            if type(key) is not str:
                _check_key(key)
        members = mapping.values()
    for member in members:
        if type(member) not in _SCALARS and _is_container(member):
            depth = max(depth, checked_depth(member, room - 1))
    return depth + 1


def check_deep(value: Any) -> None:
    """The checks of :func:`checked_depth` where recursion is not safe.

    Each container is looked at once, for one that holds itself would have no end.
    """
    pending = [value]
    seen: set[int] = set()
    while pending:
        container = pending.pop()
        if id(container) in seen:
            continue
        seen.add(id(container))
        if isinstance(container, dict):
            mapping = cast("dict[Any, Any]", container)
            for key in mapping:
                _check_key(key)
            container = list(mapping.values())
        pending.extend(member for member in container if _is_container(member))


def _check_key(key: object) -> None:
    if not isinstance(key, str):
        raise NotJsonError(f"a key is {type(key).__name__} ({shown(key)}), not a string")


def _is_container(value: object) -> bool:
    if isinstance(value, (dict, list)):
        return True
    if isinstance(value, (str, int, float, type(None))) and not isinstance(value, Code):
        return False
    raise NotJsonError(f"a value is {type(value).__name__} ({shown(value)})")
