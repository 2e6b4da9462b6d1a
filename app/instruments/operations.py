"""An operation of the store as a span and a measurement, by the conventions for databases.

Neither says what a session holds: no content, no title, no text of an error, which may quote some.
"""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import ContextVar, Token
from functools import wraps
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec

from .providers import Instruments, instruments, warn_of_failure

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Link, Span

P = ParamSpec("P")

Attributes = dict[str, "str | int"]

_SYSTEM: Attributes = {"db.system.name": "mongodb"}
_DEFAULT_PORT = 27017


def _harmless(record: Callable[P, None]) -> Callable[P, None]:
    """The same, but what it raises is logged: what a processor fails at must cost no append."""

    @wraps(record)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            record(*args, **kwargs)
        except Exception:
            warn_of_failure()

    return guarded


class Measured:
    """One operation: ``with measured("load", session_id) as operation``.

    It costs nothing to speak of where OpenTelemetry is not set up.
    """

    __slots__ = (
        *("_attributes", "_began", "_context", "_instruments", "_is_current", "_is_timed"),
        *("_links", "_outer", "_said", "_token", "name", "retries", "span"),
    )

    span: Span

    def __init__(
        self,
        found: Instruments | None,
        name: str,
        session: str | None = None,
        *,
        database: Any = None,
        is_current: bool = True,
        is_timed: bool = True,
        context: Context | None = None,
        links: Sequence[Link] = (),
    ) -> None:
        self._instruments = found
        self._is_current = is_current
        self._is_timed = is_timed
        self._context = context
        self._links = links
        self._attributes: Attributes = {**_SYSTEM, "db.operation.name": name}
        if database is not None:
            self._attributes |= _place(database)
        self._said: Attributes = {} if session is None else {"gen_ai.conversation.id": session}
        self.name = name
        self.retries = 0

    @property
    def is_on(self) -> bool:
        """Whether anybody is told of it."""
        return self._instruments is not None

    def __enter__(self) -> Measured:
        found = self._instruments
        if found is not None:
            try:
                self._begin(found)
            except Exception:
                self._instruments = None
                warn_of_failure()
        return self

    def _begin(self, found: Instruments) -> None:
        from opentelemetry.context import attach
        from opentelemetry.trace import SpanKind, set_span_in_context

        said = {**self._attributes, **self._said}
        self.span = found.tracer.start_span(
            self.name, self._context, SpanKind.CLIENT, said, self._links
        )
        if self._is_current:
            self._token = attach(set_span_in_context(self.span, self._context))
            self._outer: Token[Measured | None] = _current.set(self)
        self._began = perf_counter()

    @_harmless
    def on_collection(self, collection: Any) -> None:
        """Say which collection it is on."""
        if self._instruments is not None:
            place = {**_place(collection.database), "db.collection.name": collection.name}
            self._attributes |= place
            self.span.set_attributes(place)
            self.span.update_name(f"{self.name} {collection.name}")

    @_harmless
    def note(self, **figures: int | str) -> None:
        """Put figures on the span, such as ``entries=2``."""
        if self._instruments is not None:
            self.span.set_attributes({f"session_store.{k}": v for k, v in figures.items()})

    @_harmless
    def count(self, counter: str, amount: int = 1) -> None:
        """Add to one of the counters."""
        if self._instruments is not None and amount:
            self._instruments.counters[counter].add(amount, self._attributes)

    @_harmless
    def shared_by(self, members: Sequence[Measured]) -> None:
        """Say on each of several operations that this one did it for them all."""
        if self._instruments is None:
            return
        here = self.span.get_span_context()
        for each in members:
            each.note(**{"shared_commit.size": len(members)})
            if each.is_on:
                each.span.add_link(here)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._instruments is not None:
            self._end(self._instruments, error)

    def _end(self, found: Instruments, error: BaseException | None) -> None:
        self._record(found, error)
        if self._is_current:
            from opentelemetry.context import detach

            _current.reset(self._outer)
            detach(self._token)
        self._end_span()

    @_harmless
    def _record(self, found: Instruments, error: BaseException | None) -> None:
        from opentelemetry.trace import Status, StatusCode

        seconds = perf_counter() - self._began
        attributes = self._attributes
        # Whoever stops to read, or is cancelled, has not failed.
        if error is not None and not isinstance(error, (GeneratorExit, CancelledError)):
            failure = _failure(error)
            attributes = {**attributes, **failure}
            self.span.set_attributes(failure)
            self.span.set_status(Status(StatusCode.ERROR))
        if self.retries:
            self.note(retries=self.retries)
        if self._is_timed:
            found.duration.record(seconds, attributes)

    @_harmless
    def _end_span(self) -> None:
        self.span.end()


