"""Erasing all that is stored of a subject, or of a tenant, so that it stays erased."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any, ClassVar, cast

from bson import ObjectId

from ..database.collection_names import ADOPTION_RECORDS
from ..database.driver import with_store_rules
from ..database.reads import retried
from ..database.transactions import DoneInPartError, TransientFailureError
from ..errors import ContentionError, InvalidQueryError, InvalidRetentionError
from ..every import EVERY, Every
from ..queries.filters import SessionFilter, checked_text, require_subject
from ..sdk import SessionKey
from ..storage.connection import Connection
from ..storage.criteria import BY_KEY, MARKED_DELETED, NOT_DELETED, KeyRow
from ..text import shown
from ..transcript_key import TranscriptKey
from ..writing.dating import DatedRow
from ..writing.deletion import delete_session
from ..writing.tombstones import Erasing
from ..writing.write_policy import WritePolicy
from .erased_keys import destroy_keys
from .erasure_records import ErasureRecord, ErasureRecords
from .matching import (
    AT_ONCE,
    MatchingRow,
    matching_now,
    matching_pages,
    sweep_what_is_gone,
)
from .receipts import ErasureReceipt, key_of
from .removal import Removal

_PAGE = 500

# What came, or was given another name, behind the place of the first one is found by the next; a
# service that makes new sessions of the subject all the time would keep it at that for ever.
_PASSES = 3

_LONGEST = timedelta(days=3650)


@dataclass(frozen=True, slots=True)
class WantedErasure:
    """Checked arguments of an erasure, as :meth:`BeanieSessionStore.erase` takes them.

    Raises:
        InvalidQueryError: they name neither a subject nor the whole tenant, or are of wrong types.
        InvalidRetentionError: the tombstones' time is none.
    """

    whole: object
    metadata: Mapping[str, Any] | None
    forks: bool
    by: str | None
    tombstones: timedelta

    def __post_init__(self) -> None:
        if self.whole is not None and not isinstance(self.whole, Every):
            raise InvalidQueryError(
                f"What is to be erased must be EVERY or nothing, not {shown(self.whole)}; nothing "
                "was erased. Pass metadata={'user_id': 'u1'}, or EVERY for all of the tenant."
            )
        if self.metadata:
            require_subject(self.metadata, "erased")
        if (self.whole is EVERY) == bool(self.metadata):
            raise InvalidQueryError(
                "An erasure is either of a subject or of the whole tenant; nothing was erased. "
                "Pass metadata={'user_id': 'u1'}, or EVERY alone."
            )
        if self.metadata is not None:
            if self.whole is EVERY:
                raise InvalidQueryError("EVERY goes without metadata; nothing was erased.")
            # Whatever its caller does with it from now on.
            object.__setattr__(self, "metadata", dict(self.metadata))
        if type(self.forks) is not bool:
            raise InvalidQueryError(
                f"forks must be True or False, not {shown(self.forks)}; nothing was erased."
            )
        if self.by is not None:
            checked_text("by", self.by)
        kept = cast("object", self.tombstones)
        if not isinstance(kept, timedelta) or not timedelta() < kept <= _LONGEST:
            raise InvalidRetentionError(
                f"tombstones must be a timedelta of up to ten years, not {shown(kept)}; nothing "
                "was erased. Leave it out for 30 days."
            )

    @property
    def filter(self) -> SessionFilter:
        """The sessions that are meant."""
        return SessionFilter(metadata=self.metadata)


async def erase(
    connection: Connection,
    tenant: str,
    wanted: WantedErasure,
    *,
    dry_run: bool,
    on_progress: Callable[[Removal], None] | None,
) -> ErasureReceipt:
    """Erase the sessions of a subject, but for those that are held."""
    run = _Erasure(connection, tenant, wanted, dry_run, on_progress)
    return await run.run()


@dataclass(slots=True)
class _Erasure:
    """One run."""

    connection: Connection
    tenant: str
    wanted: WantedErasure
    dry_run: bool
    on_progress: Callable[[Removal], None] | None
    found: int = 0
    counts: dict[str, int] = field(default_factory=dict[str, int])
    erased: list[TranscriptKey] = field(default_factory=list[TranscriptKey])
    """By this run."""
    held: list[TranscriptKey] = field(default_factory=list[TranscriptKey])
    failed: list[TranscriptKey] = field(default_factory=list[TranscriptKey])
    record: ErasureRecord | None = None
    erasing: Erasing | None = None

    async def run(self) -> ErasureReceipt:
        connection, wanted = self.connection, self.wanted
        records = ErasureRecords(connection, self.tenant, wanted.metadata)
        began_at = connection.server.now()
        known = await records.known()
        last = known[0] if known else None
        if last is not None and last.ended_at is None and not self.dry_run:
            await records.go_on(last, wanted.by)
            self._begin(records, last)
        for _ in range(_PASSES):
            if not await self._erase_matching(records) or self.dry_run:
                break
        forked = await self._forks([each.id for each in known])
        if wanted.forks:
            await self._erase(records, forked)
            forked = []
        if self.dry_run:
            return self._receipt(None, began_at, self.erased, forked)
        await sweep_what_is_gone(connection, self.tenant, wanted.filter)
        if self.record is None:
            # Where nothing is left to erase, this is what the last call would have said.
            self.record = last or await records.begin(self._until(), wanted.by)
            self._begin(records, self.record)
        if wanted.whole is EVERY:
            await self._forget_adoptions()
        if not self.failed and not self.held:
            await destroy_keys(connection, self.tenant, wanted.whole, wanted.metadata)
        if not self.failed and self.record.ended_at is None:
            await records.end(self.record)
        record = await records.again(self.record)
        keys = {key async for key in erased_by(connection, self.tenant, [record.id])}
        # The first tombstones may have gone before the last session has.
        return self._receipt(record, record.began_at, [*keys.union(self.erased)], forked)

    async def _erase_matching(self, records: ErasureRecords) -> bool:
        """Erase what there is of the subject, and return whether there was anything new."""
        stays = {*self.held, *self.failed}
        is_any = False
        async for rows in matching_pages(self.connection, self.tenant, self.wanted.filter):
            new = [row for row in rows if row.key not in stays]
            if new:
                is_any = True
                await self._erase(records, new)
        return is_any

    def _until(self) -> datetime:
        return self.connection.server.now() + self.wanted.tombstones

    def _begin(self, records: ErasureRecords, record: ErasureRecord) -> None:
        database = with_store_rules(self.connection.entries.collection.database)
        self.record = record
        self.erasing = Erasing(
            *(record.id, self.wanted.tombstones, record.until),
            *(records.documents, database[ADOPTION_RECORDS]),
        )

    async def _erase(self, records: ErasureRecords, rows: Sequence[MatchingRow]) -> None:
        self.found += len(rows)
        if self.erasing is None and not self.dry_run and any(row.held_at is None for row in rows):
            self._begin(records, await records.begin(self._until(), self.wanted.by))
        for start in range(0, len(rows), AT_ONCE):
            await asyncio.gather(*map(self._erase_one, rows[start : start + AT_ONCE]))
        if self.on_progress is not None:
            self.on_progress(Removal(self.found, len(self.erased)))

    async def _erase_one(self, row: MatchingRow) -> None:
        key = row.key
        if row.held_at is not None:
            self.held.append(key)
            return
        if self.dry_run:
            await self._count(key)
            return
        meant = _StillMeant(self.wanted.filter if row.is_of_subject else None, row)
        is_held = is_another = False

        def stays(now: DatedRow) -> bool:
            nonlocal is_held, is_another
            is_held = now.held_at is not None
            is_another = now.id != meant.row.id
            return is_held or is_another

        try:
            is_erased = await delete_session(
                self.connection,
                key,
                unless=stays,
                wait=True,
                policy=meant,
                erasing=self.erasing,
            )
        except _NotMeantError:
            return
        except (ContentionError, TransientFailureError, DoneInPartError):
            self.failed.append(key)
            return
        if is_held:
            self.held.append(key)
        elif is_another:
            self.failed.append(key)
        elif is_erased:
            self.erased.append(key)

    async def _count(self, key: TranscriptKey) -> None:
        connection = self.connection
        records = with_store_rules(connection.entries.collection.database)[ADOPTION_RECORDS]
        erasing = Erasing(ObjectId(), self.wanted.tombstones, self._until(), records, records)
        counts = await erasing.counted(connection, key)
        counts["adoption_records"] = await records.count_documents(key.of_session)
        for name, count in counts.items():
            self.counts[name] = self.counts.get(name, 0) + count
        self.erased.append(key)

    async def _forks(self, erasures: Sequence[ObjectId]) -> list[MatchingRow]:
        """The sessions that were forked from erased ones, or from such forks.

        Those are the ones of this run, and what earlier erasures of the subject have left
        tombstones of.
        """
        gone = {key.session_id for key in self.erased}
        if erasures:
            keys = erased_by(self.connection, self.tenant, erasures)
            gone |= {key.session_id async for key in keys}
        if not gone:
            return []
        known = {*self.erased, *self.held, *self.failed}
        forks_of: dict[str, list[_ForkRow]] = {}
        async for row, source in self._all_forks():
            forks_of.setdefault(source, []).append(row)
        found: list[MatchingRow] = []
        sources = [*gone]
        while sources:
            for row in forks_of.pop(sources.pop(), ()):
                if row.key not in known:
                    found.append(row)
                # What stays may have been forked itself, and those hold copies too.
                sources.append(row.session_id)
        return found

    async def _all_forks(self) -> AsyncIterator[tuple[_ForkRow, str]]:
        """The sessions of the tenant that were forked, each with the one it was forked from."""
        summaries, after = self.connection.summaries, dict[str, Any]()
        while True:
            page = await summaries.find(
                {"tenant": self.tenant},
                NOT_DELETED,
                after,
                rows=_ForkRow,
                sort=BY_KEY,
                limit=_PAGE,
            ).to_list()
            for row in page:
                source = row.forked_from if row.is_of_session else None
                if source is not None:
                    yield row, source
            if len(page) < _PAGE:
                return
            after = page[-1].behind

    async def _forget_adoptions(self) -> None:
        """Take what is known of adoptions of sessions that were deleted before."""
        assert self.erasing is not None
        taken = await self.erasing.adoptions.delete_many({"tenant": self.tenant})
        if taken.deleted_count:
            await self.erasing.records.update_one(
                {"_id": self.erasing.id},
                {"$inc": {"counts.adoption_records": taken.deleted_count}},
            )

    def _receipt(
        self,
        record: ErasureRecord | None,
        began_at: datetime,
        erased: Sequence[TranscriptKey],
        forked: Sequence[MatchingRow],
    ) -> ErasureReceipt:
        return ErasureReceipt(
            tenant=self.tenant,
            subject=self.wanted.metadata,
            began_at=began_at,
            ended_at=record.ended_at if record and not self.failed else None,
            erasure=str(record.id) if record else None,
            until=record.until if record else None,
            by=record.by if record else (),
            counts=record.counts if record else self.counts,
            sessions=_keys(erased),
            held=_keys(self.held),
            forked=_keys([row.key for row in forked]),
            failed=_keys(self.failed),
        )


class _NotMeantError(Exception):
    """By now it is of somebody else, or gone."""


class _StillMeant(WritePolicy):
    """A session is erased as long as it is of the subject: a large one waits for a while."""

    def __init__(self, wanted: SessionFilter | None, row: MatchingRow) -> None:
        """``wanted`` is ``None`` of a fork, which is meant whosever it is."""
        self.row = row
        self._wanted = wanted

    async def confirm(self, connection: Connection, key: TranscriptKey) -> None:
        """As of every policy: it is looked at anew, whatever else was changed of it."""
        if self._wanted is None:
            return
        row = await retried(connection.client, partial(matching_now, connection, key, self._wanted))
        if row is None:
            raise _NotMeantError
        self.row = row
        self.fence = row.as_read("metadata", "packed_metadata")


class _ForkRow(MatchingRow):
    is_of_subject: ClassVar[bool] = False

    totals: Any = None

    class Settings:
        """The fields that are read: of the totals, which are large, only one."""

        projection: ClassVar[dict[str, Any]] = {
            **MatchingRow.Settings.projection,
            "_id": 1,
            "totals": {"forked_from": 1},
        }

    @property
    def forked_from(self) -> str | None:
        """The session that it was forked from, if it was."""
        totals = cast("object", self.totals)
        if not isinstance(totals, Mapping):
            return None
        source = cast("Mapping[str, object]", totals).get("forked_from")
        return source if isinstance(source, str) else None


async def erased_by(
    connection: Connection, tenant: str, erasures: Sequence[ObjectId]
) -> AsyncIterator[TranscriptKey]:
    """The sessions of which erasures have left tombstones, in the order of their keys."""
    after: dict[str, Any] = {}
    while True:
        page = await connection.summaries.find(
            {"tenant": tenant},
            {**MARKED_DELETED, "erasure": {"$in": list(erasures)}},
            after,
            rows=KeyRow,
            sort=BY_KEY,
            limit=_PAGE,
        ).to_list()
        for row in page:
            yield row.key
        if len(page) < _PAGE:
            return
        after = page[-1].behind


def _keys(keys: Sequence[TranscriptKey]) -> tuple[SessionKey, ...]:
    return tuple([key_of(key) for key in sorted(keys)])
