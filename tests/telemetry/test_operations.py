"""What the store does is seen in OpenTelemetry: as spans of the caller's trace, and in figures."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager
from datetime import timedelta
from types import ModuleType
from typing import Any

import pytest
from opentelemetry import metrics, trace
from opentelemetry.context import Context
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.trace import NoOpTracerProvider, ProxyTracerProvider, SpanKind, StatusCode
from support.entries import KEY, SUBAGENT, message, turn
from support.server import connected, failing
from support.telemetry import Recorded, said
from support.watchdog import WATCHDOG_SECONDS

from beanie_session_store import (
    BeanieSessionStore,
    ContentionError,
    LeaseLostError,
    NewSession,
    ServerError,
    SessionStoreError,
    clear_retention,
    retention_policies,
    set_retention,
    settled,
    sweep_sessions,
    upgrade_schema,
)
from beanie_session_store.app.database import attempts
from beanie_session_store.app.database.driver import Database, close_client
from beanie_session_store.app.feed.hub import Hub
from beanie_session_store.app.instruments import followers, operations, providers
from beanie_session_store.app.storage.background import go_on, gone_on
from beanie_session_store.app.transcript_key import TranscriptKey
from beanie_session_store.telemetry import use_providers

SECRET = "only for the two of us"


def numbered(number: int) -> dict[str, str]:
    return {**KEY, "session_id": f"s{number}"}


async def test_an_append_is_a_span_of_its_callers_trace(
    store: BeanieSessionStore, database: Database, recorded: Recorded
) -> None:
    with recorded.tracer.start_as_current_span("turn") as turn_span:
        await store.append(KEY, turn(0))
    span = recorded.span("append")
    assert span.parent is not None
    assert span.parent.span_id == turn_span.get_span_context().span_id
    assert span.name == "append claude_transcript_entries"
    assert span.kind is SpanKind.CLIENT
    assert span.status.status_code is StatusCode.UNSET
    attributes = said(span)
    host, port = attributes.pop("server.address"), attributes.pop("server.port")
    assert f"{host}:{port}" in {f"{h}:{p}" for h, p in database.client.nodes}
    assert attributes.pop("session_store.bytes") > 400
    assert attributes == {
        "db.system.name": "mongodb",
        "db.namespace": database.name,
        "db.collection.name": "claude_transcript_entries",
        "db.operation.name": "append",
        "gen_ai.conversation.id": "session",
        "session_store.entries": 6,
        "session_store.stored_entries": 6,
    }


OPERATIONS: dict[str, Callable[[BeanieSessionStore], Any]] = {
    "load": lambda store: store.load(KEY),
    "stream": lambda store: _all(store.stream(KEY)),
    "transcript": lambda store: store.transcript(KEY),
    "list_sessions": lambda store: store.list_sessions("project"),
    "list_session_summaries": lambda store: store.list_session_summaries("project"),
    "list_subkeys": lambda store: store.list_subkeys(KEY),
    "all_sessions": lambda store: _all(store.all_sessions()),
    "lost_sessions": lambda store: _all(store.lost_sessions()),
    "sessions": lambda store: store.sessions(),
    "summary": lambda store: store.summary(KEY),
    "session_named": lambda store: store.session_named("session"),
    "projects": lambda store: store.projects(),
    "usage": lambda store: store.usage(),
    "tools": lambda store: store.tools(),
    "set_metadata": lambda store: store.set_metadata(KEY, {"user": SECRET}),
    "hold": lambda store: store.hold(KEY),
    "release": lambda store: store.release(KEY),
    "verify": lambda store: store.verify(KEY),
    "repair": lambda store: store.repair(KEY),
    "lease_of": lambda store: store.lease_of(KEY),
    "break_lease": lambda store: store.break_lease(KEY),
    "readiness": lambda store: store.readiness(timeout=WATCHDOG_SECONDS),
    "insert_sessions": lambda store: store.insert_sessions(
        [NewSession("project", "other", None, {"": turn(1)})]
    ),
    "delete": lambda store: store.delete(KEY),
    "delete_sessions": lambda store: store.delete_sessions(project_key="project"),
}


async def _all(found: Any) -> list[Any]:
    return [each async for each in found]


async def test_each_operation_is_a_span_and_a_duration(
    store: BeanieSessionStore, recorded: Recorded
) -> None:
    await store.append(KEY, turn(0))
    await store.append(SUBAGENT, turn(0))
    recorded.forget()
    for name, operation in OPERATIONS.items():
        with recorded.tracer.start_as_current_span("request") as request:
            await operation(store)
        span = recorded.span(name)
        assert span.parent is not None, name
        assert span.parent.span_id == request.get_span_context().span_id
        assert span.name.startswith(f"{name} claude_")
        assert span.kind is SpanKind.CLIENT
    timed = recorded.points("db.client.operation.duration")
    assert {point.attributes["db.operation.name"] for point in timed} >= {*OPERATIONS, "append"}
    assert all(point.explicit_bounds[0] == 0.001 and point.sum > 0 for point in timed)
    # What sets series apart must be few.
    names = {name for point in timed for name in point.attributes}
    assert names <= {
        *("db.system.name", "db.namespace", "db.collection.name", "db.operation.name"),
        *("server.address", "server.port", "error.type", "db.response.status_code"),
    }


async def test_what_is_done_to_a_database_is_told_too(
    mongo_url: str, database_name: str, recorded: Recorded
) -> None:
    async with connected(mongo_url) as client:
        database = client[database_name]
        scripts = await upgrade_schema(database)
        (upgrade,) = recorded.spans("upgrade_schema")
        migrated = recorded.spans("migrate")
        assert [said(span)["session_store.migration"] for span in migrated] == scripts
        assert {span.parent and span.parent.span_id for span in migrated} == {
            upgrade.context.span_id
        }
        async with BeanieSessionStore.connect(mongo_url, database=database_name) as store:
            await store.append(KEY, turn(0))
        await set_retention(database, timedelta(days=1))
        await retention_policies(database)
        await clear_retention(database)
        await sweep_sessions(database)
    for name in ("set_retention", "retention_policies", "clear_retention", "sweep_sessions"):
        assert said(recorded.span(name))["db.namespace"] == database_name


async def test_nothing_that_is_told_says_what_a_session_holds(
    store: BeanieSessionStore, recorded: Recorded
) -> None:
    titled = {"type": "custom-title", "customTitle": SECRET, "sessionId": "session"}
    await store.append(KEY, [titled, message(SECRET)])
    await store.set_metadata(KEY, {"user": SECRET})
    await store.load(KEY)
    await store.sessions(title=SECRET, metadata={"user": SECRET})
    with pytest.raises(ValueError, match=SECRET), operations.measured("load", "session"):
        raise ValueError(SECRET)
    told = [span.to_json() for span in recorded.spans()]
    assert len(told) > 3
    points = [str(point) for name in _metrics() for point in recorded.points(name)]
    assert len(points) > 3
    assert not [each for each in told + points if SECRET in each]


def _metrics() -> list[str]:
    return [
        "db.client.operation.duration",
        *(f"session_store.{name}" for name in providers.COUNTERS),
    ]


@pytest.mark.parametrize(
    ("failure", "kind"),
    [({"errorCode": 13}, "13"), ({"errorCode": 96}, "96")],
    ids=["denied", "refused"],
)
async def test_a_failure_is_told_by_the_servers_code(
    store: BeanieSessionStore, database: Database, recorded: Recorded, failure: Any, kind: str
) -> None:
    await store.append(KEY, turn(0))
    async with failing(database, "find", **failure):
        with pytest.raises(SessionStoreError):
            await store.load(KEY)
    span = recorded.span("load")
    assert span.status.status_code is StatusCode.ERROR
    # Its text, and events of exceptions, might quote what is stored.
    assert span.status.description is None
    assert not span.events
    assert said(span)["error.type"] == said(span)["db.response.status_code"] == kind
    (point,) = [
        point
        for point in recorded.points("db.client.operation.duration")
        if point.attributes["db.operation.name"] == "load"
    ]
    assert point.attributes["error.type"] == kind


async def test_an_error_without_a_code_is_told_by_its_name(
    database: Database, recorded: Recorded
) -> None:
    store = BeanieSessionStore()
    await close_client(database.client)
    with pytest.raises(Exception, match="closed"):
        await store.append(KEY, turn(0))
    assert said(recorded.span("append"))["error.type"] == "ClientClosedError"


async def test_a_reader_that_stops_or_is_cancelled_has_not_failed(
    store: BeanieSessionStore, recorded: Recorded
) -> None:
    await store.append(KEY, turn(0))
    async with aclosing(store.stream(KEY)) as entries:
        await anext(entries)
        await anext(entries)
    stopped = recorded.span("stream")
    assert said(stopped)["session_store.entries"] == 2
    watching = asyncio.create_task(_all(store.watch(KEY)))
    await _until(lambda: followers.numbers_of_followers()[0][1] == 1)
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching
    for span in (stopped, recorded.span("watch")):
        assert span.status.status_code is StatusCode.UNSET
        assert "error.type" not in said(span)
    assert not [
        point
        for point in recorded.points("db.client.operation.duration")
        if point.attributes["db.operation.name"] == "watch"
    ]


async def _until(is_so: Callable[[], bool]) -> None:
    async def wait() -> None:
        while not is_so():  # noqa: ASYNC110
            await asyncio.sleep(0.001)

    await asyncio.wait_for(wait(), WATCHDOG_SECONDS)


GENERATORS: dict[str, Callable[[BeanieSessionStore], Any]] = {
    "stream": lambda store: store.stream(KEY),
    "watch": lambda store: store.watch(KEY),
    "all_sessions": lambda store: store.all_sessions(),
    "rows": lambda store: store.reader(KEY).rows({"_id": 1}),
    "stored": lambda store: store.reader(KEY).stored(lambda _: True),
}


@pytest.mark.parametrize("name", GENERATORS)
async def test_between_two_items_the_callers_span_is_current(
    store: BeanieSessionStore, recorded: Recorded, name: str
) -> None:
    await store.append(KEY, turn(0))
    await store.append(numbered(1), turn(0))
    with recorded.tracer.start_as_current_span("request") as request:
        async with aclosing(GENERATORS[name](store)) as found:
            await anext(found)
            assert trace.get_current_span() is request
            await anext(found)
            assert trace.get_current_span() is request
            assert operations.current_operation() is operations.OFF
        assert trace.get_current_span() is request


async def test_a_cancelled_append_ends_its_span_when_it_is_done(
    store: BeanieSessionStore, recorded: Recorded
) -> None:
    with recorded.tracer.start_as_current_span("turn") as turn_span:
        appending = asyncio.create_task(store.append(KEY, turn(0)))
        await asyncio.sleep(0)
        appending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await appending
    assert await settled(WATCHDOG_SECONDS) == []
    span = recorded.span("append")
    assert span.parent is not None
    assert span.parent.span_id == turn_span.get_span_context().span_id
    assert said(span)["session_store.stored_entries"] == 6
    assert span.status.status_code is StatusCode.UNSET


async def test_appends_that_share_a_commit_are_linked_with_it(
    store: BeanieSessionStore, recorded: Recorded
) -> None:
    for number in range(12):
        await store.append(numbered(number), turn(0))
    recorded.forget()

    async def append(number: int) -> int:
        with recorded.tracer.start_as_current_span("turn") as span:
            await store.append(numbered(number), turn(1))
            return span.get_span_context().trace_id

    traces = await asyncio.gather(*map(append, range(12)))
    assert len(set(traces)) == 12
    appends = {span.context.span_id: span for span in recorded.spans("append")}
    assert sorted(span.context.trace_id for span in appends.values()) == sorted(traces)
    commits = recorded.spans("shared_commit")
    assert commits
    sizes = 0
    for commit in commits:
        members = [appends[link.context.span_id] for link in commit.links]
        sizes += len(members)
        assert len(members) > 1
        # It is a part of the one that did it for all.
        assert commit.parent is not None
        assert commit.parent.span_id == members[0].context.span_id
        for member in members:
            assert said(member)["session_store.shared_commit.size"] == len(members)
            assert [link.context.span_id for link in member.links] == [commit.context.span_id]
    alone = [s for s in appends.values() if "session_store.shared_commit.size" not in said(s)]
    assert sizes + len(alone) == 12
    (point,) = recorded.points("session_store.shared_commit.size")
    assert (point.count, point.sum) == (len(commits), sizes)


async def test_a_shared_commit_that_fails_leaves_each_append_its_own(
    store: BeanieSessionStore, database: Database, recorded: Recorded
) -> None:
    for number in range(6):
        await store.append(numbered(number), turn(0))
    recorded.forget()
    async with failing(database, "update", {"times": 2}, errorCode=20):
        outcomes = await asyncio.gather(
            *(store.append(numbered(number), turn(1)) for number in range(6)),
            return_exceptions=True,
        )
    failed = [span for span in recorded.spans("append") if not span.status.is_ok]
    assert len(failed) == sum(isinstance(each, ServerError) for each in outcomes)
    assert len(recorded.spans("append")) == 6
    for span in failed:
        assert said(span)["error.type"] == "20"


async def test_appends_are_counted(store: BeanieSessionStore, recorded: Recorded) -> None:
    packed = message("two", **{"$odd": 1, "a.b": "\ud800"})
    batch = [message("one"), packed]
    await store.append(KEY, batch)
    assert recorded.total("append.entries") == 2
    assert recorded.total("append.packed_entries") == 1
    first = recorded.total("append.bytes")
    assert first > len(json.dumps(batch)) / 3
    await store.append(KEY, [*batch, message("three")])
    assert recorded.total("append.entries") == 3
    assert recorded.total("append.replays") == 2
    assert first < recorded.total("append.bytes") < 2 * first
    await BeanieSessionStore().append(KEY, batch)
    assert recorded.total("append.entries") == 3
    assert recorded.total("append.replays") == 4
    spans = recorded.spans("append")
    assert [said(span).get("session_store.stored_entries") for span in spans] == [2, 1, None]
    assert [said(span)["session_store.entries"] for span in spans] == [2, 3, 2]


async def test_contention_and_retries_are_counted(
    store: BeanieSessionStore, recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = BeanieSessionStore()
    await store.append(KEY, turn(0))
    await other.append(KEY, turn(1))
    recorded.forget()
    # It knows the session as it was before the other wrote to it.
    await store.append(KEY, turn(2))
    assert recorded.total("append.contention") == 1
    assert recorded.total("operation.retries", db_operation_name="append") == 1
    assert said(recorded.span("append"))["session_store.retries"] == 1
    monkeypatch.setattr(attempts, "_SECONDS", 0.0)
    with pytest.raises(ContentionError):
        await other.append(KEY, turn(3))
    assert said(recorded.spans("append")[-1])["error.type"] == "ContentionError"
    assert recorded.total("append.contention") == 2


async def test_a_commit_without_an_answer_is_counted(
    store: BeanieSessionStore,
    database: Database,
    recorded: Recorded,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await store.append(KEY, turn(0))
    monkeypatch.setattr(attempts, "_SECONDS", 0.0)
    async with failing(database, "commitTransaction", {"times": 2}, closeConnection=True):
        with pytest.raises(Exception, match="not known"):
            await store.append(KEY, turn(1))
    assert recorded.total("append.unknown_outcomes") == 1


async def test_a_lost_lease_is_counted(store: BeanieSessionStore, recorded: Recorded) -> None:
    async with store.lease(KEY, owner="a") as leased:
        await leased.append(KEY, turn(0))
        await store.break_lease(KEY)
        with pytest.raises(LeaseLostError):
            await leased.append(KEY, turn(1))
    assert recorded.total("leases.lost") == 1
    async with store.lease(KEY, owner="a") as leased:
        await leased.append(KEY, turn(1))
    assert recorded.total("leases.lost") == 1


def _gauge(recorded: Recorded, name: str) -> dict[str, float]:
    points = recorded.points(f"session_store.{name}")
    return {point.attributes["session_store.follower"]: point.value for point in points}


async def test_followers_are_counted_and_their_lag_is_told(
    store: BeanieSessionStore, recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(followers, "monotonic", lambda: now[0])
    monkeypatch.setattr("beanie_session_store.app.feed.feed.monotonic", lambda: now[0])
    monkeypatch.setattr("beanie_session_store.app.reading.watch.monotonic", lambda: now[0])
    assert _gauge(recorded, "followers") == {"watch": 0, "feed": 0}
    async with store.feed() as feed, aclosing(store.watch(KEY)) as entries:
        assert _gauge(recorded, "followers.lag") == {"watch": 0, "feed": 0}
        watching = asyncio.create_task(anext(entries))
        await _until(lambda: followers.numbers_of_followers() == [("watch", 1), ("feed", 1)])
        await store.append(KEY, turn(0))
        await asyncio.wait_for(watching, WATCHDOG_SECONDS)
        await _until(lambda: dict(followers.longest_waits())["feed"] == 0 and bool(feed._pending))
        now[0] += 7
        assert _gauge(recorded, "followers") == {"watch": 1, "feed": 1}
        assert _gauge(recorded, "followers.lag") == {"watch": 7, "feed": 7}
        # What it is at counts until it asks for more and there is none.
        await asyncio.wait_for(anext(feed), WATCHDOG_SECONDS)
        assert _gauge(recorded, "followers.lag")["feed"] == 7
        waiting = asyncio.create_task(anext(feed))
        await asyncio.sleep(0)
        assert _gauge(recorded, "followers.lag")["feed"] == 0
        for _ in range(5):
            await asyncio.wait_for(anext(entries), WATCHDOG_SECONDS)
        rest = asyncio.create_task(anext(entries))
        await _until(lambda: dict(followers.longest_waits())["watch"] == 0)
        for task in (waiting, rest):
            task.cancel()
        await asyncio.gather(waiting, rest, return_exceptions=True)
    assert _gauge(recorded, "followers") == {"watch": 0, "feed": 0}


async def test_work_behind_a_call_is_a_trace_of_its_own_with_a_link(
    store: BeanieSessionStore, recorded: Recorded
) -> None:
    await store.append(KEY, turn(0))
    names: list[str] = []

    async def sweep(*_: object) -> None:
        names.append(operations.current_operation().name)

    with recorded.tracer.start_as_current_span("request") as request:
        connection = await store._connection()
        with operations.measured("delete", "session"):
            go_on(connection, TranscriptKey.parse(store.tenant, KEY), sweep)
    await gone_on()
    assert names == ["sweep"]
    span = recorded.span("sweep")
    delete = recorded.span("delete")
    assert span.parent is None
    assert span.context.trace_id != request.get_span_context().trace_id
    assert [link.context.span_id for link in span.links] == [delete.context.span_id]


async def test_what_serves_all_feeds_is_of_no_callers_trace(
    store: BeanieSessionStore, recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    understood = Hub._understood

    async def watched(self: Hub, document: Any) -> Any:
        seen.append(trace.get_current_span().get_span_context().is_valid)
        return await understood(self, document)

    monkeypatch.setattr(Hub, "_understood", watched)
    with recorded.tracer.start_as_current_span("request"):
        async with store.feed() as feed:
            await store.append(KEY, turn(0))
            await asyncio.wait_for(anext(feed), WATCHDOG_SECONDS)
    assert seen == [False]


@contextmanager
def _untouched(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(providers, "_made", None)
    monkeypatch.setattr(providers, "_is_unusable", False)
    yield


async def test_without_a_provider_nothing_is_recorded(
    store: BeanieSessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _untouched(monkeypatch):
        assert isinstance(trace.get_tracer_provider(), ProxyTracerProvider)
        await store.append(KEY, turn(0))
        assert providers.instruments() is None
        assert operations.measured("append") is operations.OFF
        assert operations.measured_behind("sweep") is operations.OFF
        assert operations.measured_commit([]) is operations.OFF
        operations.counted("leases.lost")
        operations.count_retry()
        monkeypatch.delitem(sys.modules, "opentelemetry.trace")
        assert providers.instruments() is None


@pytest.mark.parametrize("api", ["trace", "metrics"])
async def test_a_provider_that_is_set_later_is_found(
    store: BeanieSessionStore, recorded: Recorded, monkeypatch: pytest.MonkeyPatch, api: str
) -> None:
    with _untouched(monkeypatch):
        await store.append(KEY, turn(0))
        assert providers.instruments() is None
        if api == "trace":
            monkeypatch.setattr(trace, "get_tracer_provider", lambda: recorded.tracer_provider)
        else:
            monkeypatch.setattr(metrics, "get_meter_provider", lambda: recorded.meter_provider)
            monkeypatch.setattr(
                "opentelemetry.metrics._internal.get_meter_provider",
                lambda: recorded.meter_provider,
            )
        await store.append(KEY, turn(1))
        assert len(recorded.spans("append")) == (api == "trace")
        assert recorded.total("append.entries") == (6 if api == "metrics" else 0)


async def test_an_api_that_fails_costs_no_append(
    store: BeanieSessionStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Old:
        """Some provider of another age."""

    with _untouched(monkeypatch):
        monkeypatch.setattr(metrics, "get_meter_provider", Old)
        monkeypatch.setattr(metrics, "get_meter", lambda *_, **__: Old())
        with caplog.at_level(logging.WARNING, "beanie_session_store.instruments"):
            await store.append(KEY, turn(0))
            await store.append(KEY, turn(1))
        assert len(caplog.records) == 1
        assert len(await store.load(KEY) or []) == 12


@pytest.mark.parametrize("api", [trace, metrics])
async def test_a_provider_that_cannot_be_loaded_costs_no_append(
    store: BeanieSessionStore,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    api: ModuleType,
) -> None:
    def fails() -> object:
        raise StopIteration("no such entry point")

    with _untouched(monkeypatch):
        # As where OTEL_PYTHON_TRACER_PROVIDER names what is not installed.
        getter = "get_tracer_provider" if api is trace else "get_meter_provider"
        monkeypatch.setattr(api, getter, fails)
        with caplog.at_level(logging.WARNING, "beanie_session_store.instruments"):
            await store.append(KEY, turn(0))
            await store.append(KEY, turn(1))
        assert len(caplog.records) == 1
        assert len(await store.load(KEY) or []) == 12


class _Broken(SpanProcessor):
    """A processor of a team's own, such as one that redacts, which fails."""

    def __init__(self, *where: str) -> None:
        self._where = where

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        if "start" in self._where:
            raise RuntimeError(SECRET)

    def on_end(self, span: ReadableSpan) -> None:
        if "end" in self._where:
            raise RuntimeError(SECRET)


