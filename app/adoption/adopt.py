"""Adopting sessions that another MongoDB adapter stored; the source is only read."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from ...models import SessionSummary, TranscriptEntry
from ..concurrency.workers import checked_workers, in_parallel
from ..database.collection_names import ADOPTION_RECORDS
from ..database.driver import AnyDatabase, as_pymongo, with_store_rules
from ..database.failures import reported, require_asyncio
from ..encryption.encryption import Encryption, checked_encryption
from ..errors import (
    AdoptionError,
)
from ..schema.versions import upgrade_schema
from ..storage.codec import encode_metadata
from ..storage.connection import Binding, Connection, DatabaseBinding, StoreModels
from ..transcript_key import checked_name
from .reader import SessionList, SourceSession
from .records import Records
from .report import AdoptionProblem, AdoptionReport
from .run import Run
from .search import find_source
from .sources import AdoptionSource, preset


async def adopt(
    source_database: AnyDatabase,
    target_database: AnyDatabase | None = None,
    *,
    tenant: str | Callable[[str], str | None],
    source: AdoptionSource | str | None = None,
    projects: Sequence[str] | None = None,
    metadata: dict[str, Any] | None = None,
    entries: type[TranscriptEntry] = TranscriptEntry,
    summaries: type[SessionSummary] = SessionSummary,
    workers: int = 4,
    out_of_order: bool = False,
    dry_run: bool = False,
    on_progress: Callable[[AdoptionReport], None] | None = None,
    on_problem: Callable[[AdoptionProblem], None] | None = None,
    encryption: Encryption | None = None,
) -> AdoptionReport:
    """Copy the sessions of another adapter into the store, with their order and times.

    It may be run again, also after it was killed, and then goes on where it stopped: entries
    are never stored twice. A later run adds what was appended to the source since. A session
    that was adopted and deleted in the store since stays deleted.

    A session that the store has already, though not by adoption, gets the entries it lacks if
    they all come behind those it has; else it is left alone and reported.

    Args:
        source_database: where the other adapter wrote; it is only read.
        target_database: where to store, brought up to date first; ``None`` is the database that
            ``init_beanie`` gave to the Document classes.
        tenant: owner of the sessions, or a function from a project key to it, whose ``None``
            leaves the project out.
        source: what to adopt, by description or the name of a preset; ``None`` finds out.
        projects: only these project keys.
        metadata: JSON object for each session that is made.
        entries: ``TranscriptEntry`` or a subclass of it.
        summaries: ``SessionSummary`` or a subclass of it.
        workers: sessions to adopt at once.
        out_of_order: also add entries that belong before those which the store has, behind them.
        dry_run: only find the source and count; nothing is written.
        on_progress: called whenever a session is done.
        on_problem: called with each thing that could not be adopted.
        encryption: as for :class:`BeanieSessionStore`.

    Raises:
        AdoptionError: the source is not there, or not to be told from another.
        InvalidKeyError: the tenant is no usable name.
        SessionStoreError: a server is away or refuses; run it again.
    """
    require_asyncio()
    checked_workers(workers, AdoptionError)
    if isinstance(tenant, str):
        checked_name("tenant", tenant)
    encoded_metadata = encode_metadata(metadata)
    checked_encryption(encryption, metadata)
    read = as_pymongo(source_database)
    with tempfile.TemporaryFile() as file:
        with reported(read.client, "read the source"):
            wanted = preset(source) if isinstance(source, str) else source
            found = await find_source(read, wanted)
            report = AdoptionReport(found)
            sessions = await SessionList.read(read, found, projects, file)
        report.listed, report.documents = sessions.sessions, sessions.documents
        if dry_run:
            return report
        connection = await _connect(target_database, StoreModels(entries, summaries), encryption)
        records = Records(
            with_store_rules(connection.entries.collection.database)[ADOPTION_RECORDS],
            f"{read.name}.{found.collection}",
        )
        with reported(connection.client, "prepare the adoption"):
            await records.prepare()
        run = Run(
            database=read,
            connection=connection,
            records=records,
            metadata=encoded_metadata,
            tenant=tenant,
            out_of_order=out_of_order,
            report=report,
            on_progress=on_progress,
            on_problem=on_problem,
        )
        await in_parallel(_each(sessions), run.adopt, workers)
    return report


async def _connect(
    target: AnyDatabase | None, models: StoreModels, encryption: Encryption | None
) -> Connection:
    binding: Binding | DatabaseBinding = Binding(models, encryption)
    if target is not None:
        await upgrade_schema(target, entries=models.entries, summaries=models.summaries)
        binding = DatabaseBinding(models, target, encryption)
    connection, _ = await binding.connection()
    return connection


async def _each(sessions: SessionList) -> AsyncIterator[SourceSession]:
    for session in sessions:
        yield session
