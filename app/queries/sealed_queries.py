"""Questions that no server can answer where what they are about is sealed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from ...models.totals import TEXTS
from ..errors import SealedQueryError
from ..storage.connection import Connection
from .filters import SessionFilter

_OPERATORS = ("$and", "$or", "$nor")


def refuse_sealed(connection: Connection, wanted: SessionFilter) -> None:
    """Refuse conditions on texts, which would find none of the sessions that are encrypted.

    Raises:
        SealedQueryError: there is one.
    """
    if connection.keyring is None:
        return
    given = [name for name in ("title", "tag", "branch") if getattr(wanted, name) is not None]
    asked = {name.partition(".")[0] for each in wanted.criteria for name in _fields(each)}
    _refuse([*given, *sorted(asked & {*TEXTS, "data"})])


def refuse_groups(connection: Connection, by: Sequence[str]) -> None:
    """Refuse to group by texts.

    Raises:
        SealedQueryError: that is asked for.
    """
    if connection.keyring is not None:
        _refuse([name for name in by if name in TEXTS])


def refuse_search(connection: Connection) -> None:
    """Refuse to search for words.

    Raises:
        SealedQueryError: the store encrypts.
    """
    if connection.keyring is not None:
        raise SealedQueryError(
            "Cannot search: this store encrypts what is said, so the server knows no words of it; "
            "nothing was read. Look through sessions with stream(), or through those of a subject "
            "with sessions(metadata=...)."
        )


def _refuse(names: list[str]) -> None:
    if names:
        raise SealedQueryError(
            f"Cannot ask for sessions by {', '.join(names)}: this store encrypts that, so the "
            "server cannot compare it; nothing was read. Ask by metadata, project or time, and "
            "compare the sessions that come."
        )


def _fields(query: object) -> Iterator[str]:
    """The fields that a query asks for, in all of its branches."""
    if not isinstance(query, Mapping):
        return
    for name, value in cast("Mapping[Any, Any]", query).items():
        if name in _OPERATORS and isinstance(value, (list, tuple)):
            for each in cast("list[Any]", value):
                yield from _fields(each)
        elif name == "$expr":
            yield from _paths(value)
        else:
            yield str(name)


def _paths(expression: Any) -> Iterator[str]:
    if isinstance(expression, str) and expression.startswith("$"):
        yield expression.lstrip("$").removeprefix("ROOT.").removeprefix("CURRENT.")
    elif isinstance(expression, Mapping):
        for each in cast("Mapping[Any, Any]", expression).values():
            yield from _paths(each)
    elif isinstance(expression, (list, tuple)):
        for each in cast("list[Any]", expression):
            yield from _paths(each)
