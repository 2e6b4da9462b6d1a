"""Full-text search over what was asked and answered; an optional index carries it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, cast

from pymongo.errors import OperationFailure

from ...models import SessionSummary, TranscriptEntry
from ...models.views.messages import AssistantEntry, UserEntry
from ...models.views.parsing import parse_entry
from ..database.documents import Row
from ..database.driver import AnyDatabase
from ..database.failures import IN_STEPS, reported, require_asyncio
from ..database.reads import retried
from ..database.server_codes import INDEX_NOT_FOUND
from ..errors import SchemaOutdatedError
from ..instruments.operations import measured
from ..schema.migrator import Migrator
from ..schema.scripts import optional_folder
from ..storage.connection import Connection
from ..storage.living import MARKED, Live, live_of
from ..transcript_key import TranscriptKey
from .filters import QUERY_MS
from .sealed_queries import refuse_search


@dataclass(frozen=True, slots=True)
class SearchHit:
    """An entry that says what was looked for."""

    project_key: str
    session_id: str
    subpath: str
    """``""`` in the main transcript, else such as ``subagents/agent-a1``."""
    seq: int
    score: float
    """How well it matches; higher is better."""
    entry: dict[str, Any]

    @property
    def parsed(self) -> UserEntry | AssistantEntry:
        """The typed view of the entry; other kinds are not searched."""
        return cast("UserEntry | AssistantEntry", parse_entry(self.entry))


_SCORE = {"$meta": "textScore"}


class _HitRow(Row):
    project_key: Any = None
    session_id: Any = None
    subpath: Any = None
    seq: Any = None
    entry: Any = None
    expires_at: Any = None
    score: Any = None

    class Settings:
        """The fields that are read, as Beanie looks for them where one is none of the document."""

        projection: ClassVar[dict[str, Any]] = {
            "_id": 0,
            **dict.fromkeys(("project_key", "session_id", "subpath", "seq", "entry"), 1),
            "expires_at": 1,
            "score": _SCORE,
        }


async def enable_search(
    database: AnyDatabase,
    *,
    entries: type[TranscriptEntry] = TranscriptEntry,
    summaries: type[SessionSummary] = SessionSummary,
    on_progress: Callable[[str], None] | None = None,
) -> None:
    """Build the index that :meth:`BeanieSessionStore.search` needs; does nothing if it is there.

    It is safe while the application runs. The index takes room and costs every append.
    ``init_beanie(allow_index_dropping=True)`` would drop it again.

    Args:
        database: the database, as given to ``init_beanie``.
        entries: the class for entries, where a team has its own.
        summaries: the class for summaries, where a team has its own.
        on_progress: told of every step in words, and once a second how far the build is.

    Raises:
        SessionStoreError: as for :func:`upgrade_schema`.
    """
    require_asyncio()
    migrator = _migrator(database, entries, summaries, on_progress)
    with (
        measured("enable_search", database=database),
        reported(database.client, "enable search", outcome=IN_STEPS),
    ):
        await migrator.run_all("forward")


async def disable_search(
    database: AnyDatabase,
    *,
    entries: type[TranscriptEntry] = TranscriptEntry,
    summaries: type[SessionSummary] = SessionSummary,
    on_progress: Callable[[str], None] | None = None,
) -> None:
    """Drop the index that search needs; arguments and errors as for :func:`enable_search`."""
    require_asyncio()
    migrator = _migrator(database, entries, summaries, on_progress)
    with (
        measured("disable_search", database=database),
        reported(database.client, "disable search", outcome=IN_STEPS),
    ):
        await migrator.run_all("backward")


def _migrator(
    database: AnyDatabase,
    entries: type[TranscriptEntry],
    summaries: type[SessionSummary],
    on_progress: Callable[[str], None] | None,
) -> Migrator:
    return Migrator(database, entries, summaries, scripts=optional_folder(), announce=on_progress)


async def search(
    connection: Connection, tenant: str, text: str, project_key: str | None, limit: int
) -> list[SearchHit]:
    """The entries that match best.

    Raises:
        SchemaOutdatedError: there is no index for it.
    """
    refuse_search(connection)
    query: dict[str, Any] = {
        "tenant": tenant,
        "$text": {"$search": text},
        # As the partial index has it, which is used for no other query.
        "entry.message.content": {"$exists": True},
        "entry.type": {"$in": ["user", "assistant"]},
    }
    if project_key is not None:
        query["project_key"] = project_key
    entries = connection.entries

    async def attempt() -> list[_HitRow]:
        wanted = limit
        while True:
            found = await entries.find(
                query,
                rows=_HitRow,
                sort=[("score", _SCORE)],
                limit=wanted,
                max_time_ms=QUERY_MS,
            ).to_list()
            living = await _living(connection, tenant, found)
            if len(living) >= limit or len(found) < wanted:
                return living[:limit]
            # Some are of sessions that are gone, not swept yet.
            wanted *= 4

    try:
        rows = await retried(connection.client, attempt)
    except OperationFailure as error:
        if error.code != INDEX_NOT_FOUND:
            raise
        raise SchemaOutdatedError(
            f"Cannot search: the collection {connection.entries.name} has no text index; nothing "
            "was read. Run 'await enable_search(database)' (with entries=... and summaries=... "
            "for Document classes of your own) once."
        ) from None
    return [
        SearchHit(row.project_key, row.session_id, row.subpath, row.seq, row.score, row.entry)
        for row in rows
    ]


async def _living(connection: Connection, tenant: str, rows: list[_HitRow]) -> list[_HitRow]:
    """Those entries whose sessions live."""
    known: dict[TranscriptKey, Live | None] = {}
    living: list[_HitRow] = []
    for row in rows:
        if row.expires_at is not None or row.seq > MARKED:
            key = TranscriptKey(tenant, row.project_key, row.session_id)
            if key not in known:
                known[key] = await live_of(connection, key, None)
            live = known[key]
            if live is None or row.seq < live.first_of(row.subpath):
                continue
        living.append(row)
    return living
