"""Examining a database and its servers: what the store needs of them, and what is missing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial

import pymongo

from ...models import SessionSummary, TranscriptEntry
from ..database.driver import AnyDatabase
from ..database.failures import hosts_of, reported, require_asyncio
from ..errors import (
    AccessDeniedError,
    InvalidURLError,
    ServerError,
    SessionStoreError,
    UnreachableError,
)
from ..storage.connection import StoreModels
from . import database_checks, server_checks
from .exposure import tls
from .findings import Diagnosis, Finding, Verdict
from .permissions import permissions
from .server_checks import Greeting, greeting
from .target import Target

# The driver's own patience of 30 s would be spent on each check anew.
_SECONDS = 10.0

_Check = tuple[str, Callable[[Target], Awaitable[Finding]]]
_CHECKS: Sequence[_Check] = (
    ("permissions", permissions),
    ("schema", database_checks.schema),
    ("indexes", database_checks.indexes),
    ("transactions", server_checks.transactions),
    ("retention", database_checks.retention),
    ("summaries", database_checks.summaries),
    ("encryption", database_checks.encryption),
    ("disk", server_checks.disk),
)


async def diagnose(
    database: AnyDatabase,
    *,
    entries: type[TranscriptEntry] = TranscriptEntry,
    summaries: type[SessionSummary] = SessionSummary,
) -> Diagnosis:
    """Examine what a store on this database rests on; nothing is written.

    The findings are of ``client`` (versions), ``server`` (release, and whether it answers),
    ``topology``, ``clock``, ``tls``, ``permissions``, ``schema``, ``indexes``, ``transactions``,
    ``retention``, ``summaries``, ``encryption`` and ``disk``. Where no server answers or none
    takes writes, those after the one that says so are left out. What goes wrong with the database
    is a finding, never
    an error.

    Args:
        database: the database, as given to ``init_beanie``.
        entries: the class for entries, where a team has its own.
        summaries: the class for summaries, where a team has its own.

    Raises:
        InvalidModelError: a class is no subclass of the one it stands for.
        ClientClosedError, EventLoopError, DriverMismatchError: the client cannot be used.
    """
    require_asyncio()
    target = Target.of(database, StoreModels(entries, summaries))
    findings = [server_checks.client()]
    met = await _greeting(target)
    if isinstance(met, Finding):
        findings.append(met)
    else:
        topology = await _made(target, "topology", partial(server_checks.topology, met=met))
        findings += [server_checks.server(target, met), topology, server_checks.clock(met)]
        findings.append(tls(target))
        if topology.verdict != "bad":
            for name, check in _CHECKS:
                findings.append(await _made(target, name, check))
    return Diagnosis(database.name, hosts_of(database.client), tuple(findings))


async def _greeting(target: Target) -> Greeting | Finding:
    try:
        with reported(target.client, "reach the server"), _limited(target):
            return await greeting(target)
    except (UnreachableError, InvalidURLError) as error:
        return server_checks.unreachable(target, error)
    except (AccessDeniedError, ServerError) as error:
        return _refused("server", "bad", error)


async def _made(
    target: Target, name: str, check: Callable[[Target], Awaitable[Finding]]
) -> Finding:
    """What a check found, or that it could not be made."""
    doing = f"look at the {name}"
    try:
        with reported(target.client, doing), _limited(target):
            return await check(target)
    except AccessDeniedError:
        return Finding(
            name,
            "unknown",
            "the user may not look at this",
            'Give it the role readWrite on the database (see "permissions").',
        )
    except SessionStoreError as error:
        return _refused(name, "unknown", error)


def _limited(target: Target) -> AbstractContextManager[None]:
    # It would otherwise take the place of a shorter limit of the connection string.
    given: float = target.client.options.server_selection_timeout
    return pymongo.timeout(min(given, _SECONDS))


def _refused(name: str, verdict: Verdict, error: SessionStoreError) -> Finding:
    # That nothing was changed goes without saying.
    found, _, advice = str(error).partition("; nothing was changed. ")
    return Finding(name, verdict, found, advice or None)
