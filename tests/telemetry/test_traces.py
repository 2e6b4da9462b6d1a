"""A session is a trace: exported to files or sent to a collector, it is right for any consumer."""

from __future__ import annotations

import asyncio
import gc
import random
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from support.collector import (
    Collector,
    attributes_of,
    collecting,
    of_json,
    problems_of,
    spans_of,
)
from support.command import SessionStoreCommand
from support.conversation import Conversation, shop
from support.entries import KEY, SUBAGENT, message
from support.reported import Case, cases
from support.watchdog import WATCHDOG_SECONDS

from beanie_session_store import (
    BeanieSessionStore,
    TransferError,
    UnknownSessionError,
    export_transcripts,
    import_transcripts,
)
from beanie_session_store.app.database.driver import Database
from beanie_session_store.app.jobs.trace_export import session_trace
from beanie_session_store.app.telemetry import following
from beanie_session_store.app.traces.otlp_json import otlp_line
from beanie_session_store.app.traces.session_spans import SessionSpans
from beanie_session_store.telemetry import follow_traces, send_traces

UUID = "6645a6b0-1111-4111-8111-111111111111"
SECRET = "xylophone-73"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as found:
        yield found


@pytest.fixture
def exporter(collector: Collector) -> Iterator[OTLPSpanExporter]:
    found = OTLPSpanExporter(endpoint=collector.url, timeout=1)
    yield found
    found.shutdown()


async def stored_shop(store: BeanieSessionStore, key: Any = KEY) -> None:
    """A session with tools, failures, a subagent, a branch and a compaction."""
    for subpath, entries in shop().items():
        await store.append({**key, "subpath": subpath} if subpath else key, entries)


def tokens(spans: list[Span]) -> Counter[tuple[str, str]]:
    """What all responses took, by model and kind, as the API counts it."""
    found: Counter[tuple[str, str]] = Counter()
    for span in spans:
        said = attributes_of(span)
        if said["gen_ai.operation.name"] != "chat":
            continue
        model = said["gen_ai.response.model"]
        read = said["gen_ai.usage.cache_read.input_tokens"]
        creation = said["gen_ai.usage.cache_creation.input_tokens"]
        found[model, "responses"] += 1
        found[model, "input"] += said["gen_ai.usage.input_tokens"] - read - creation
        found[model, "output"] += said["gen_ai.usage.output_tokens"]
        found[model, "cache_read"] += read
        found[model, "cache_creation"] += creation
    return +found


async def totals(store: BeanieSessionStore, key: Any = KEY) -> Counter[tuple[str, str]]:
    """The same, of the session's summary."""
    summary = await store.summary(key)
    assert summary is not None
    kinds = ("responses", "input", "output", "cache_read", "cache_creation")
    return +Counter(
        {
            (model, kind): getattr(row, kind)
            for model, row in summary.totals.by_model.items()
            for kind in kinds
        }
    )


def by_operation(spans: list[Span], operation: str) -> list[Span]:
    return [s for s in spans if attributes_of(s)["gen_ai.operation.name"] == operation]


