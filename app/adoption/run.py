"""One run of an adoption, session by session."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..concurrency.workers import ENDS_A_RUN, KEPT_PROBLEMS
from ..database.driver import Database
from ..database.failures import IN_STEPS, reported
from ..errors import ContentionError, InvalidKeyError, SessionStoreError, UnreachableError
from ..storage.codec import EncodedValue
from ..storage.connection import Connection
from ..storage.living import live_of
from ..storage.read_state import read_state
from ..transcript_key import TranscriptKey, checked_name
from ..writing.replay import places
from .reader import SourceEntry, SourceSession, batches, session_mtime
from .records import OvertakenError, Record, Records
from .report import AdoptionOutcome, AdoptionProblem, AdoptionReport
from .writer import AdoptingWriter

_TRIES = 3


@dataclass(slots=True)
class Run:
    """One run: what all of its sessions share."""

    database: Database
    connection: Connection
    records: Records
    metadata: EncodedValue | None
    tenant: str | Callable[[str], str | None]
    out_of_order: bool
    report: AdoptionReport
    on_progress: Callable[[AdoptionReport], None] | None
    on_problem: Callable[[AdoptionProblem], None] | None

    async def adopt(self, session: SourceSession) -> None:
        """Adopt one session and put the outcome into the report."""
        outcome: AdoptionOutcome = "skipped"
        try:
            key = self._key(session)
            if key is not None:
                outcome = await self._adopt(session, key)
        except InvalidKeyError as error:
            self.problem(session, f"{str(error).split(';')[0]}; skipped", session.example)
        except ENDS_A_RUN:
            raise
        except SessionStoreError as error:
            self.problem(session, f"{error} Run the adoption again to go on with it.")
        report = self.report
        setattr(report, outcome, getattr(report, outcome) + 1)
        if self.on_progress is not None:
            self.on_progress(report)

    def problem(self, session: SourceSession, reason: str, document: Any = None) -> None:
        """Report what could not be adopted."""
        problem = AdoptionProblem(session.project_key, session.session_id, document, reason)
        self.report.problem_count += 1
        if len(self.report.problems) < KEPT_PROBLEMS:
            self.report.problems.append(problem)
        if self.on_problem is not None:
            self.on_problem(problem)

    def _key(self, session: SourceSession) -> TranscriptKey | None:
        project_key = checked_name("project_key", session.project_key)
        session_id = checked_name("session_id", session.session_id)
        tenant = self.tenant if isinstance(self.tenant, str) else self.tenant(project_key)
        if tenant is None:
            return None
        return TranscriptKey(checked_name("tenant", tenant), project_key, session_id)

    async def _adopt(self, session: SourceSession, key: TranscriptKey) -> AdoptionOutcome:
        left = _TRIES
        while True:
            left -= 1
            try:
                with reported(self.connection.client, "adopt", key, outcome=IN_STEPS):
                    adoption = _Adoption(self, session, key, await self.records.find(key))
                    try:
                        return await adoption.run()
                    finally:
                        self.report.entries += adoption.stored
            except OvertakenError:
                if not left:
                    self.problem(
                        session,
                        "others write to it at the same time; skipped. Run the adoption again "
                        "when no other run of it is under way.",
                    )
                    return "skipped"
            except (UnreachableError, ContentionError):
                # An election may just be over. And what a killed run left open blocks its
                # sessions for a minute, longer than one append is tried.
                if not left:
                    raise


class _Adoption:
    """The adoption of one session."""

    def __init__(
        self, run: Run, session: SourceSession, key: TranscriptKey, record: Record | None
    ) -> None:
        self._run = run
        self._connection = run.connection
        self._session = session
        self._key = key
        self._record = record
        self._writer: AdoptingWriter | None = None

    @property
    def stored(self) -> int:
        """Entries stored."""
        return self._writer.stored if self._writer else 0

    async def run(self) -> AdoptionOutcome:
        """Store what is not stored yet."""
        record, session = self._record, self._session
        if record is not None and _is_complete(record, session):
            return "unchanged"
        state = await read_state(self._connection, self._key)
        target = None if state is None or state.is_expired else state.id
        if record is not None and record.session is not None and target != record.session:
            # Not for the application to find what its user deleted.
            return "skipped"
        database, source = self._run.database, self._run.report.source
        with reported(database.client, "read the source of", self._key):
            mtime = await session_mtime(database, source, session)
        self._writer = AdoptingWriter(
            self._run.metadata, self._run.records, record or Record(), mtime
        )
        if target is not None and (record is None or record.session is None):
            if not await self._complete(self._writer):
                return "skipped"
        else:
            await self._go_on(self._writer)
        return "adopted" if self.stored else "unchanged"

    async def _go_on(self, writer: AdoptingWriter) -> None:
        """Store what stands behind the record; a session that is new is all behind it."""
        positions = writer.record.positions
        before = writer.record
        async for batch in self._batches(positions):
            self._report_broken([entry for entry in batch if entry.id not in before.broken])
            await self._store(writer, batch, writer.record.after(batch))
        if before.broken or writer.record.read < self._session.documents:
            await self._look_again(writer, before)

    async def _look_again(self, writer: AdoptingWriter, before: Record) -> None:
        """Store what an earlier run could not, or did not see.

        A document may have been repaired since, and one that was inserted with an order value
        lower than that of others may have come after they were read.
        """
        known = writer.record
        late, read = -known.read, 0
        suspects = [each for each in before.broken if each in known.broken]
        async for batch in self._batches({}):
            seen = [entry for entry in batch if _is_behind_us(entry, known)]
            late += len(seen)
            read += len(seen)
            again = [entry for entry in seen if entry.id in suspects]
            self._report_broken(again)
            missing: list[SourceEntry] = []
            for entry, is_stored in zip(seen, await self._stored(seen), strict=True):
                was_broken = entry.id in suspects
                if entry.encoded is None or is_stored:
                    continue
                if was_broken or entry.uuid is not None:
                    missing.append(entry)
                    late -= not was_broken
            if missing:
                repaired = [entry.id for entry in again if entry.encoded is not None]
                broken = tuple(each for each in writer.record.broken if each not in repaired)
                await self._store(writer, missing, replace(writer.record, broken=broken))
        if late > 0:
            self._run.problem(
                self._session,
                f"{late} documents without uuid were inserted before others that an earlier run "
                "had read; they cannot be told from those and were not adopted.",
            )
        if read > writer.record.read:
            await writer.put(self._connection, self._key, replace(writer.record, read=read))

    async def _complete(self, writer: AdoptingWriter) -> bool:
        """Add what a session lacks that the store has already, though not by adoption."""
        obstacle = None if self._run.out_of_order else await self._obstacle()
        if obstacle is not None:
            self._run.problem(self._session, obstacle)
            return False
        record = writer.record
        async for batch in self._batches({}):
            self._report_broken(batch)
            record = record.after(batch)
            await self._store(writer, batch, None)
        state = await read_state(self._connection, self._key)
        session = None if state is None else state.id
        await writer.put(self._connection, self._key, replace(record, session=session))
        return True

    async def _obstacle(self) -> str | None:
        """Why the entries that the session lacks cannot all go behind those it has."""
        found: dict[str, int] = {}
        lacking: set[str] = set()
        async for batch in self._batches({}):
            subpath = _subpath(batch)
            for entry, is_stored in zip(batch, await self._stored(batch), strict=True):
                if entry.uuid is None:
                    continue
                if not is_stored:
                    lacking.add(subpath)
                elif subpath in lacking:
                    return _CONFLICT
                else:
                    found[subpath] = found.get(subpath, 0) + 1
        live = await live_of(self._connection, self._key, None)
        for transcript in self._session.transcripts:
            subpath = transcript.subpath
            if not isinstance(subpath, str) or (subpath in found and subpath not in lacking):
                continue
            if live is None:
                continue
            mine = self._key.with_subpath(subpath).of_transcript
            begun = live.in_transcript(subpath)
            entries = self._connection.entries
            own = await entries.find(mine, begun, {"uuid": {"$exists": True}}).count()
            if own > found.get(subpath, 0):
                return _CONFLICT
            if not own and await entries.find_one(mine, begun).exists():
                return _CONFLICT
        return None

    async def _stored(self, batch: Sequence[SourceEntry]) -> list[bool]:
        """Which of a batch are stored, as far as a uuid tells."""
        encoded = [entry.encoded for entry in batch if entry.encoded is not None]
        key = self._key.with_subpath(_subpath(batch))
        found = iter(await places(self._connection, key, encoded))
        return [entry.encoded is not None and next(found) is not None for entry in batch]

    async def _store(
        self, writer: AdoptingWriter, batch: Sequence[SourceEntry], record: Record | None
    ) -> None:
        key = self._key.with_subpath(_subpath(batch))
        await writer.adopt(self._connection, key, batch, record)

    async def _batches(self, positions: Mapping[str, Any]) -> AsyncIterator[list[SourceEntry]]:
        database, source = self._run.database, self._run.report.source
        with reported(database.client, "read the source of", self._key):
            async for batch in batches(database, source, self._session, positions):
                yield batch

    def _report_broken(self, batch: Sequence[SourceEntry]) -> None:
        for entry in batch:
            if entry.problem is not None:
                self._run.problem(self._session, f"{entry.problem}; skipped", entry.id)


_CONFLICT = (
    "the store has later entries of it already, so the earlier ones could only go behind them; "
    "skipped, nothing was lost. Delete it in the store to adopt it whole, or use out_of_order "
    "(--out-of-order) to add them all the same."
)


def _subpath(batch: Sequence[SourceEntry]) -> str:
    return next((entry.subpath for entry in batch if entry.subpath is not None), "")


def _is_behind_us(entry: SourceEntry, record: Record) -> bool:
    """Whether a run that goes on from ``record`` no longer comes across a document."""
    if entry.subpath is None:
        return True
    try:
        return entry.order <= record.positions[entry.subpath]
    except (KeyError, TypeError):
        return False


def _is_complete(record: Record, session: SourceSession) -> bool:
    return (
        record.read >= session.documents
        and not record.broken
        and session.is_read_to(record.positions)
    )
