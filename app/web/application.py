"""The pages as one ASGI application; every request is asked for its access here."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp

from ..errors import (
    AuditUnavailableError,
    ContentionError,
    InvalidKeyError,
    InvalidQueryError,
    SessionChangedError,
    SessionStoreError,
    SlowQueryError,
    UnknownSessionError,
    UnreachableError,
)
from ..queries.filters import checked_field
from ..text import line, plain, shown
from . import figure_routes, list_routes, live_routes, session_routes
from .access import AskAccess, access_of
from .addresses import Addresses
from .refusals import Refused, no_such_session
from .responses import Secured, refusal, static_file, static_files
from .responses import static_hash as hash_of_static_files
from .viewer import PageRoute, Viewer

_logger = logging.getLogger("beanie_session_store.web")

_AGAIN_SECONDS = 8

_PAGES: list[PageRoute] = [
    *list_routes.routes,
    *figure_routes.routes,
    *session_routes.routes,
    *live_routes.routes,
]


def session_pages(
    access: AskAccess, *, who: str | None = None, frame_ancestors: Sequence[str] = ()
) -> ASGIApp:
    """The pages of sessions, to mount in an application.

    They only read. A request that ``access`` gives nothing sees nothing, and what is another
    tenant's is the same 404 as what is not there. They set no cookies, and what they send loads
    nothing from anywhere else.

    Args:
        access: says for each request what its maker may see, by the team's own login; what it
            raises is raised to the application around, so it may also redirect or refuse.
        who: the field of the stores' ``metadata`` that says whose a session is, such as
            ``"user_id"``; shown in the list, and figures are added up by it.
        frame_ancestors: origins whose pages may show these in a frame, such as
            ``"https://intranet.example"``; none by default.

    Raises:
        TypeError: ``access`` cannot be called.
        InvalidQueryError: ``who`` is no name of a field.
        ValueError: an origin could be more than one.
    """
    if not callable(access):
        raise TypeError(
            f"session_pages takes an async function that is given a request, not {shown(access)}. "
            "Pass it by its name, without calling it."
        )
    if who is not None:
        checked_field("who", who)
    origins = (frame_ancestors,) if isinstance(frame_ancestors, str) else tuple(frame_ancestors)
    for origin in origins:
        if not origin or not origin.isascii() or any(c.isspace() or c in ";," for c in origin):
            raise ValueError(
                f"frame_ancestors takes origins such as 'https://intranet.example', not "
                f"{shown(origin)}."
            )
    made = [_route(each, access, who) for each in _PAGES]
    return Secured(Router([*made, _STATIC, _NOTHING]), origins)


def _route(wanted: PageRoute, ask: AskAccess, who: str | None) -> Route:
    async def endpoint(request: Request) -> Response:
        links = _links_of(request)
        access = await access_of(ask, request)
        if access is None:
            return refusal(links, _signed_out())
        viewer = Viewer(request, access, links, who)
        try:
            if wanted.reads_contents and not access.contents:
                raise viewer.figures_only()
            await viewer.record(wanted)
            answer = await wanted.handler(viewer)
        except (Refused, SessionStoreError) as error:
            return refusal(links, _refused(error), viewer)
        _logger.info(
            "%s read %s of tenant %s",
            line(access.actor or "somebody"),
            line(request.url.path),
            line(access.store.tenant),
        )
        return answer

    return Route(wanted.path, endpoint, methods=["GET"])


def _refused(error: Refused | SessionStoreError) -> Refused:
    """What to say of an error; what only its operators can mend is in the log alone."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, (UnknownSessionError, InvalidKeyError, SessionChangedError)):
        return no_such_session()
    if isinstance(error, (InvalidQueryError, SlowQueryError)):
        return Refused(HTTPStatus.BAD_REQUEST, "This cannot be looked for", plain(str(error)))
    if isinstance(error, AuditUnavailableError):
        _logger.error("No page: %s", error)
        return Refused(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "What is read here is recorded, and that is not possible now",
            "Nothing is lost. Try again; who operates this application finds the reason in its "
            "log.",
        )
    if isinstance(error, (UnreachableError, ContentionError)):
        _logger.warning("No page: %s", error)
        return Refused(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "The database does not answer",
            "Nothing is lost: agents try again by themselves, and so does this page, in "
            f"{_AGAIN_SECONDS} s.",
            again=_AGAIN_SECONDS,
        )
    _logger.error("No page: %s", error, exc_info=error)
    return Refused(
        HTTPStatus.INTERNAL_SERVER_ERROR,
        "This page could not be made",
        f"What it needs cannot be read ({type(error).__name__}). Who operates this application "
        "finds the whole reason in its log.",
    )


def _signed_out() -> Refused:
    return Refused(
        HTTPStatus.UNAUTHORIZED,
        "Sign in first",
        "Sign in where you came from, then open this address again.",
    )


def _links_of(request: Request) -> Addresses:
    return Addresses.below(str(request.scope.get("root_path", "")), hash_of_static_files())


async def _send_static(request: Request) -> Response:
    name, wanted = request.path_params["name"], request.path_params["hash"]
    if wanted != hash_of_static_files() or name not in static_files():
        return PlainTextResponse("There is no such file.", HTTPStatus.NOT_FOUND)
    return static_file(name)


async def _send_nothing(request: Request) -> Response:
    return refusal(
        _links_of(request),
        Refused(HTTPStatus.NOT_FOUND, "There is no such page", "The address may be incomplete."),
    )


_STATIC = Route("/static/{hash}/{name}", _send_static, methods=["GET"])
_NOTHING = Route("/{path:path}", _send_nothing, methods=["GET"])