async def test_a_session_is_a_trace_of_turns_responses_tools_and_subagents(
    store: BeanieSessionStore, collector: Collector, exporter: OTLPSpanExporter
) -> None:
    key = {**KEY, "session_id": UUID}
    await stored_shop(store, key)
    report = await send_traces(store, exporter)
    assert (report.done, report.failed) == (1, 0)
    spans = collector.spans
    assert problems_of(spans) == []
    assert {span.trace_id.hex() for span in spans} == {UUID.replace("-", "")}
    assert {attributes_of(span)["gen_ai.conversation.id"] for span in spans} == {UUID}
    transcript = await store.transcript(key)
    summary = await store.summary(key)
    assert transcript is not None
    assert summary is not None
    by_id = {span.span_id: span for span in spans}
    turns = [span for span in spans if not span.parent_span_id]
    assert len(turns) == summary.totals.turns > 1
    assert {span.name for span in turns} == {"invoke_agent claude"}
    tools = by_operation(spans, "execute_tool")
    assert Counter(attributes_of(span)["gen_ai.tool.name"] for span in tools) == Counter(
        call.name for call in transcript.all_tool_calls
    )
    failed = [span for span in tools if span.status.code]
    assert len(failed) == sum(call.is_error for call in transcript.all_tool_calls) > 0
    ids = {attributes_of(span)["gen_ai.tool.call.id"]: span for span in tools}
    for call in transcript.all_tool_calls:
        assert call.id is not None
        span = ids[call.id]
        if call.duration is not None:
            took = (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9
            assert took == pytest.approx(call.duration.total_seconds())
    (agent,) = [s for s in by_operation(spans, "invoke_agent") if s.parent_span_id]
    assert agent.name == "invoke_agent reviewer"
    assert attributes_of(agent)["gen_ai.agent.id"] == "a1"
    assert attributes_of(by_id[agent.parent_span_id])["gen_ai.tool.name"] in ("Task", "Agent")
    below = [span for span in spans if span.parent_span_id == agent.span_id]
    assert Counter(attributes_of(s)["gen_ai.operation.name"] for s in below) == {
        "chat": 2,
        "execute_tool": 1,
    }
    assert tokens(spans) == await totals(store, key)
    (resource,) = {
        str(r.resource) for request in collector.requests for r in request.resource_spans
    }
    assert "claude-agent" in resource


async def test_files_and_collectors_get_the_same_and_again_the_same(
    store: BeanieSessionStore, collector: Collector, exporter: OTLPSpanExporter, tmp_path: Path
) -> None:
    await stored_shop(store)
    for name in ("one", "two"):
        report = await export_transcripts(store, tmp_path / name, format="otlp")
        assert (report.done, report.failed, report.entries) == (1, 0, report.entries)
    path = Path("project", "session.otlp.jsonl")
    one, two = ((tmp_path / name / path).read_bytes() for name in ("one", "two"))
    assert one == two
    of_files = spans_of(*map(of_json, one.splitlines()))
    assert problems_of(of_files) == []
    await send_traces(store, exporter)
    first = collector.spans
    collector.requests.clear()
    await send_traces(store, exporter)
    assert collector.spans == first
    # What the official exporter says besides: that each is sampled, and has no status.
    for span in first:
        span.flags = 0
        if not span.status.code:
            span.ClearField("status")
    assert first == of_files


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.path.name)
async def test_tokens_are_those_of_the_totals_in_whatever_people_reported(
    store: BeanieSessionStore, tmp_path: Path, case: Case
) -> None:
    await import_transcripts(store, case.lay_out(tmp_path / "projects"))
    count = 0
    async for listing in store.all_sessions():
        spans = [span async for batch, _ in traced(store, listing) for span in batch]
        assert problems_of(spans) == []
        assert tokens(spans) == await totals(store, listing.key())
        count += 1
    assert count


async def traced(
    store: BeanieSessionStore, listing: Any, **options: Any
) -> AsyncIterator[tuple[list[Span], int]]:
    """The spans of a session, as a consumer reads them."""
    wanted = {"with_content": False, **options}
    async for spans, entries in session_trace(store, listing, **wanted):
        yield (spans_of(of_json(otlp_line(spans))) if spans else []), entries


TIMES = [
    "2026-01-01T00:00:00.000Z",
    "2026-01-01T00:00:09.500Z",
    "2025-12-31T23:59:59Z",
    "2026-01-01T02:00:00+02:00",
    "1969-12-31T23:59:59.000Z",
    "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59.999999Z",
    "tomorrow",
    "",
    None,
    7,
    {"at": "noon"},
]


