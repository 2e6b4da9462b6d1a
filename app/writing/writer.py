"""The write path: a batch is stored whole, once and in order, or not at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from functools import partial
from itertools import takewhile
from operator import attrgetter
from typing import Any

from beanie.operators import In
from bson import ObjectId
from pymongo.errors import AutoReconnect, DuplicateKeyError, ServerSelectionTimeoutError

from ...models.counting.marks import Wanted
from ..database.attempts import Attempts
from ..database.documents import joined
from ..database.driver import ClientSession
from ..database.reads import confirmed
from ..database.transactions import (
    OutcomeUnknownError,
    TransientFailureError,
    is_conflict,
    transact,
)
from ..errors import ContentionError, KeyDestroyedError
from ..instruments.operations import counted, current_operation
from ..storage.background import go_on
from ..storage.codec import EncodedEntry, EncodedValue
from ..storage.connection import Connection
from ..storage.criteria import EXPIRED, NOT_ERASED
from ..storage.seals import cipher_to_write
from ..storage.state import Folded, SessionState, StateCache, fold
from ..storage.values import batch_contents
from ..transcript_key import TranscriptKey
from .append_figures import count_stored
from .count_marks import free_marks, learn
from .dating import follow
from .deletion import delete_session, delete_transcript
from .insertion import CountedError, ReplayError, insert_entries, require_owners, take_back
from .lookups import settle_accounts, settle_leaves
from .observers import StoredBatch
from .remains import sweep
from .replay import ReplayPosition, ReplayPositions, recognise
from .shared_commits import CommitLostError, PlannedAppend, shared_commits_of
from .sound_state import exact_state, heal
from .summary_update import (
    MoveFirstError,
    PositionTakenError,
    StaleStateError,
    SummaryUpdate,
    advance_summary,
    planned_update,
    replace_summary_chunks,
)
from .unknown_outcomes import UnknownOutcomes, is_any_stored, stored_by
from .write_policy import AS_IT_IS, WritePolicy
from .written_documents import summary_document

_is_copied = attrgetter("is_copied")


class _LandedError(Exception):
    """An earlier try to store the batch, whose outcome was not known, did land."""


class Writer:
    """Appends and deletes; one per store, for it remembers the sessions it wrote last."""

    def __init__(self, metadata: EncodedValue | None, policy: WritePolicy | None = None) -> None:
        self._metadata = metadata
        self._policy = policy or AS_IT_IS
        self._states = StateCache()
        self._replays = ReplayPositions()
        self._unknown = UnknownOutcomes()

    def under(self, policy: WritePolicy) -> Writer:
        """The same writer, by another policy: they know what each other wrote."""
        other = copy(self)
        other._policy = policy
        return other

    def forget(self) -> None:
        """Drop what is remembered of a database that the store no longer uses.

        Not the tries whose outcome is unknown: they have ids of their own, wherever they are.
        """
        self._states.clear()
        self._replays.clear()

    async def append(
        self,
        connection: Connection,
        key: TranscriptKey,
        batch: Sequence[EncodedEntry],
        *,
        is_fresh: bool = True,
    ) -> StoredBatch | None:
        """Store those entries of a batch that are not stored yet, all at once; say which they are.

        ``is_fresh`` says that nothing was awaited since the batch was encoded.
        """
        place = connection.entries.collection.full_name
        tries = self._unknown.take(place, key, batch)
        try:
            return await self._append(connection, key, batch, tries, is_fresh)
        except BaseException:
            # However this try ended, what is not known of the ones before it still is not.
            if tries:
                self._unknown.put(place, key, batch, tries)
            raise

    async def _append(
        self,
        connection: Connection,
        key: TranscriptKey,
        batch: Sequence[EncodedEntry],
        tries: list[ObjectId],
        is_fresh: bool,
    ) -> StoredBatch | None:
        after = self._replays.take(key)
        end = self._states.end_of(key.session) if after is None else after.end
        if after is not None and batch[0].uuid is None:
            is_fresh = False
            batch = await self._unstored(connection, key, batch, after, end)
        attempts = Attempts()
        while batch:
            try:
                return await self._store(connection, key, batch, is_fresh, tries)
            except _LandedError:
                is_fresh = False
                landed = await stored_by(connection, key, tries)
                if landed is not None:
                    return landed
            except ReplayError:
                is_fresh = False
                batch = await self._unstored(connection, key, batch, None, end)
            # Each round leaves less to store, unless others delete and append all the time.
            if batch and not await attempts.pause():
                raise ContentionError(
                    f"Could not append to {key}: it was deleted and written anew by others "
                    "all the time; nothing of the batch was stored. Try again."
                )
        if not tries:
            return None
        # Of what is stored already, this may be what nobody has heard of yet.
        return await stored_by(connection, key, tries)

    async def delete(
        self, connection: Connection, key: TranscriptKey, *, wait: bool = False
    ) -> None:
        """Remove a transcript; with the main one, all of its session.

        ``wait`` is for all of a large session to be swept.
        """
        self._states.take(key.session)
        self._replays.take(key)
        if key.is_main:
            await delete_session(connection, key, wait=wait, policy=self._policy)
        else:
            await delete_transcript(connection, key, wait=wait, policy=self._policy)

    async def _unstored(
        self,
        connection: Connection,
        key: TranscriptKey,
        batch: Sequence[EncodedEntry],
        after: ReplayPosition | None,
        end: int | None,
    ) -> Sequence[EncodedEntry]:
        """Leave out of a batch what is stored.

        ``end`` is the first position that was free when this store last wrote or repeated there.
        """
        recognised = await confirmed(
            connection.client,
            connection.server,
            lambda session: recognise(connection, key, batch, after, session),
        )
        if recognised.remains:
            # They would refuse the entries of the new session. By their ids, for a new entry may
            # have one of their uuids by now.
            ids = In("_id", list(recognised.remains))
            await connection.entries.find(key.of_session, ids).delete()
        position = recognised.position
        if position is not None:
            bound = None if self._policy.others_repeat_too else position.end
            # What others have stored from there on is their own, though it is stored by now.
            if bound is not None and end is not None and position.seq < end:
                bound = min(bound, end)
            self._replays.put(key, ReplayPosition(position.seq, bound))
        counted("append.replays", sum(recognised.stored))
        return [entry for entry, stored in zip(batch, recognised.stored, strict=True) if not stored]

    async def _store(
        self,
        connection: Connection,
        key: TranscriptKey,
        batch: Sequence[EncodedEntry],
        is_fresh: bool,
        tries: list[ObjectId],
    ) -> StoredBatch:
        """``is_fresh`` says that nothing was awaited since the batch was encoded.

        A try whose outcome is not known is added to ``tries``.
        """
        attempts = Attempts()
        policy = self._policy
        session_key = key.session
        known = self._states.take(session_key)
        is_remembered = known is not None
        folded: Folded | None = None
        contents: Sequence[Mapping[str, Any]] | None = None
        wanted: Wanted | None = None
        refusals = healings = 0
        is_first = True
        newest: SessionState | None = None
        copied = sum(1 for _ in takewhile(_is_copied, batch)) if batch[0].is_copied else 0
        if known is not None and is_fresh:
            folded = fold(known, key, [encoded.entry for encoded in batch], copied)
        while True:
            if known is None:
                try:
                    known = await exact_state(connection, session_key, newest)
                except PositionTakenError:
                    newest = None
                    healings += 1
                    await heal(connection, session_key, healings)
                    continue
            retention = await connection.retention_of(key)
            if folded is None:
                contents = contents or await batch_contents(batch)
                if wanted is not None and known is not None and known.totals is not None:
                    await learn(connection, key, known.totals, wanted, known.first_seq)
                folded = fold(known, key, contents, copied)
            if not connection.has_marks or refusals > 1:
                # Rather than be refused, it is stored as an older release does.
                folded.totals.is_exact = False
                folded = folded._replace(marks={})
            elif folded.totals.is_unsure and wanted is None:
                wanted, known, folded = folded.wanted, None, None
                continue
            if folded.totals.leaves_asked:
                await settle_leaves(connection, key, known, folded.totals)
            if folded.totals.accounts_asked:
                await settle_accounts(connection, key, folded.totals)
            cipher = None
            if connection.keyring is not None:
                try:
                    cipher = await cipher_to_write(connection, key, known, self._metadata)
                except KeyDestroyedError:
                    if not is_remembered:
                        raise
                    # It may have been erased, which tells more.
                    known = folded = None
                    is_remembered = False
                    continue
            try:
                update = planned_update(
                    connection, len(batch), known, folded, retention, tries, policy.mtime, cipher
                )
            except MoveFirstError:
                await follow(connection, session_key)
                known = folded = None
                continue

            async def work(session: ClientSession | None, update: SummaryUpdate = update) -> None:
                storing = policy.begin(connection, batch, update)
                await self._update_and_insert(storing, key, batch, update, session)
                await policy.stored(connection, key, batch, update, session)

            alone = partial(transact, connection.client, connection.server, work, attempts)
            # Whoever was refused before has waited for others already.
            shared = shared_commits_of(connection) if is_first and policy.shares_commits else None
            is_first = False
            try:
                if shared is None or update.known is None or not update.is_simple:
                    await alone()
                else:
                    member = PlannedAppend(
                        *(connection, key, batch, update, update.known, policy),
                        current_operation(),
                    )
                    await shared.store(member, alone, attempts)
            except CommitLostError:
                counted("append.unknown_outcomes")
                tries.append(update.tries[-1])
                known = folded = newest = None
            except CountedError:
                refusals += 1
                await free_marks(connection, session_key, update)
                wanted, known, folded = folded.wanted, None, None
            except PositionTakenError:
                healings += 1
                await heal(connection, session_key, healings)
                known = folded = newest = None
            except (StaleStateError, TransientFailureError) as error:
                if isinstance(error, StaleStateError) or is_conflict(error):
                    counted("append.contention")
                if isinstance(error, StaleStateError):
                    await policy.confirm(connection, session_key)
                if not await attempts.pause():
                    if isinstance(error, TransientFailureError):
                        raise
                    raise ContentionError(
                        f"Could not append to {key}: other writers of the session won every "
                        "time; nothing of the batch was stored. Try again, or let fewer "
                        "processes write to one session at once."
                    ) from None
                newest = update.known
                known = folded = None
            except (OutcomeUnknownError, AutoReconnect) as error:
                if not isinstance(error, ServerSelectionTimeoutError):
                    counted("append.unknown_outcomes")
                    tries.append(update.tries[-1])
                raise
            else:
                self._states.put(session_key, update.next)
                count_stored(batch)
                if update.is_followed:
                    go_on(connection, session_key, follow)
                if update.leaves_remains or (known is not None and known.has_remains):
                    go_on(connection, session_key, sweep)
                return StoredBatch(update.first_seq, len(batch), update.known is None)

    async def _update_and_insert(
        self,
        connection: Connection,
        key: TranscriptKey,
        batch: Sequence[EncodedEntry],
        update: SummaryUpdate,
        session: ClientSession | None,
    ) -> None:
        try:
            if update.known is None:
                await self._create_summary(connection, key, update, session)
            else:
                fence = self._policy.fence
                await advance_summary(connection, key, update, update.known, session, fence)
            # Only now: such a try can hold the summary until just before.
            if len(update.tries) > 1 and await is_any_stored(
                connection, update.tries[:-1], session
            ):
                raise _LandedError
            await require_owners(connection, key, batch, update, session)
            await insert_entries(connection, key, batch, update, session)
        except StaleStateError:
            raise
        except BaseException:
            if session is None:
                await take_back(connection, key, update, len(batch))
            raise

    async def _create_summary(
        self,
        connection: Connection,
        key: TranscriptKey,
        update: SummaryUpdate,
        session: ClientSession | None,
    ) -> None:
        summary = summary_document(connection, key, update, self._metadata)
        fence = self._policy.fence
        if update.clears or fence:
            # The driver's own, for Beanie does not return what it deletes. A lease outlives the
            # mark that it was taken in.
            gone = joined((key.of_session, EXPIRED, NOT_ERASED, fence))
            replaced = await connection.summaries.collection.find_one_and_delete(
                gone, {"lease": 1}, session=session
            )
            if replaced is None and fence:
                raise StaleStateError
            if replaced is not None and "lease" in replaced:
                summary["lease"] = replaced["lease"]
        try:
            # The driver's own: what a class of a team adds is encoded already.
            await connection.summaries.collection.insert_one(summary, session=session)
        except DuplicateKeyError:
            # Another writer created the session first, or it was erased.
            raise StaleStateError from None
        if update.leaves_remains:
            of_summaries = {"collection": connection.summaries.name}
            await connection.chunks.find(key.of_session, of_summaries).delete(session=session)
        await replace_summary_chunks(connection, key, update, session)
