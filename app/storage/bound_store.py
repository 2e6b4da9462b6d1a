"""What every operation of a store begins with: a tenant, and the database that it works on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from types import TracebackType

from ..database.failures import NOTHING, reported, require_asyncio
from ..instruments.operations import Measured, measured
from ..transcript_key import TranscriptKey
from .connection import Binding, Connection, DatabaseBinding


class Operation:
    """One operation of a store: ``async with ... as connection``.

    It is refused outside of asyncio, bound to the database, measured, and what the driver raises in
    it comes as an error of our own tree, see :class:`reported`, of which these are the arguments.
    An append and a load do the same without it, for they are to cost as little as can be.
    """

    __slots__ = ("_connected", "_doing", "_outcome", "_stack", "_unanswered", "measured")

    def __init__(
        self,
        connected: Callable[[], Awaitable[Connection]],
        measured: Measured,
        doing: tuple[object, ...],
        outcome: str,
        unanswered: str | None,
    ) -> None:
        self.measured = measured
        self._connected = connected
        self._doing = doing
        self._outcome = outcome
        self._unanswered = unanswered

    async def __aenter__(self) -> Connection:
        require_asyncio()
        with ExitStack() as stack:
            stack.enter_context(self.measured)
            connection = await self._connected()
            self.measured.on_collection(connection.summaries.collection)
            inside = reported(
                connection.client, *self._doing, outcome=self._outcome, unanswered=self._unanswered
            )
            stack.enter_context(inside)
            self._stack = stack.pop_all()
        return connection

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, traceback)


class BoundStore:
    """A tenant on a database, which may become another one.

    ``forget`` is called whenever it is another one than before.
    """

    def __init__(
        self, tenant: str, binding: Binding | DatabaseBinding, forget: Callable[[], None]
    ) -> None:
        self._tenant = tenant
        self._binding = binding
        self._forget = forget

    @property
    def tenant(self) -> str:
        """The tenant that this store is bound to."""
        return self._tenant

    def _doing(
        self,
        name: str,
        *doing: object,
        outcome: str = NOTHING,
        unanswered: str | None = None,
        is_current: bool = True,
        is_timed: bool = True,
    ) -> Operation:
        """An operation by the name that it is measured by, and in words."""
        session = next((each.session_id for each in doing if isinstance(each, TranscriptKey)), None)
        operation = measured(name, session, is_current=is_current, is_timed=is_timed)
        return Operation(self._connection, operation, doing, outcome, unanswered)

    async def _connection(self) -> Connection:
        connection, _ = await self._bound()
        return connection

    async def _bound(self) -> tuple[Connection, bool]:
        """The connection, and whether it is another one than at the last call."""
        connection, is_new = await self._binding.connection()
        if is_new:
            self._forget()
        return connection, is_new
