"""What a request may see; the team's own login decides it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from inspect import isawaitable
from typing import Any, TypeAlias, cast

from starlette.requests import Request

from ..store import BeanieSessionStore
from ..text import shown


@dataclass(frozen=True, slots=True)
class Access:
    """What the maker of a request may see.

    Raises:
        TypeError: a part of it is of a wrong type.
    """

    store: BeanieSessionStore
    """Whose sessions: those of this store's tenant, and no others."""
    contents: bool = True
    """Whether also what was said in them. Without, there are figures alone: no title, no prompt,
    no entry."""
    actor: str | None = None
    """Who it is, shown on the pages and in the log of what was read."""

    def __post_init__(self) -> None:
        store, contents, actor = cast("tuple[Any, ...]", (self.store, self.contents, self.actor))
        if not isinstance(store, BeanieSessionStore):
            raise TypeError(
                f"Access takes a BeanieSessionStore, not {shown(store)}. Pass "
                'BeanieSessionStore(tenant="acme").'
            )
        # What is merely not empty would open what was to stay closed.
        if not isinstance(contents, bool):
            raise TypeError(f"contents must be True or False, not {shown(contents)}.")
        if actor is not None and not isinstance(actor, str):
            raise TypeError(f"actor must be a name or None, not {shown(actor)}. Pass str(user.id).")


AskAccess: TypeAlias = Callable[[Request], Awaitable[Access | None]]
"""Says what a request may see; ``None`` for nothing."""


async def access_of(ask: AskAccess, request: Request) -> Access | None:
    """What the request may see, or ``None``.

    Raises:
        TypeError: the team's function says something else.
    """
    asked = cast("object", ask(request))
    if not isawaitable(asked):
        raise TypeError("access must be an async function: async def access(request): ...")
    found = cast("object", await asked)
    # "user and Access(...)" says so in the words of the user.
    if not found:
        return None
    if not isinstance(found, Access):
        raise TypeError(f"access must return an Access or None, not {shown(found)}.")
    return found
