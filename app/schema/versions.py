"""The schema of a database: brought up to date, taken back, and checked before it is relied on."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ...models import SessionSummary, TranscriptEntry
from ...models.hooks import warn_of_hooks
from ..database.collection_names import collection_name, policy_collection_name
from ..database.driver import AnyDatabase, Collection, with_store_rules
from ..database.failures import IN_STEPS, reported, require_asyncio
from ..errors import SchemaOutdatedError
from ..instruments.operations import measured
from ..sdk import preloaded
from .indexes import missing_indexes
from .log import SchemaRun, applied_scripts
from .migrator import Migrator, SchemaStatus, ScriptStatus, refuse_newer
from .scripts import packaged_folder, scripts_in
from .unfit_collections import require_fit_collections

logger = logging.getLogger("beanie_session_store.schema")

MINIMUM_SCRIPT = "20261123150000_create_transcript_collections"
"""The oldest migration that this release's store can work with: while a new release is rolled
out, it meets databases of the one before. Raise it when the store comes to need a later one."""


async def upgrade_schema(
    database: AnyDatabase,
    *,
    entries: type[TranscriptEntry] = TranscriptEntry,
    summaries: type[SessionSummary] = SessionSummary,
    to: str | None = None,
    dry_run: bool = False,
    on_progress: Callable[[str], None] | None = None,
) -> list[str]:
    """Run the migrations that this database has not had yet, and return their names.

    It is safe while the application runs, and safe to run again or in several processes at
    once: one runs the migrations, the others wait for it. If that one crashes, the next goes on
    after 15 seconds. Best run it in the deploy job or before ``init_beanie``: collections it
    makes itself are compressed with zstd.

    Args:
        database: the database, as given to ``init_beanie``.
        entries: the class for entries, where a team has its own.
        summaries: the class for summaries, where a team has its own.
        to: the last migration to run, by its name or the beginning of it; default is the newest.
        dry_run: only return the names of what would run.
        on_progress: told of every step in words, and once a second how far an index build is.

    Raises:
        SchemaTooNewError: a newer release migrated the database.
        InvalidMigrationError: there is no migration ``to``.
        MigrationLockLostError: this process was away for longer than 15 seconds meanwhile.
        UnfitCollectionError: a collection is of a kind that no store can use; nothing was done.
        UnreachableError: no server was reached.
        AccessDeniedError: the user may not create collections or indexes.
        ServerError: the server refused a step; what was done before it is kept.
    """
    require_asyncio()
    warn_of_hooks(entries)
    warn_of_hooks(summaries)
    await preloaded()
    migrator = Migrator(database, entries, summaries, announce=on_progress)
    with (
        measured("upgrade_schema", database=database),
        reported(database.client, "upgrade the schema", outcome=IN_STEPS),
    ):
        return await migrator.upgrade(to, dry_run)


async def downgrade_schema(
    database: AnyDatabase,
    *,
    entries: type[TranscriptEntry] = TranscriptEntry,
    summaries: type[SessionSummary] = SessionSummary,
    steps: int | None = None,
    to: str | None = None,
    dry_run: bool = False,
    on_progress: Callable[[str], None] | None = None,
) -> list[str]:
    """Undo the last migration, the last ``steps`` or all after ``to``, and return their names.

    No entry and no summary is ever removed. Undoing the first migration drops the unique
    indexes: stores that run meanwhile go on without their protection, and one that starts
    refuses to.

    Args:
        database: as for :func:`upgrade_schema`.
        entries: as for :func:`upgrade_schema`.
        summaries: as for :func:`upgrade_schema`.
        steps: how many to undo, newest first; 1 unless ``to`` is given.
        to: the migration to go back to, which stays applied; its name or the beginning of it.
        dry_run: only return the names of what would be undone.
        on_progress: told of every step in words.

    Raises:
        InvalidMigrationError: there is no migration ``to``, or ``steps`` is no count.
        SessionStoreError: as for :func:`upgrade_schema`.
    """
    require_asyncio()
    migrator = Migrator(database, entries, summaries, announce=on_progress)
    with (
        measured("downgrade_schema", database=database),
        reported(database.client, "downgrade the schema", outcome=IN_STEPS),
    ):
        return await migrator.downgrade(steps, to, dry_run)


async def schema_status(
    database: AnyDatabase,
    *,
    entries: type[TranscriptEntry] = TranscriptEntry,
    summaries: type[SessionSummary] = SessionSummary,
) -> SchemaStatus:
    """Which migrations this database has had; reads only.

    Raises:
        UnreachableError: no server was reached.
        AccessDeniedError: the user may not read the database.
    """
    require_asyncio()
    with (
        measured("schema_status", database=database),
        reported(database.client, "look at the schema"),
    ):
        return await Migrator(database, entries, summaries).status()


async def schema_history(
    database: AnyDatabase,
    *,
    entries: type[TranscriptEntry] = TranscriptEntry,
    summaries: type[SessionSummary] = SessionSummary,
) -> list[SchemaRun]:
    """Every migration that ran to its end, oldest first; raises as :func:`schema_status`."""
    require_asyncio()
    with (
        measured("schema_history", database=database),
        reported(database.client, "read the history of the schema"),
    ):
        return await Migrator(database, entries, summaries).runs()


async def require_usable_schema(
    entries: Collection, summaries: Collection, chunks: Collection
) -> None:
    """Check that the database has what the store's guarantees rest on.

    An empty log will do where the indexes are there: ``init_beanie`` makes them too.

    Raises:
        SchemaTooNewError: a newer release migrated the database.
        SchemaOutdatedError: a unique index or a migration that the store needs is missing.
        UnfitCollectionError: a collection is of a kind that no store can use.
    """
    database = with_store_rules(entries.database)
    names = [*(each.name for each in (entries, summaries, chunks)), policy_collection_name()]
    await require_fit_collections(database, names)
    scripts = scripts_in(packaged_folder())
    applied = await applied_scripts(database, entries.name)
    refuse_newer(database, applied, scripts)
    for index in await missing_indexes(entries, summaries, chunks):
        raise SchemaOutdatedError(
            f"The collection {index.collection.name} of database {database.name} "
            f"lacks the unique index {index.name!r}, without which entries "
            f"could be stored twice or out of order; nothing was read or written. {_ADVICE}, or "
            "init_beanie with the store's models and without skip_indexes; a subclass's Settings "
            "must inherit those of the class it extends."
        )
    if applied and max(applied) < MINIMUM_SCRIPT:
        raise SchemaOutdatedError(
            f"Database {database.name} was last migrated by {max(applied)}; this release needs "
            f"{MINIMUM_SCRIPT} at least. Nothing was read or written. {_ADVICE}."
        )
    pending = [script.name for script in scripts if script.name not in applied]
    if applied and pending:
        logger.info(
            "Database %s lacks the migrations %s. The store works without them; run "
            "'session-store schema upgrade' to get what they bring.",
            database.name,
            ", ".join(pending),
        )


_ADVICE = (
    "Run 'session-store schema upgrade' or 'await upgrade_schema(database)' (with entries=... and "
    "summaries=... for Document classes of your own) in the deploy job"
)

__all__ = [
    "MINIMUM_SCRIPT",
    "SchemaRun",
    "SchemaStatus",
    "ScriptStatus",
    "collection_name",
    "downgrade_schema",
    "require_usable_schema",
    "schema_history",
    "schema_status",
    "upgrade_schema",
]