def odd_entry(chance: random.Random, number: int) -> dict[str, Any]:
    """An entry as no agent should write it."""
    uuids = [f"u{number}", "u1", "u2", None, 7, "\ud800"]
    ids = [f"m{number}", "m1", "m2", None, ""]
    call = {
        "type": chance.choice(["tool_use", "server_tool_use"]),
        "id": chance.choice(["t1", "t2", "t3", f"t{number}", "", None, 5]),
        "name": chance.choice(["Bash", "", None, "\udc00", "x" * 5000]),
        "input": chance.choice([{}, {"a": "\ud800"}, None, [1]]),
    }
    result = {
        "type": "tool_result",
        "tool_use_id": chance.choice(["t1", "t2", "t3", "t99", None]),
        "is_error": chance.choice([True, False, "yes"]),
        "content": chance.choice(["done", [{"type": "text", "text": SECRET}], None]),
    }
    said = {"type": "text", "text": SECRET}
    blocks = [call, result, said, {"type": "thinking", "thinking": SECRET}, "none", 3]
    count = chance.choice([0, 7, 1000, -5, 2**70, 1.5, "9", None])
    usage = {"input_tokens": count, "output_tokens": chance.choice([1, 5, None])}
    usage["cache_read_input_tokens"] = chance.choice([0, 100])
    message_ = {
        "id": chance.choice(ids),
        "model": chance.choice(["claude-a", "claude-b", "<synthetic>", None, "\ud800"]),
        "stop_reason": chance.choice(["end_turn", None, 4]),
        "content": chance.choice([SECRET, chance.sample(blocks, 3), [], None, {}]),
        "usage": chance.choice([usage, usage, None, []]),
    }
    return {
        "type": chance.choice(["user", "assistant", "assistant", "system", "agent_metadata"]),
        "uuid": chance.choice(uuids),
        "timestamp": chance.choice(TIMES),
        "isSidechain": chance.choice([False, False, True]),
        "requestId": chance.choice([None, "r1", f"r{number}"]),
        "agentType": chance.choice(["Explore", "", None, 3]),
        "toolUseId": chance.choice(["t1", "t2", None]),
        "parentAgentId": chance.choice(["a1", "a2", None]),
        "toolUseResult": chance.choice([{"agentId": chance.choice(["a1", "a2"])}, None, "x"]),
        "message": chance.choice([message_, message_, message_, message_, None, "hello"]),
        **({"forkedFrom": {"sessionId": "other"}} if chance.random() < 0.05 else {}),
    }


@pytest.mark.parametrize("seed", range(12))
async def test_whatever_the_entries_say_every_span_is_one_that_a_consumer_takes(
    store: BeanieSessionStore, seed: int
) -> None:
    chance = random.Random(seed)
    for begin in range(0, 120, 10):
        subpath = chance.choice(["", "", "subagents/agent-a1", "subagents/agent-a2"])
        key = {**KEY, "subpath": subpath} if subpath else KEY
        batch = [odd_entry(chance, number) for number in range(begin, begin + 10)]
        await store.append(key, batch)
    (listing,) = [each async for each in store.all_sessions()]
    for with_content in (False, True):
        found = [each async for each in traced(store, listing, with_content=with_content)]
        spans = [span for batch, _ in found for span in batch]
        assert problems_of(spans) == []
        assert tokens(spans) == await totals(store)
        assert (SECRET in str(spans)) is with_content
        assert no_circle(spans)


def no_circle(spans: list[Span]) -> bool:
    parents = {span.span_id: span.parent_span_id for span in spans}
    for span in spans:
        seen = set()
        at = span.span_id
        while at:
            assert at not in seen
            seen.add(at)
            at = parents[at]
    return bool(spans)


async def test_content_is_told_only_when_it_is_asked_for(
    store: BeanieSessionStore, collector: Collector, exporter: OTLPSpanExporter
) -> None:
    talk = Conversation()
    talk.prompt(f"Read {SECRET}")
    talk.call("Read", {"file_path": f"/{SECRET}"}, f"it says {SECRET}")
    talk.text(f"It says {SECRET}.")
    title = {"type": "custom-title", "customTitle": SECRET, "sessionId": "session"}
    await store.append(KEY, [*talk.entries, title])
    await send_traces(store, exporter)
    assert problems_of(collector.spans) == []
    assert SECRET not in str(collector.requests)
    plain = {span.span_id for span in collector.spans}
    collector.requests.clear()
    await send_traces(store, exporter, with_content=True)
    spans = collector.spans
    assert problems_of(spans) == []
    assert {span.span_id for span in spans} == plain
    told = {name for span in spans for name, v in attributes_of(span).items() if SECRET in str(v)}
    assert told == {
        "gen_ai.input.messages",
        "gen_ai.output.messages",
        "gen_ai.tool.call.arguments",
        "gen_ai.tool.call.result",
    }


