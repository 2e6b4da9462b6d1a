"""Running migration scripts on one database, by one process at a time."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from time import monotonic

from pymongo.errors import PyMongoError

from ...migrations._log import BACKWARD, FORWARD, write_run
from ...migrations._operations import Surroundings
from ...migrations._runner import run_steps
from ...models import EntryChunk, SessionSummary, TranscriptEntry
from ..database.collection_names import collection_name, policy_collection_name
from ..database.driver import AnyDatabase, Database, as_pymongo, with_store_rules
from ..database.failures import translated
from ..errors import InvalidMigrationError, SchemaTooNewError
from ..instruments.operations import measured
from ..text import shown
from .indexes import missing_indexes
from .lock import LEASE_SECONDS, MigrationLock
from .log import AppliedScript, SchemaRun, applied_scripts, script_runs
from .scripts import MigrationScript, named, packaged_folder, scripts_in
from .unfit_collections import require_fit_collections

logger = logging.getLogger("beanie_session_store.schema")


@dataclass(frozen=True, slots=True)
class ScriptStatus:
    """One migration script, and whether this database has had it."""

    name: str
    applied_at: datetime | None
    """When it was applied, UTC, by the server's clock; ``None`` if it is not."""
    is_unchanged: bool
    """``False`` if the script that was applied is not, to the letter, the one of this release."""


@dataclass(frozen=True, slots=True)
class SchemaStatus:
    """How far a database is migrated."""

    database: str
    entries: str
    """The collection of entries that the scripts apply to."""
    scripts: tuple[ScriptStatus, ...]
    """Those of this release, oldest first."""
    unknown: tuple[str, ...]
    """Applied scripts of a newer release."""
    lost_indexes: tuple[str, ...]
    """Unique indexes, as ``collection.index``, that were dropped after a script made them."""

    @property
    def pending(self) -> tuple[str, ...]:
        """The scripts that are still to run."""
        return tuple(script.name for script in self.scripts if script.applied_at is None)

    @property
    def is_current(self) -> bool:
        """Whether there is nothing to do."""
        return not (self.pending or self.unknown or self.lost_indexes)


