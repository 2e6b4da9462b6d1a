"""What every handler of a page gets, and how a page is registered."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from ..sdk import SessionKey
from ..store import BeanieSessionStore
from .access import Access
from .addresses import Addresses, read
from .refusals import Refused, figures_only, no_such_session


@dataclass(frozen=True, slots=True)
class Viewer:
    """Somebody who looks at a page: their request, and what they may see."""

    request: Request
    access: Access
    links: Addresses
    who: str | None
    """The field of metadata that says whose a session is."""

    @property
    def store(self) -> BeanieSessionStore:
        """The store whose sessions they may see."""
        return self.access.store

    def figures_only(self) -> Refused:
        """What is said where they ask for what was said, and may see figures alone."""
        return figures_only(self.access.actor)

    async def record(self, page: PageRoute) -> None:
        """Add to the store's audit, if it keeps one, what they are about to be shown.

        Who may see figures alone is shown nothing that was said.

        Raises:
            AuditUnavailableError: it cannot be written.
        """
        if not self.access.contents:
            return
        names = self.request.path_params
        key = self.session_key if "session" in names else None
        await self.store.recorded(page.does, key, actor=self.access.actor or None, page=page.path)

    @property
    def session_key(self) -> SessionKey:
        """The key that the address names; nothing is known yet of whether there is a session.

        Raises:
            Refused: 404, for no session has such an address.
        """
        project_key = read(self.request.path_params["project"])
        session_id = read(self.request.path_params["session"])
        if project_key is None or session_id is None:
            raise no_such_session()
        return {"project_key": project_key, "session_id": session_id}


@dataclass(frozen=True, slots=True)
class PageRoute:
    """A page and where it is; who may not see it never reaches its handler."""

    path: str
    """As Starlette writes paths, from the mount on."""
    handler: Callable[[Viewer], Awaitable[Response]]
    reads_contents: bool = True
    """Whether it shows what was said, which is refused to who may see figures alone."""
    does: str = "read"
    """What it is called in an audit."""