async def test_calls_that_share_an_id_are_calls_of_their_own(store: BeanieSessionStore) -> None:
    # Relays number them anew in each response.
    talk = Conversation()
    for number in range(3):
        talk.prompt(f"{number}")
        call = {"type": "tool_use", "id": "call_0", "name": "Read", "input": {}}
        talk.say(call)
        talk.prompt({"type": "tool_result", "tool_use_id": "call_0", "content": "a file"})
        talk.text("Read.")
    # Streamed, a response comes as several entries, each with all that was said so far.
    again = {**talk.entries[-3], "uuid": "again", "timestamp": "2026-11-24T12:00:00.000Z"}
    await store.append(KEY, [*talk.entries[:-2], again, *talk.entries[-2:]])
    (listing,) = [each async for each in store.all_sessions()]
    spans = [span async for batch, _ in traced(store, listing) for span in batch]
    assert problems_of(spans) == []
    assert len(by_operation(spans, "execute_tool")) == 3
    summary = await store.summary(KEY)
    assert summary is not None
    assert summary.totals.tool_calls == {"Read": 3}
    assert tokens(spans) == await totals(store)


async def test_a_fork_has_only_what_it_did_itself(store: BeanieSessionStore) -> None:
    talk = Conversation()
    talk.prompt("One")
    talk.text("Yes.")
    copies = [{**each, "forkedFrom": {"sessionId": "source"}} for each in talk.entries]
    talk.prompt("Two")
    talk.text("And yes.")
    await store.append(KEY, [*copies, *talk.entries[2:]])
    (listing,) = [each async for each in store.all_sessions()]
    spans = [span async for batch, _ in traced(store, listing) for span in batch]
    assert problems_of(spans) == []
    assert tokens(spans) == await totals(store)
    assert Counter(span.name.split(" ")[0] for span in spans) == {"invoke_agent": 1, "chat": 1}