class Migrator:
    """Runs scripts on the collections of one pair of Document classes.

    Args:
        database: the database.
        entries: the class for entries.
        summaries: the class for summaries.
        scripts: the folder of the scripts.
        lease: how long a crashed migrator keeps others waiting, seconds.
        announce: told, in words, of every step.
    """

    def __init__(
        self,
        database: AnyDatabase,
        entries: type[TranscriptEntry],
        summaries: type[SessionSummary],
        *,
        scripts: Path | None = None,
        lease: float = LEASE_SECONDS,
        announce: Callable[[str], None] | None = None,
    ) -> None:
        self._database = with_store_rules(as_pymongo(database))
        self._entries = collection_name(entries)
        self._renamed = renamed_collections(entries, summaries)
        self._scripts = scripts_in(scripts or packaged_folder())
        self._lease = lease
        self._announce = announce or logger.info

    async def upgrade(self, to: str | None, dry_run: bool) -> list[str]:
        """Run what was not run yet, up to and including ``to``; return the names."""
        wanted = self._scripts
        if to is not None:
            last = named(self._scripts, to)
            wanted = [script for script in wanted if script.name <= last.name]
        with self._explained("upgrade the schema"):
            names = [*self._renamed.values(), policy_collection_name()]
            await require_fit_collections(self._database, names)
            due = await self._due(wanted)
        # A start-up with nothing to do waits for nobody and writes nothing.
        if dry_run or not due:
            return [script.name for script in due]
        lock = MigrationLock(self._database, self._lease)
        done: list[str] = []
        with self._explained("upgrade the schema"):
            async with lock.held(self._announce):
                for script in await self._due(wanted):
                    await self._run(script, FORWARD, "upgrade_schema", lock)
                    done.append(script.name)
        return done

    async def downgrade(self, steps: int | None, to: str | None, dry_run: bool) -> list[str]:
        """Undo the last ``steps`` scripts, or all that came after ``to``; return the names."""
        if steps is not None and to is not None:
            raise InvalidMigrationError("Give either steps or to, not both.")
        if steps is not None and (type(steps) is not int or steps < 1):
            raise InvalidMigrationError(
                f"steps must be an int of at least 1, not {shown(steps, 40)}."
            )
        after = named(self._scripts, to).name if to is not None else ""
        count = (steps or 1) if to is None else None
        with self._explained("downgrade the schema"):
            undone = await self._undone(after, count)
        if dry_run or not undone:
            return [script.name for script in undone]
        lock = MigrationLock(self._database, self._lease)
        done: list[str] = []
        with self._explained("downgrade the schema"):
            async with lock.held(self._announce):
                # Of two who downgrade by one step at once, the second must not take another.
                for script in await self._undone(after, count):
                    if script not in undone:
                        break
                    await self._run(script, BACKWARD, "downgrade_schema", lock)
                    done.append(script.name)
        return done

    async def run_all(self, direction: str) -> None:
        """Run scripts that keep no log, for what they make shows whether they ran."""
        doing = f"run optional migrations {direction}"
        lock = MigrationLock(self._database, self._lease)
        with self._explained(doing):
            async with lock.held(self._announce):
                for script in self._scripts:
                    await self._run_steps(script, direction, lock)

    async def status(self) -> SchemaStatus:
        """What was run, and what is to run."""
        with self._explained("look at the schema"):
            applied = await applied_scripts(self._database, self._entries)
            lost = await self._lost_indexes(applied)
        return SchemaStatus(
            database=self._database.name,
            entries=self._entries,
            scripts=tuple(_status(script, applied.get(script.name)) for script in self._scripts),
            unknown=tuple(unknown_scripts(applied, self._scripts)),
            lost_indexes=tuple(lost),
        )

    async def runs(self) -> list[SchemaRun]:
        """Every run of every script, oldest first."""
        with self._explained("read the history of the schema"):
            return await script_runs(self._database, self._entries)

    async def _due(self, wanted: Sequence[MigrationScript]) -> list[MigrationScript]:
        applied = await self._applied()
        for script in wanted:
            if not _status(script, applied.get(script.name)).is_unchanged:
                logger.warning(
                    "Migration %s of this release is not the one that database %s has had: it was "
                    "edited since. It is not run again.",
                    script.name,
                    self._database.name,
                )
        due = [script for script in wanted if script.name not in applied]
        lost = await self._lost_indexes(applied)
        if lost:
            logger.warning(
                "Indexes were dropped after a migration had made them (%s); all migrations run "
                "again to bring them back.",
                ", ".join(lost),
            )
            return list(wanted)
        return due

    async def _undone(self, after: str, count: int | None) -> list[MigrationScript]:
        applied = await self._applied()
        scripts = [
            script
            for script in reversed(self._scripts)
            if script.name in applied and script.name > after
        ]
        return scripts[:count]

    async def _applied(self) -> Mapping[str, AppliedScript]:
        applied = await applied_scripts(self._database, self._entries)
        refuse_newer(self._database, applied, self._scripts)
        return applied

    async def _lost_indexes(self, applied: Mapping[str, AppliedScript]) -> list[str]:
        if self._scripts[0].name not in applied:
            return []
        names = self._renamed
        collections = [
            self._database[names[collection_name(model)]]
            for model in (TranscriptEntry, SessionSummary, EntryChunk)
        ]
        missing = await missing_indexes(*collections)
        return [f"{index.collection.name}.{index.name}" for index in missing]

    async def _run(
        self, script: MigrationScript, direction: str, by: str, lock: MigrationLock
    ) -> None:
        started = monotonic()
        with measured("migrate", database=self._database) as operation:
            operation.note(migration=script.name, direction=direction)
            await self._run_steps(script, direction, lock)
        await write_run(
            self._database,
            entries=self._entries,
            script=script.name,
            checksum=script.checksum,
            direction=direction,
            by=by,
            seconds=monotonic() - started,
        )

    async def _run_steps(
        self, script: MigrationScript, direction: str, lock: MigrationLock
    ) -> None:
        self._announce(f"{script.name}: {direction}")
        lent = Surroundings(self._database, self._renamed, self._announce, lock.confirm)
        await run_steps(script.direction(direction.capitalize()), lent)
        await lock.confirm()

    @contextmanager
    def _explained(self, doing: str) -> Generator[None]:
        try:
            yield
        except PyMongoError as error:
            kept = "what was done so far is kept, and running it again is safe"
            raise translated(error, self._database.client, doing, kept) from error


def renamed_collections(
    entries: type[TranscriptEntry], summaries: type[SessionSummary]
) -> dict[str, str]:
    """The collections that scripts work on, by the names in the scripts."""
    return {
        collection_name(TranscriptEntry): collection_name(entries),
        collection_name(SessionSummary): collection_name(summaries),
        collection_name(EntryChunk): collection_name(EntryChunk),
    }


def unknown_scripts(
    applied: Mapping[str, AppliedScript], scripts: Sequence[MigrationScript]
) -> list[str]:
    """The applied scripts that are newer than all of ours."""
    newest = max(script.name for script in scripts)
    return sorted(name for name in applied if name > newest)


def refuse_newer(
    database: Database,
    applied: Mapping[str, AppliedScript],
    scripts: Sequence[MigrationScript],
) -> None:
    """Refuse a database that a newer release migrated.

    Raises:
        SchemaTooNewError: it did.
    """
    unknown = unknown_scripts(applied, scripts)
    if unknown:
        raise SchemaTooNewError(
            f"Database {database.name} was migrated by a newer release of "
            f"beanie-session-store ({', '.join(unknown)}); this one knows nothing later than "
            f"{scripts[-1].name}. Nothing was read or written. Install the newer release: "
            "pip install -U beanie-session-store"
        )


def _status(script: MigrationScript, applied: AppliedScript | None) -> ScriptStatus:
    if applied is None:
        return ScriptStatus(script.name, None, True)
    known = applied.checksum
    return ScriptStatus(script.name, applied.applied_at, known is None or known == script.checksum)