@pytest.mark.parametrize("where", [("start",), ("end",), ("start", "end"), ("record",)])
async def test_what_fails_where_it_is_recorded_costs_nothing_that_is_done(
    store: BeanieSessionStore,
    recorded: Recorded,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    where: tuple[str, ...],
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError(SECRET)

    monkeypatch.setattr(providers, "_has_warned", False)
    recorded.tracer_provider.add_span_processor(_Broken(*where))
    found = providers.instruments()
    assert found is not None
    if where == ("record",):
        for each in (found.duration, found.shared_commits, *found.counters.values()):
            monkeypatch.setattr(each, "record", fails, raising=False)
            monkeypatch.setattr(each, "add", fails, raising=False)
    with caplog.at_level(logging.WARNING, "beanie_session_store.instruments"):
        before = trace.get_current_span()
        await store.append(KEY, turn(0))
        await asyncio.gather(*(store.append(numbered(n), turn(0)) for n in range(4)))
        await asyncio.gather(*(store.append(numbered(n), turn(1)) for n in range(4)))
        assert [e.seq async for e in store.stream(KEY)] == [1, 2, 3, 4, 5, 6]
        with pytest.raises(SessionStoreError):
            await store.set_metadata(numbered(9), {"user_id": "u1"})
        assert trace.get_current_span() is before
        assert operations.current_operation() is operations.OFF
    assert [len(await store.load(numbered(n)) or []) for n in range(4)] == [12] * 4
    (warning,) = caplog.records
    assert "fails" in warning.getMessage()
    if where == ("record",):
        assert len(recorded.spans("append")) == 9


async def test_a_module_that_is_just_being_imported_is_not_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with _untouched(monkeypatch):
        monkeypatch.setitem(sys.modules, "opentelemetry.trace", ModuleType("opentelemetry.trace"))
        assert providers.instruments() is None


async def test_providers_of_ones_own_are_used_and_can_be_none_at_all(
    store: BeanieSessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _untouched(monkeypatch):
        recorded = Recorded()
        use_providers(recorded.tracer_provider, recorded.meter_provider)
        await store.append(KEY, turn(0))
        assert recorded.total("append.entries") == 6
        use_providers(NoOpTracerProvider(), NoOpMeterProvider())
        await store.append(KEY, turn(1))
        assert len(recorded.spans("append")) == 1
        assert recorded.total("append.entries") == 6


async def test_gauges_may_be_read_by_any_thread(recorded: Recorded) -> None:
    stop = threading.Event()
    failures: list[BaseException] = []

    def read() -> None:
        try:
            while not stop.is_set():
                followers.numbers_of_followers()
                followers.longest_waits()
        except BaseException as error:
            failures.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(2000):
        with followers.Follower("watch"), followers.Follower("feed"):
            pass
    stop.set()
    reader.join()
    assert not failures
    assert followers.numbers_of_followers() == [("watch", 0), ("feed", 0)]
