"""Questions to all sessions of a tenant, as methods of its store; nothing is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from typing import Any, Generic

from ...models import SessionSummary
from ..pricing.price_list import price_list_read
from ..pricing.price_table import PUBLIC_PRICES, PriceTable, checked_prices
from ..reading.listings import SessionListing
from ..storage.bound_store import BoundStore
from ..storage.connection import Binding, DatabaseBinding
from ..transcript_key import AnyKey, TranscriptKey, checked_name
from . import statistics
from .filters import Criterion, SessionFilter, checked_limit, checked_text
from .lookup import session_named
from .search import SearchHit, search
from .statistics import Days, ToolStatistics, UsageStatistics, checked_groups
from .summary_pages import Position, S_co, SessionPage, project_keys, session_page, session_summary


class SessionQueries(BoundStore, Generic[S_co]):
    """What a store can be asked about its tenant's sessions."""

    def __init__(
        self,
        tenant: str,
        summaries: type[S_co],
        binding: Binding | DatabaseBinding,
        forget: Callable[[], None],
        prices: PriceTable | None,
    ) -> None:
        super().__init__(tenant, binding, forget)
        self._summaries = summaries
        self.prices = checked_prices(prices)
        """With which costs are estimated: the team's own, or those of the public list."""

    async def sessions(
        self,
        *criteria: Criterion,
        project_key: str | None = None,
        tag: str | None = None,
        branch: str | None = None,
        title: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 50,
        after: str | None = None,
        figures_only: bool = False,
    ) -> SessionPage[S_co]:
        """A page of the tenant's sessions with a main transcript, the latest activity first.

        Pages go by a cursor, so a later one costs no more than the first. Only summaries are
        read. Sessions that become active meanwhile move to the front, and are not met again.

        Args:
            criteria: queries in Beanie's own style, such as ``SessionSummary.totals.turns > 3``;
                they narrow what is found and cannot reach another tenant.
            project_key: of this project.
            tag: with this tag.
            branch: last seen on this git branch.
            title: with this text in the title or first prompt, in upper or lower case.
            metadata: with these values (strings, numbers, booleans, ``None``) in the metadata.
            since: active since then, by the server's clock; with a time zone.
            until: not active since then.
            limit: sessions a page, 1 to 1,000.
            after: ``cursor`` of the page before.
            figures_only: read no title, first prompt, branch, directory, tag or fold: they are
                ``None``, as is befitting for whoever may not see what was said.

        Raises:
            InvalidQueryError: an argument is of a wrong type, or could be a query operator.
            SessionStoreError: as for the class.
        """
        wanted = SessionFilter(criteria, project_key, tag, branch, title, metadata, since, until)
        limit = checked_limit(limit)
        position = None if after is None else Position.parse(after)
        async with self._doing("sessions", "find sessions") as connection:
            page = await session_page(
                connection, self._tenant, wanted, limit, position, figures_only=figures_only
            )
        for session in page.sessions:
            await self._priced(session)
        return page

    async def summary(self, key: AnyKey) -> S_co | None:
        """The summary of a session, with its totals; ``None`` if there is no such session."""
        session = TranscriptKey.parse(self._tenant, key).session
        async with self._doing("summary", "read the summary of", session) as connection:
            summary = await session_summary(connection, session)
        if summary is not None:
            await self._priced(summary)
        return summary

    async def _priced(self, summary: SessionSummary) -> None:
        """Have a summary estimate by the prices of this store, and wait for no list then."""
        await price_list_read()
        if self.prices is not PUBLIC_PRICES:
            summary.totals.priced_by(self.prices)

    async def session_named(
        self, name: str, project_key: str | None = None, *, whole_id: bool = False
    ) -> SessionListing:
        """The session of this id, or else the one whose id begins so; its key is ``.key()``.

        Args:
            name: the id, or a beginning of it.
            project_key: in this project alone.
            whole_id: take no beginning for an id, as befits what a script changes: the id that
                begins so today is another one's tomorrow.

        Raises:
            UnknownSessionError: there is none.
            AmbiguousSessionError: there are several; the error names some.
            SessionStoreError: as for the class.
        """
        async with self._doing("session_named", "find the session") as connection:
            return await session_named(connection, self._tenant, name, project_key, whole_id)

    async def projects(self) -> list[str]:
        """The project keys of the tenant's sessions, in order; an index has them.

        Raises:
            SessionStoreError: as for the class.
        """
        async with self._doing("projects", "list the projects") as connection:
            return await project_keys(connection, self._tenant)

    async def usage(
        self,
        *criteria: Criterion,
        by: str | Sequence[str] = ("model",),
        since: date | None = None,
        until: date | None = None,
        project_key: str | None = None,
        tag: str | None = None,
        branch: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> list[UsageStatistics]:
        """Tokens and cost of the tenant's sessions, added up by group, the dearest first.

        Only summaries are read. Usage belongs to the day (UTC) on which the agent wrote it.

        Args:
            criteria: as for :meth:`sessions`.
            by: what makes a group: some of ``day``, ``model``, ``project_key``, ``branch``,
                ``tag`` and ``metadata.<field>``; nothing (``()``) for one sum of all.
            since: from this day on.
            until: before this day.
            project_key: as for :meth:`sessions`.
            tag: as for :meth:`sessions`.
            branch: as for :meth:`sessions`.
            metadata: as for :meth:`sessions`.

        Raises:
            InvalidQueryError: an argument is of a wrong type, or could be a query operator.
            SessionStoreError: as for the class.
        """
        groups = checked_groups(by)
        days = Days(since, until)
        wanted = SessionFilter(
            criteria, project_key, tag, branch, None, metadata, days.active_since
        )
        async with self._doing("usage", "add up usage") as connection:
            return await statistics.usage(
                connection, self._tenant, wanted, days, groups, self.prices
            )

    async def tools(
        self,
        *criteria: Criterion,
        project_key: str | None = None,
        tag: str | None = None,
        branch: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> list[ToolStatistics]:
        """Calls and failures by tool over the tenant's sessions, the most called first.

        Only summaries are read. The arguments choose whole sessions, as for :meth:`sessions`.

        Raises:
            InvalidQueryError: an argument is of a wrong type, or could be a query operator.
            SessionStoreError: as for the class.
        """
        wanted = SessionFilter(criteria, project_key, tag, branch, None, metadata, since, until)
        async with self._doing("tools", "add up calls of tools") as connection:
            return await statistics.tools(connection, self._tenant, wanted)

    async def search(
        self, text: str, *, project_key: str | None = None, limit: int = 20
    ) -> list[SearchHit]:
        """Prompts and answers of the tenant's sessions with some of these words, best first.

        ``enable_search`` must have built the index. Words in quotes must stand together, and a
        word with a ``-`` before it must not occur. Packed entries are not found.

        Args:
            text: the words.
            project_key: in this project alone.
            limit: entries at most, 1 to 1,000.

        Raises:
            SchemaOutdatedError: there is no index for it.
            InvalidQueryError: an argument is of a wrong type.
            SessionStoreError: as for the class.
        """
        checked_text("text", text)
        if project_key is not None:
            checked_name("project_key", project_key)
        limit = checked_limit(limit)
        async with self._doing("search", "search") as connection:
            return await search(connection, self._tenant, text, project_key, limit)
