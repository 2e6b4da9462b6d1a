"""The schema of a database: brought up to date, and checked before it is relied on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from beanie import Document
from beanie.migrations.controllers.base import BaseMigrationController
from pymongo import IndexModel

from .. import migrations
from ..migrations._operations import renamed_collections
from ..models import SessionSummary, TranscriptEntry
from ..models.entry import CHUNK_INDEX, ORDER_INDEX, UUID_INDEX
from ..models.summary import SESSION_INDEX
from .driver import Collection, Database, bind_models, with_store_rules
from .errors import SchemaOutdatedError, SchemaTooNewError
from .failures import reported, require_asyncio

LOG_COLLECTION = "claude_transcript_migrations"
"""Which scripts ran. It is not Beanie's ``migrations_log``, whose single pointer knows one folder
of scripts only: with ours in it, a team's own ``beanie migrate`` would lose its place."""


async def upgrade_schema(
    database: Database,
    *,
    entries: type[TranscriptEntry] = TranscriptEntry,
    summaries: type[SessionSummary] = SessionSummary,
) -> list[str]:
    """Run the migrations that this database has not had yet, and return their names.

    It is safe while the application runs, and safe to run again. Best run it in the deploy job
    or before ``init_beanie``: collections it makes itself are compressed with zstd.

    Args:
        database: the database, as given to ``init_beanie``.
        entries: the class for entries, where a team has its own.
        summaries: the class for summaries, where a team has its own.

    Raises:
        SchemaTooNewError: a newer release migrated the database.
        UnreachableError: no server was reached.
        AccessDeniedError: the user may not create collections or indexes.
    """
    require_asyncio()
    names = {
        collection_name(TranscriptEntry): collection_name(entries),
        collection_name(SessionSummary): collection_name(summaries),
    }
    target = collection_name(entries)
    done: list[str] = []
    database = with_store_rules(database)
    with reported(database.client, "upgrade the schema"):
        log = database[LOG_COLLECTION]
        applied = await _applied(log, target)
        for script in _scripts():
            if script.stem in applied:
                continue
            with renamed_collections(names):
                await _run(script, "Forward", database)
            record = {"entries": target, "script": script.stem}
            now = datetime.now(timezone.utc)
            await log.update_one(
                {"_id": f"{target}/{script.stem}"},
                {"$setOnInsert": {**record, "applied_at": now}},
                upsert=True,
            )
            done.append(script.stem)
    return done


async def require_usable_schema(
    entries: Collection, summaries: Collection, chunks: Collection
) -> None:
    """Check that the database has what the store's guarantees rest on.

    Raises:
        SchemaTooNewError: a newer release migrated the database.
        SchemaOutdatedError: a unique index is missing.
    """
    await _applied(with_store_rules(entries.database)[LOG_COLLECTION], entries.name)
    required = ((entries, [ORDER_INDEX, UUID_INDEX]), (summaries, [SESSION_INDEX]))
    for collection, indexes in (*required, (chunks, [CHUNK_INDEX])):
        stored = await collection.index_information()
        for index in indexes:
            if not _has(stored, index):
                raise SchemaOutdatedError(
                    f"The collection {collection.name} of database {collection.database.name} "
                    f"lacks the unique index {index.document['name']!r}, without which entries "
                    "could be stored twice or out of order; nothing was read or written. Run "
                    "'await upgrade_schema(database)' (with entries=... and summaries=... for "
                    "Document classes of your own) in the deploy job, or init_beanie with the "
                    "store's models and without skip_indexes; a subclass's Settings must inherit "
                    "those of the class it extends."
                )


def collection_name(model: type[Document]) -> str:
    """The collection of a Document class, initialised or not."""
    settings = getattr(model, "Settings", None)
    return getattr(settings, "name", None) or model.__name__


async def _applied(log: Collection, target: str) -> set[str]:
    applied = {record["script"] async for record in log.find({"entries": target})}
    newest = max(script.stem for script in _scripts())
    newer = sorted(name for name in applied if name > newest)
    if newer:
        raise SchemaTooNewError(
            f"Database {log.database.name} was migrated by a newer release of "
            f"beanie-session-store ({', '.join(newer)}); this one knows nothing later than "
            f"{newest}. Nothing was read or written. Install the newer release: "
            "pip install -U beanie-session-store"
        )
    return applied


def _scripts() -> Sequence[Path]:
    (folder,) = migrations.__path__
    return sorted(Path(folder).glob("[!_]*.py"))


async def _run(script: Path, direction: str, database: Database) -> None:
    """Run one direction of a script the way Beanie's own runner does, without a transaction.

    Index builds on a collection that holds documents cannot run in one.
    """
    loader = SourceFileLoader(script.stem, str(script))
    module = ModuleType(loader.name)
    module.__file__ = str(script)
    loader.exec_module(module)
    steps = cast("dict[str, object]", vars(getattr(module, direction)))
    session = database.client.start_session()
    async with session:
        for step in steps.values():
            if isinstance(step, BaseMigrationController):
                await bind_models(database, step.models)
                await step.run(session)  # pyright: ignore[reportUnknownMemberType]


def _has(stored: Mapping[str, Any], index: IndexModel) -> bool:
    keys = list(index.document["key"].items())
    return any(found["key"] == keys and found.get("unique") for found in stored.values())