async def test_what_is_not_a_session_or_not_taken_is_told(
    store: BeanieSessionStore,
    collector: Collector,
    exporter: OTLPSpanExporter,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(UnknownSessionError, match="nothing was sent"):
        await send_traces(store, exporter)
    await stored_shop(store)
    with pytest.raises(UnknownSessionError):
        await send_traces(store, exporter, session_id="other")
    collector.status = 400
    with pytest.raises(TransferError, match="send again"):
        await send_traces(store, exporter)

    class Broken(SpanExporter):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            raise OSError("no network today")

    with pytest.raises(TransferError, match="send again"):
        await send_traces(store, Broken())
    assert "no network today" in caplog.text


async def test_a_session_without_a_response_or_without_any_entry_of_a_talk(
    store: BeanieSessionStore,
) -> None:
    await store.append(KEY, [{"type": "mode", "mode": "plan"}])
    (listing,) = [each async for each in store.all_sessions()]
    assert [each async for each in traced(store, listing)] == [([], 1)]
    await store.append(KEY, [message("Hello?")])
    (found,) = [each async for each in traced(store, listing)]
    assert [span.name for span in found[0]] == ["invoke_agent claude"]
    await store.append(SUBAGENT, [message("Look", timestamp=None)])
    spans = [span async for batch, _ in traced(store, listing) for span in batch]
    assert problems_of(spans) == []
    assert len(spans) == 2


def test_no_content_is_kept_however_many_entries_there_are() -> None:
    def peak(turns: int, size: int) -> int:
        """Bytes at most, for a session of four entries a turn."""
        gc.collect()
        tracemalloc.start()
        spans = SessionSpans("session", with_content=True)
        seq = sent = 0
        for number in range(turns):
            talk = Conversation(f"t{number}")
            talk.prompt("x" * size)
            talk.call("Read", {"file_path": "/x"}, "y" * size)
            talk.text("z" * size)
            for entry in talk.entries:
                seq += 1
                sent += sum(1 for _ in spans.add({**entry, "isSidechain": False}, "", seq))
        sent += sum(1 for _ in spans.ended())
        assert (seq, sent) == (turns * 4, turns * 4)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    few, many = peak(250, 10), peak(1000, 10)
    # Of each entry, what tells whether it comes again.
    assert (many - few) / 3000 < 1000
    # Ten megabytes more were said.
    assert peak(1000, 4000) - many < 500_000


async def test_the_command_writes_files_and_sends(
    store: BeanieSessionStore,
    mongo_url: str,
    database: Database,
    collector: Collector,
    tmp_path: Path,
) -> None:
    await stored_shop(store)
    command = SessionStoreCommand(mongo_url, database.name)
    written = await command("export", "--format", "otlp", tmp_path / "out")
    assert written.code == 0, written.errors
    (path,) = (tmp_path / "out").rglob("*.otlp.jsonl")
    sent = await command("export", "--format", "otlp", "--session", "session", collector.url)
    assert sent.code == 0, sent.errors
    of_file = spans_of(*map(of_json, path.read_bytes().splitlines()))
    assert [span.span_id for span in collector.spans] == [span.span_id for span in of_file]
    assert "charged twice" not in str(collector.requests)
    told = await command("export", "--format", "otlp", "--content", collector.url)
    assert told.code == 0
    assert "charged twice" in str(collector.requests)
    for wrong in (["--content", tmp_path / "x"], [collector.url], ["--archive", collector.url]):
        refused = await command("export", *wrong)
        assert refused.code == 2, refused
        assert not (tmp_path / "x").exists()


async def until(collector: Collector, count: int) -> list[Span]:
    async def wait() -> None:
        while len(collector.spans) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    await asyncio.wait_for(wait(), WATCHDOG_SECONDS)
    return collector.spans


async def test_sessions_are_sent_while_they_are_written(
    store: BeanieSessionStore,
    database: Database,
    collector: Collector,
    exporter: OTLPSpanExporter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(following, "REST_SECONDS", 0.05)
    talk = Conversation()
    async with store.feed() as feed:
        token = feed.token
    task = asyncio.create_task(follow_traces(store, exporter, after=token))
    talk.prompt("One")
    talk.call("Read", {}, "a file")
    talk.text("Yes.")
    await store.append(KEY, talk.entries)
    # The turn, too: nothing more comes.
    assert len(await until(collector, 4)) == 4
    talk.prompt("Two")
    talk.text("And yes.")
    await store.append(KEY, talk.entries[4:])
    await store.append({**KEY, "session_id": "other"}, Conversation("o").entries or [message()])
    assert len(await until(collector, 7)) == 7
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    live = collector.spans
    assert problems_of(live) == []
    collector.requests.clear()
    await send_traces(store, exporter)
    assert sorted(live, key=str) == sorted(collector.spans, key=str)


async def test_a_call_under_way_is_waited_for_and_a_deleted_session_is_ended(
    store: BeanieSessionStore,
    collector: Collector,
    exporter: OTLPSpanExporter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(following, "REST_SECONDS", 0.02)
    talk = Conversation()
    talk.prompt("One")
    talk.call("Read", {}, "a file")
    async with store.feed() as feed:
        token = feed.token
    task = asyncio.create_task(follow_traces(store, exporter, after=token))
    await store.append(KEY, talk.entries[:2])
    marker = Conversation("marker")
    marker.prompt("Hello")
    await store.append({**KEY, "session_id": "marker"}, marker.entries)
    (span,) = await until(collector, 1)
    assert attributes_of(span)["gen_ai.conversation.id"] == "marker"
    await store.delete(KEY)
    spans = await until(collector, 4)
    assert problems_of(spans) == []
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
