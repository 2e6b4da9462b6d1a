"""Appends of different sessions that meet in one process, and share a transaction.

Each commit waits for a majority, so a process that runs many agents would wait many times at once
for the same. Nobody waits for company: only who comes while others are under way goes with those
who wait as well. Whatever fails before the commit is rolled back, and each goes on by itself.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import TypeAlias, Union
from weakref import finalize

from pymongo.errors import AutoReconnect, InvalidOperation, ServerSelectionTimeoutError

from ..database.attempts import Attempts, callers_seconds
from ..database.commands import ONE_COMMAND_BYTES, insert_encoded, update_each
from ..database.driver import Client, ClientSession
from ..database.overload import is_refused
from ..database.transactions import OutcomeUnknownError, TransientFailureError, transact
from ..instruments.operations import Measured, measured_commit
from ..storage.codec import EncodedEntry
from ..storage.connection import Connection
from ..storage.state import SessionState
from ..transcript_key import TranscriptKey
from .summary_update import StaleStateError, SummaryUpdate, claim
from .write_policy import WritePolicy
from .written_documents import entry_documents

_AT_ONCE = 2
_MOST_SESSIONS = 64
# Behind others whose server does not answer, it would use up the time of its caller.
_PATIENCE_SECONDS = 1.0
# A session that others write to as well would send all who go along with it back, every time.
_CONTENDED_SECONDS = 10.0
_MOST_CONTENDED = 1024
# What an entry's document has besides what is encoded; keys are at most about as long.
_COMMON_BYTES = 512


class CommitLostError(Exception):
    """Whoever sent the commit was cancelled before it was answered: it may hold."""


@dataclass(frozen=True, slots=True)
class PlannedAppend:
    """An append that changes a summary as it was last known, and inserts entries."""

    connection: Connection
    key: TranscriptKey
    batch: Sequence[EncodedEntry]
    update: SummaryUpdate
    known: SessionState
    policy: WritePolicy
    operation: Measured

    @property
    def size(self) -> int:
        """About how many bytes its documents have."""
        return sum(len(encoded.elements) + _COMMON_BYTES for encoded in self.batch)

    @property
    def is_plain(self) -> bool:
        """Whether all it takes are the claim and the documents of its entries."""
        return self.update.data_chunks is None and not any(
            encoded.chunks or encoded.is_further for encoded in self.batch
        )


_Alone: TypeAlias = Callable[[], Awaitable[None]]
# Those to store, one's own append first; whether one's own was stored by another.
_Turn: TypeAlias = Union["list[_Waiting]", bool]


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    member: PlannedAppend
    since: float
    turn: asyncio.Future[_Turn]

    def tell(self, turn: _Turn | Exception) -> None:
        # Who waited may have been cancelled.
        if self.turn.done():
            return
        if isinstance(turn, Exception):
            self.turn.set_exception(turn)
        else:
            self.turn.set_result(turn)


class SharedCommits:
    """What one client appends to one pair of collections, in two transactions at a time."""

    def __init__(self) -> None:
        self._under_way = 0
        self._sessions_under_way = 0
        self._left = 0
        self._is_stuck = False
        self._waiting: deque[_Waiting] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._contended: OrderedDict[TranscriptKey, float] = OrderedDict()

    async def store(self, member: PlannedAppend, alone: _Alone, attempts: Attempts) -> None:
        """Store an append together with others, or by ``alone`` in a transaction of its own.

        Raises:
            CommitLostError: another one's commit may have stored it.
            TransientFailureError: a server has too much to do.
            OutcomeUnknownError, PyMongoError: as :func:`transact` raises it.
            Exception: as ``alone`` raises it.
        """
        # A time that a caller has given would be that of all who go with it.
        if callers_seconds() is not None:
            await alone()
            return
        if self._under_way < _AT_ONCE:
            self._enter(1)
            await self._alone(alone)
            return
        if self._is_stuck or not self._may_wait(member):
            await alone()
            return
        try:
            turn = await self._turn(member)
        except TransientFailureError as error:
            attempts.heed(error.__cause__ or error)
            raise
        if isinstance(turn, list):
            if len(turn) == 1:
                await self._alone(alone)
                return
            turn = await self._together(turn, attempts)
        if not turn:
            try:
                await alone()
            except Exception:
                self._note_contended(member)
                raise

    async def _alone(self, alone: _Alone) -> None:
        try:
            await alone()
        finally:
            self._leave(1)

    async def _turn(self, member: PlannedAppend) -> _Turn:
        loop = asyncio.get_running_loop()
        waiting = _Waiting(member, monotonic(), loop.create_future())
        self._waiting.append(waiting)
        if self._timer is None:
            self._timer = loop.call_later(_PATIENCE_SECONDS, self._release_late)
        try:
            return await waiting.turn
        except asyncio.CancelledError:
            # Its turn may have come together with the cancellation.
            if not waiting.turn.cancelled() and not waiting.turn.exception():
                turn = waiting.turn.result()
                if isinstance(turn, list):
                    for each in turn:
                        each.tell(False)
                    self._leave(len(turn))
            raise

    async def _together(self, group: list[_Waiting], attempts: Attempts) -> bool:
        """Store a group, tell the others, and return whether it was stored."""
        members = [each.member for each in group]
        first = members[0].connection
        lost = CommitLostError()
        told: bool | Exception = lost
        try:
            work = partial(_store, members)
            with measured_commit([each.operation for each in members]) as commit:
                await transact(first.client, first.server, work, attempts)
                commit.shared_by([each.operation for each in members])
            told = True
        except (OutcomeUnknownError, ServerSelectionTimeoutError, InvalidOperation) as error:
            # Nobody would fare better alone.
            told = error
            raise
        except AutoReconnect as error:
            raise lost from error
        except TransientFailureError as error:
            if error.__cause__ is None or not is_refused(error.__cause__):
                told = False
            else:
                # All of them at once would be more than it refused.
                told = error
                raise
        except Exception:
            told = False
        finally:
            self._leave(len(group))
            for each in group[1:]:
                each.tell(told)
        return told is True

    def _enter(self, sessions: int) -> None:
        self._under_way += 1
        self._sessions_under_way += sessions

    def _leave(self, sessions: int) -> None:
        self._is_stuck = False
        self._under_way -= 1
        self._sessions_under_way -= sessions
        while self._waiting and self._under_way < _AT_ONCE:
            group = self._next_group()
            if group:
                self._enter(len(group))
                group[0].tell(group)

    def _next_group(self) -> list[_Waiting]:
        group: list[_Waiting] = []
        left: list[_Waiting] = []
        sessions: set[TranscriptKey] = set()
        size = 0
        # An equal share each, so that one is encoded here while the server is at another.
        share = -(-(len(self._waiting) + self._sessions_under_way) // _AT_ONCE)
        # Those who were left behind by the last one are at the front, and are not left again.
        most = min(max(share, self._left), _MOST_SESSIONS)
        while self._waiting and len(group) < most:
            each = self._waiting.popleft()
            if each.turn.done():
                continue
            session = each.member.key.session
            grown = size + each.member.size
            # Of two appends to one session one is stale.
            if session in sessions or (group and grown > ONE_COMMAND_BYTES):
                left.append(each)
                continue
            sessions.add(session)
            group.append(each)
            size = grown
        self._waiting.extendleft(reversed(left))
        self._left = len(self._waiting)
        return group

    def _release_late(self) -> None:
        self._timer = None
        now = monotonic()
        while self._waiting and now - self._waiting[0].since >= _PATIENCE_SECONDS:
            self._waiting.popleft().tell(False)
            # Whoever comes before one of them ends need not find out the same way.
            self._is_stuck = True
        if self._waiting:
            first = self._waiting[0]
            loop = first.turn.get_loop()
            wait = first.since + _PATIENCE_SECONDS - now
            self._timer = loop.call_later(wait, self._release_late)

    def _may_wait(self, member: PlannedAppend) -> bool:
        return (
            member.is_plain and member.size <= ONE_COMMAND_BYTES and not self._is_contended(member)
        )

    def _is_contended(self, member: PlannedAppend) -> bool:
        # Nearly always there are none at all.
        if not self._contended:
            return False
        since = self._contended.get(member.key.session)
        return since is not None and monotonic() - since < _CONTENDED_SECONDS

    def _note_contended(self, member: PlannedAppend) -> None:
        session = member.key.session
        self._contended[session] = monotonic()
        self._contended.move_to_end(session)
        if len(self._contended) > _MOST_CONTENDED:
            self._contended.popitem(last=False)


async def _store(appends: Sequence[PlannedAppend], session: ClientSession | None) -> None:
    assert session is not None
    first = appends[0].connection
    for each in appends:
        each.policy.begin(each.connection, each.batch, each.update)
    claims = [claim(each.key, each.update, each.known, each.policy.fence) for each in appends]
    if await update_each(first.summaries.collection, claims, session) != len(claims):
        raise StaleStateError
    documents = [
        document
        for each in appends
        for document in entry_documents(each.connection, each.key, each.batch, each.update)
    ]
    await insert_encoded(first.entries.collection, documents, session)
    for each in appends:
        await each.policy.stored(each.connection, each.key, each.batch, each.update, session)


# Not by the clients themselves, for those of equal addresses are equal.
_by_client: dict[int, dict[tuple[str, str], SharedCommits]] = {}


def shared_commits_of(connection: Connection) -> SharedCommits | None:
    """Those of a connection's client and collections, or ``None`` where appends share none.

    Without transactions there is nothing to share, and on a sharded cluster two sessions may be
    two shards, whose commit takes longer than two.
    """
    server, client = connection.server, connection.client
    if not server.has_transactions or server.is_sharded:
        return None
    of_client = _by_client.get(id(client))
    if of_client is None:
        of_client = _by_client[id(client)] = {}
        _forget_with(client)
    names = (connection.entries.collection.full_name, connection.summaries.collection.full_name)
    return of_client.setdefault(names, SharedCommits())


def _forget_with(client: Client) -> None:
    finalize(client, _by_client.pop, id(client), None)
