"""What a shell is offered for session ids, projects and tags: what the server has.

A person waits for it in the middle of a line, so it comes within a second or not at all, and
whatever goes wrong is nobody's business: nothing is offered then.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from io import StringIO
from threading import Thread
from typing import TYPE_CHECKING, Any

import typer

from ..queries.prefixes import beginning_with
from .program import Given

if TYPE_CHECKING:
    from pymongo.collection import Collection

    Question = Callable[[Collection[Any], dict[str, Any]], Iterable[Any]]

_SECONDS = 1.0
_MOST = 50
# Some shells evaluate what they are offered, and these texts may be anybody's.
_PLAIN = re.compile(r"[\w.:@%+=,/-]+", re.ASCII)


def session_ids(ctx: typer.Context, incomplete: str) -> list[str]:
    """Ids that begin so: the latest sessions of the tenant, or of the project that was named."""

    def found(summaries: Collection[Any], query: dict[str, Any]) -> Iterable[Any]:
        if project := ctx.params.get("project"):
            query["project_key"] = project
        # Each in the order of an index.
        order = ["tenant", "project_key", "session_id"]
        sort = [(name, 1) for name in order] if incomplete else [("active_at", -1)]
        rows = summaries.find(_current(query), {"session_id": 1}, sort=sort, limit=_MOST)
        return [row["session_id"] for row in rows]

    return _offered(ctx, "session_id", incomplete, found)


def projects(ctx: typer.Context, incomplete: str) -> list[str]:
    """Project keys of the tenant that begin so."""
    return _offered(
        ctx,
        "project_key",
        incomplete,
        lambda summaries, query: summaries.distinct("project_key", query),
    )


def tags(ctx: typer.Context, incomplete: str) -> list[str]:
    """Tags of the tenant's sessions that begin so."""

    def found(summaries: Collection[Any], query: dict[str, Any]) -> Iterable[Any]:
        # The command `distinct` does not know the server's time.
        stages = [{"$match": _current(query)}, {"$group": {"_id": "$tag"}}, {"$sort": {"_id": 1}}]
        return [row["_id"] for row in summaries.aggregate([*stages, {"$limit": _MOST}])]

    return _offered(ctx, "tag", incomplete, found)


def _current(query: dict[str, Any]) -> dict[str, Any]:
    from ..storage.criteria import NOT_EXPIRED

    return {**query, **NOT_EXPIRED}


def _offered(ctx: typer.Context, field: str, incomplete: str, found: Question) -> list[str]:
    values: list[str] = []
    # The settings, the modules of Document classes, the server: all of it is others', and only
    # what is offered may be said.
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            place = _place(ctx)
        except (Exception, SystemExit):
            return []
        if place is None:
            return []
        begins = {field: beginning_with(incomplete)}

        def ask() -> None:
            with suppress(Exception):
                rows = place.ask(lambda summaries, query: found(summaries, {**query, **begins}))
                values.extend(row for row in rows if isinstance(row, str))

        # The driver does not let go of a name that is being looked up.
        asking = Thread(target=ask, daemon=True)
        asking.start()
        asking.join(_SECONDS)
    plain = (value for value in tuple(values) if _PLAIN.fullmatch(value))
    return list(dict.fromkeys(plain))[:_MOST]


@dataclass(frozen=True, slots=True)
class _TypedAt:
    """Where the summaries of a tenant are."""

    url: str
    database: str | None
    collection: str
    tenant: str

    def ask(self, question: Question) -> list[Any]:
        """What a question about the tenant's summaries is answered with, in time or not at all."""
        from pymongo import MongoClient, timeout

        milliseconds = int(_SECONDS * 1000)
        limits: dict[str, Any] = {
            "serverSelectionTimeoutMS": milliseconds,
            "connectTimeoutMS": milliseconds,
        }
        client: MongoClient[Any] = MongoClient(self.url, **limits)
        with client, timeout(_SECONDS):
            named = self.database
            database = client.get_default_database() if named is None else client[named]
            return list(question(database[self.collection], {"tenant": self.tenant}))


def _place(ctx: typer.Context) -> _TypedAt | None:
    from ..database.collection_names import collection_name
    from .settings import Options

    given = ctx.find_object(Given)
    assert given is not None
    options = Options.of(given.values)
    url = options.settings.mongodb_url
    # A server of the call's own is not started for this.
    if url is None or options.embedded is not None:
        return None
    return _TypedAt(
        url.get_secret_value(),
        options.settings.database,
        collection_name(options.classes.load().summaries),
        options.tenant,
    )
