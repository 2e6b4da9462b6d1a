"""Telling a team's own code when a budget is passed: once for each period and subject."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import date, datetime, timezone
from typing import Any, cast

from bson import ObjectId
from pymongo.errors import DuplicateKeyError

from ..concurrency.cancellation import cancel_and_wait, completed
from ..database.collection_names import PASSED_BUDGETS
from ..database.documents import Row
from ..database.driver import Collection, with_store_rules
from ..database.failures import reported
from ..database.server import date_of
from ..errors import FeedLostError, FeedOverrunError, InvalidBudgetError, SessionStoreError
from ..feed.changes import SessionChange
from ..feed.feed import Feed
from ..storage.connection import Connection
from ..text import shown
from ..transcript_key import TranscriptKey
from .budget import Budget, OnPassed, Spending, Subject

logger = logging.getLogger("beanie_session_store.budgets")

LOOK_SECONDS = 1.0
"""So long passes at least between two looks at what the same subjects have spent."""

_AGAIN_SECONDS = 5.0
_MOST_SESSIONS = 10_000


@dataclass(frozen=True, slots=True)
class WatchedStore:
    """What a watch needs of a store."""

    tenant: str
    connected: Callable[[], Awaitable[Connection]]
    feed: Callable[[str | None], AbstractAsyncContextManager[Feed]]
    spent: Callable[[Budget, Subject | None], Awaitable[Spending]]


async def budget_watch(
    store: WatchedStore, connection: Connection, budget: Budget, on_passed: OnPassed
) -> BudgetWatch:
    """A watch that begins with what changes from now on.

    Raises:
        InvalidBudgetError: the function cannot be called.
        StandaloneError: the server is no replica set.
    """
    if not callable(on_passed):
        raise InvalidBudgetError(
            "on_passed must be a function or coroutine function that takes a Spending, not "
            f"{shown(on_passed)}."
        )
    now = date_of(connection.server.now_ms())
    await _marks(connection).delete_many({"ends": {"$lte": now}})
    async with store.feed(None) as feed:
        return BudgetWatch(store, budget, on_passed, feed.token)


class _SubjectRow(Row):
    metadata: Any = None


@dataclass(slots=True)
class BudgetWatch:
    """Looks what a subject has spent after its sessions have changed."""

    store: WatchedStore
    budget: Budget
    on_passed: OnPassed
    after: str | None
    """Where in the feed it begins."""
    _changed: dict[Subject | None, None] = field(default_factory=dict[Any, None])
    _came: asyncio.Event = field(default_factory=asyncio.Event)
    _subjects: OrderedDict[tuple[str, str], Subject | None] = field(
        default_factory=OrderedDict[Any, Any]
    )
    _told: dict[Subject | None, date] = field(default_factory=dict[Any, date])
    """Until when nothing is to be told of a subject."""
    _name: ObjectId = field(default_factory=ObjectId)
    _unsure: set[str] = field(default_factory=set[str])
    """The marks of which it is not known whether they were made, or taken back."""

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Follow the feed and look, for as long as the block lasts."""
        work = [asyncio.ensure_future(each) for each in (self._follow(), self._look())]
        try:
            yield
        finally:
            await cancel_and_wait(*work)

    async def _follow(self) -> None:
        after = self.after
        if self.budget.by is None:
            self._note(None)
        while True:
            try:
                async with self.store.feed(after) as feed:
                    after = feed.token
                    async for change in feed:
                        await self._take(change)
                        after = feed.token
            except FeedOverrunError:
                # It goes on behind what was taken.
                pass
            except SessionStoreError as error:
                if isinstance(error, FeedLostError):
                    after = None
                logger.warning("A budget is not watched for a moment.", exc_info=True)
                await asyncio.sleep(_AGAIN_SECONDS)

    async def _take(self, change: SessionChange) -> None:
        if change.kind == "deleted":
            return
        if self.budget.by is None:
            return self._note(None)
        field = self.budget.field
        if field is None:
            return self._note(change.project_key)
        session = (change.project_key, change.session_id)
        # What changed besides entries may be the metadata.
        if session not in self._subjects or change.next_seq is None:
            self._subjects[session] = await self._subject_of(*session, field)
            if len(self._subjects) > _MOST_SESSIONS:
                self._subjects.popitem(last=False)
        subject = self._subjects[session]
        if subject is not None:
            self._note(subject)

    async def _subject_of(self, project_key: str, session_id: str, field: str) -> Subject | None:
        key = TranscriptKey(self.store.tenant, project_key, session_id)
        connection = await self.store.connected()
        with reported(connection.client, "look whose", key, "is"):
            row = await connection.summaries.find_one(key.of_session, rows=_SubjectRow)
        metadata: object = None if row is None else row.metadata
        found = cast("dict[str, Any]", metadata) if isinstance(metadata, dict) else {}
        value = found.get(field)
        return value if isinstance(value, (str, int, float, bool)) else None

    def _note(self, subject: Subject | None) -> None:
        self._changed[subject] = None
        self._came.set()

    async def _look(self) -> None:
        while True:
            await self._came.wait()
            self._came.clear()
            changed, self._changed = self._changed, {}
            pause = LOOK_SECONDS
            for subject in changed:
                try:
                    await self._look_at(subject)
                except SessionStoreError:
                    logger.warning("What was spent of a budget is not known.", exc_info=True)
                    self._changed[subject] = None
                    pause = _AGAIN_SECONDS
            await asyncio.sleep(pause)
            if self._changed:
                self._came.set()

    async def _look_at(self, subject: Subject | None) -> None:
        connection = await self.store.connected()
        today = date_of(connection.server.now_ms()).date()
        if today < self._told.get(subject, today):
            return
        spent = await self.store.spent(self.budget, subject)
        if not spent.is_passed:
            return
        marks = _marks(connection)
        mark = spent.mark(self.store.tenant)
        ends = datetime(spent.until.year, spent.until.month, spent.until.day, tzinfo=timezone.utc)
        with reported(connection.client, "note that a budget is passed"):
            if mark in self._unsure:
                await marks.delete_one({"_id": mark, "watch": self._name})
            self._unsure.add(mark)
            if await _is_first(marks, mark, ends, self._name) and not await self._told_of(
                spent, marks, mark
            ):
                return
            self._unsure.discard(mark)
        self._told = {s: until for s, until in self._told.items() if until > today}
        self._told[subject] = spent.until

    async def _told_of(self, spent: Spending, marks: Collection, mark: str) -> bool:
        """Tell of it; what fails or is cut off is told again with the next change."""
        is_told = False
        try:
            is_told = await self._tell(spent)
        finally:
            if not is_told:
                await completed(_taken_back(marks, mark), "have a budget told of again")
        return is_told

    async def _tell(self, spent: Spending) -> bool:
        try:
            outcome = self.on_passed(spent)
            if inspect.isawaitable(outcome):
                await outcome
        except Exception:
            logger.exception(
                "The on_passed function failed; it is called again when the subject's sessions "
                "change."
            )
            return False
        return True


async def _is_first(marks: Collection, mark: str, ends: datetime, watch: ObjectId) -> bool:
    """Whether nobody was told of it yet, in any process; whoever asks next is told otherwise."""
    try:
        await marks.insert_one({"_id": mark, "ends": ends, "watch": watch})
    except DuplicateKeyError:
        return False
    return True


async def _taken_back(marks: Collection, mark: str) -> None:
    await marks.delete_one({"_id": mark})


def _marks(connection: Connection) -> Collection:
    return with_store_rules(connection.entries.collection.database)[PASSED_BUDGETS]