_current: ContextVar[Measured | None] = ContextVar("session_store_operation", default=None)

OFF = Measured(None, "")
"""An operation that nobody is told of."""


def measured(
    name: str,
    session: str | None = None,
    *,
    database: Any = None,
    is_current: bool = True,
    is_timed: bool = True,
) -> Measured:
    """An operation, to be entered; the span that is current there is its parent.

    Args:
        name: of the operation, as in ``db.operation.name``.
        session: the id of the session that it is on.
        database: which it is on, if it is on no collection that can be told later.
        is_current: whether spans that begin inside belong to it. Not where it is a generator,
            whose inside is also that of whoever takes from it.
        is_timed: whether its duration says anything.
    """
    found = instruments()
    if found is None:
        return OFF
    return Measured(
        found, name, session, database=database, is_current=is_current, is_timed=is_timed
    )


def measured_behind(name: str, session: str | None = None) -> Measured:
    """Work that goes on behind the operation that began it: a trace of its own, with a link."""
    found = instruments()
    if found is None:
        return OFF
    from opentelemetry.context import Context
    from opentelemetry.trace import Link, get_current_span

    begun_by = get_current_span().get_span_context()
    links = [Link(begun_by)] if begun_by.is_valid else []
    return Measured(found, name, session, context=Context(), links=links)


def measured_commit(members: Sequence[Measured]) -> Measured:
    """A commit that several appends share: a part of the first one's, with links to the others."""
    found = instruments()
    if found is None:
        return OFF
    from opentelemetry.trace import Link

    links = [Link(each.span.get_span_context()) for each in members if each.is_on]
    commit = Measured(found, "shared_commit", is_timed=False, links=links)
    _count_members(found, len(members))
    return commit


@_harmless
def _count_members(found: Instruments, members: int) -> None:
    found.shared_commits.record(members, _SYSTEM)


def current_operation() -> Measured:
    """The operation that this is a part of."""
    return _current.get() or OFF


@_harmless
def counted(counter: str, amount: int = 1) -> None:
    """Add to a counter, as a part of the operation that this is in, if it is in one."""
    found = instruments()
    if found is None or not amount:
        return
    operation = _current.get()
    if operation is not None:
        operation.count(counter, amount)
    else:
        found.counters[counter].add(amount, _SYSTEM)


def count_retry() -> None:
    """Say that the operation that this is a part of is tried once more."""
    operation = _current.get()
    if operation is not None:
        operation.retries += 1
    counted("operation.retries")


def apart() -> None:
    """Have what this task does from here on belong to no operation and to no caller's trace.

    For what serves many callers: it would go into the trace of the first one for ever.
    """
    _current.set(None)
    if instruments() is not None:
        from opentelemetry.context import attach
        from opentelemetry.trace import INVALID_SPAN, set_span_in_context

        attach(set_span_in_context(INVALID_SPAN))


def _failure(error: BaseException) -> Attributes:
    """The server's code where it gave one, or else which of our errors it is."""
    code: object = getattr(error.__cause__, "code", None)
    if isinstance(code, int):
        return {"error.type": str(code), "db.response.status_code": str(code)}
    return {"error.type": type(error).__qualname__}


def _place(database: Any) -> Attributes:
    """A database, and the server that takes its writes, or the one that there is."""
    place: Attributes = {"db.namespace": database.name}
    # Which one answers is the driver's to know, and nothing to fail for.
    with suppress(Exception):
        servers = database.client.topology_description.server_descriptions()
        writable = [address for address, each in servers.items() if each.is_writable]
        host, port = (writable or list(servers))[0]
        place["server.address"] = host
        if port is not None and port != _DEFAULT_PORT:
            place["server.port"] = port
    return place
