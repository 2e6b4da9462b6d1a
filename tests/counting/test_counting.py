"""Responses, calls and costs are counted once, however and wherever they are written again."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count, product
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from support.database import own_loop
from support.entries import KEY
from support.independent_count import Count, independent_count

from beanie_session_store import BeanieSessionStore, SessionSummary, TranscriptEntry
from beanie_session_store.app.database.driver import Database, collection_of
from beanie_session_store.models.counting.tally import Tally

Entry = dict[str, Any]
Transcripts = dict[str, list[Entry]]

COMPACTION = "subagents/agent-c"
_clock = count()


def _entry(kind: str, content: Any, **fields: Any) -> Entry:
    at = next(_clock)
    seconds, ms = divmod(at, 1000)
    return {
        "type": kind,
        "uuid": str(uuid.uuid4()),
        "timestamp": f"2026-03-01T10:{seconds // 60 % 60:02}:{seconds % 60:02}.{ms:03}Z",
        "sessionId": "session",
        **fields,
        "message": {"role": kind, "content": content, **fields.pop("message", {})},
    }


def u(text: str = "go on", **fields: Any) -> Entry:
    """What a person typed."""
    return _entry("user", text, **fields)


def a(response: Any, *blocks: Entry, tokens: int = 100, output: int = 10, **fields: Any) -> Entry:
    """An entry of a response; ``response`` is its ``message.id``."""
    usage = {"input_tokens": tokens, "output_tokens": output}
    message = {"id": response, "model": "opus", "usage": usage}
    return _entry(
        "assistant", list(blocks) or [{"type": "text", "text": "x"}], message=message, **fields
    )


def call(number: str, name: str = "Bash") -> Entry:
    return {"type": "tool_use", "id": number, "name": name, "input": {}}


def result(number: str, *, is_error: bool = False, **fields: Any) -> Entry:
    block = {"type": "tool_result", "tool_use_id": number, "content": "x", "is_error": is_error}
    return _entry("user", [block], **fields)


def again(entries: Sequence[Entry], **fields: Any) -> list[Entry]:
    """The same entries with other uuids, as compactions and resumes write them."""
    return [{**entry, "uuid": str(uuid.uuid4()), **fields} for entry in entries]


def subagent(number: int) -> str:
    return f"subagents/agent-a{number}"


class Session:
    """Appends to a session in batches, and remembers what it appended."""

    def __init__(self, session_id: str = "session") -> None:
        self.key: Any = {**KEY, "session_id": session_id}
        self.entries: list[tuple[str, Entry]] = []

    async def append(
        self,
        subpath: str,
        entries: Sequence[Entry],
        batch: int = 1000,
        store: BeanieSessionStore | None = None,
    ) -> None:
        key = {**self.key, "subpath": subpath} if subpath else self.key
        for at in range(0, len(entries), batch):
            part = list(entries[at : at + batch])
            await (store or BeanieSessionStore()).append(key, part)
            self.entries += [(subpath, entry) for entry in part]

    async def counted(self) -> Count:
        """What the stored totals say, which verify must agree with."""
        summary = await SessionSummary.find_one({"session_id": self.key["session_id"]})
        assert summary is not None
        assert summary.totals is not None
        found = await BeanieSessionStore().verify(self.key)
        assert found.differences == ()
        rows = summary.totals.usage
        return Count(
            sum(row.responses for row in rows),
            sum(row.input for row in rows),
            sum(row.output for row in rows),
            sum(row.cache_creation for row in rows),
            sum(row.cache_read for row in rows),
            {row.name: (row.calls, row.errors) for row in summary.totals.tools if row.calls},
        )

    async def assert_counted(self, responses: int, tokens: int | None = None) -> None:
        """The totals, the other count and the typed transcript all have so many responses."""
        found = await self.counted()
        assert (found.responses, found.input) == (responses, tokens or 100 * responses)
        assert found == independent_count(self.entries)
        transcript = await BeanieSessionStore().transcript(self.key)
        assert transcript is not None
        (used,) = transcript.total_usage.values()
        assert (used.responses, used.input) == (found.responses, found.input)
        calls: dict[str, list[bool]] = {}
        for each in transcript.all_tool_calls:
            calls.setdefault(each.name, []).append(each.is_error)
        assert {n: (len(e), sum(e)) for n, e in calls.items()} == found.tools


@pytest.mark.parametrize("at", ["9999-12-31T23:59:59.999Z", "0001-01-01T00:00:00Z", "1969-12-31Z"])
def test_a_time_at_the_calendars_edge_is_counted(at: str) -> None:
    entry = {"type": "assistant", "timestamp": at, "message": {"id": "m", "model": "x"}}
    for times in (1, 2):
        tally = Tally()
        tally.add([{**entry, "message": {**entry["message"], "usage": {}}}] * times, "", 1)
        assert [row["responses"] for row in tally.document(3)["usage"]] == [1]


@pytest.fixture
def session(database: Database) -> Session:
    return Session()


@pytest.mark.parametrize(
    ("responses", "batch"),
    [
        *product([17, 90], [7, 1000]),
        (17, 1),
        pytest.param(90, 1, marks=pytest.mark.soak),
    ],
)
async def test_a_compactions_file_repeats_the_main_transcript(
    session: Session, responses: int, batch: int
) -> None:
    history = [u(), *(a(f"m{number}") for number in range(responses))]
    await session.append("", history, batch)
    await session.append(COMPACTION, again(history), batch)
    await session.assert_counted(responses)
    await session.append("", [a("more")])
    await session.assert_counted(responses + 1)


@pytest.mark.parametrize("batch", [1, 7, 1000])
async def test_a_compactions_file_comes_first(session: Session, batch: int) -> None:
    history = [u(), *(a(f"m{number // 2}", output=number) for number in range(80))]
    await session.append(COMPACTION, again(history[:60]), batch)
    await session.append("", history, batch)
    await session.assert_counted(40)


@pytest.mark.parametrize("agents", [17, pytest.param(60, marks=pytest.mark.soak)])
async def test_many_subagents_at_once(session: Session, agents: int) -> None:
    store = BeanieSessionStore()
    for step in range(2):
        for number in range(agents):
            entry = a(f"m{number}", output=step + 1)
            await session.append(subagent(number), [entry], store=store)
    await session.assert_counted(agents)
    for number in range(agents):
        await session.append(subagent(number), [a(f"m{number}", call("t"))], store=store)
    for number in range(agents):
        await session.append(subagent(number), [result("t", is_error=True)], store=store)
    await session.assert_counted(agents)
    assert (await session.counted()).tools == {"Bash": (agents, agents)}


@pytest.mark.parametrize("batch", [pytest.param(1, marks=pytest.mark.soak), 5, 1000])
async def test_sidechains_of_older_agents_interleave_in_the_main_file(
    session: Session, batch: int
) -> None:
    entries = [u()]
    for step in range(2):
        for number in range(20):
            entries.append(a(f"s{number}", output=step, isSidechain=True))
        entries += [a("main", output=step), u("task", isSidechain=True)]
    await session.append("", entries, batch)
    await session.append(COMPACTION, again(entries), batch)
    found = await session.counted()
    assert found == independent_count(session.entries)


@pytest.mark.parametrize(
    ("responses", "batch"),
    [
        *product([16, 17, 60], [7, 1000]),
        (17, 1),
        *(pytest.param(responses, 1, marks=pytest.mark.soak) for responses in (16, 60)),
    ],
)
async def test_a_history_written_again_in_the_same_file(
    session: Session, responses: int, batch: int
) -> None:
    history = [e for number in range(responses) for e in (u(), a(f"m{number}"), a(f"m{number}"))]
    await session.append("", history, batch)
    await session.append("", again(history), batch)
    await session.append("", again(history[-10:]), batch)
    await session.assert_counted(responses)


@pytest.mark.parametrize(
    ("response", "batch"),
    [
        *(("ocgo", 5), ("", 7), (None, 1000)),
        *(
            pytest.param(response, batch, marks=pytest.mark.soak)
            for response, batch in product(["ocgo", "", None], [1, 7, 1000])
        ),
    ],
)
async def test_a_relay_gives_all_responses_one_id(
    session: Session, response: str | None, batch: int
) -> None:
    history = [entry for _ in range(100) for entry in (u(), a(response))]
    await session.append("", history, batch)
    await session.assert_counted(100)
    await session.append("", again(history[50:]), batch)
    await session.append(COMPACTION, again(history), batch)
    await session.assert_counted(100)


async def test_a_relay_tells_responses_by_their_tokens_and_requests(session: Session) -> None:
    history = [u(), *(a("ocgo", tokens=100 + number // 2) for number in range(40))]
    await session.append("", history, 3)
    await session.assert_counted(20, sum(range(100, 120)))
    more = [a("ocgo", tokens=1, requestId=f"req_{number // 2}") for number in range(40)]
    await session.append("", more, 3)
    await session.append(subagent(1), again(more), 5)
    await session.assert_counted(40, sum(range(100, 120)) + 20)


async def test_many_subagents_of_a_relay(session: Session) -> None:
    for step in range(2):
        for number in range(30):
            await session.append(subagent(number), [a("ocgo", output=step)])
    await session.assert_counted(30)


async def test_responses_without_id_are_told_by_their_requests(session: Session) -> None:
    entries = [a("", requestId=f"req_{number // 3}") for number in range(90)]
    await session.append("", entries, 7)
    await session.append(COMPACTION, again(entries), 4)
    await session.assert_counted(30)


async def test_without_id_request_and_time_each_is_its_own(session: Session) -> None:
    entries = [{**a(None), "timestamp": None} for _ in range(30)]
    await session.append("", entries, 7)
    await session.assert_counted(30)


async def test_without_time_the_content_tells_copies(session: Session) -> None:
    entries = [a(f"m{n // 2}", {"type": "text", "text": f"{n}"}) for n in range(40)]
    for entry in entries:
        del entry["timestamp"]
    await session.append("", entries, 7)
    await session.append(COMPACTION, again(entries), 7)
    await session.assert_counted(20)


@pytest.mark.parametrize("batch", [1, 2, 1000])
@pytest.mark.parametrize("apart", [0, 100])
async def test_one_response_logged_three_times_calls_once(
    session: Session, batch: int, apart: int
) -> None:
    logged = [a("m0", call("t1")) for _ in range(3)]
    others = [a(f"other{number}") for number in range(apart)]
    failed = result("t1", is_error=True)
    await session.append("", [u(), logged[0], *others, *logged[1:], failed], batch)
    await session.append("", again([failed]), batch)
    await session.assert_counted(1 + apart)
    assert (await session.counted()).tools == {"Bash": (1, 1)}
    await session.append(COMPACTION, again([*logged, failed]), batch)
    assert (await session.counted()).tools == {"Bash": (1, 1)}


async def test_a_result_that_comes_after_hundreds_of_other_calls(session: Session) -> None:
    await session.append("", [u(), a("m0", call("slow", "Agent"))])
    others = [a(f"m{number}", call(f"t{number}")) for number in range(1, 200)]
    await session.append("", others, 20)
    await session.append("", [result("slow", is_error=True), result("orphan", is_error=True)])
    await session.append("", [result("slow", is_error=True)])
    assert (await session.counted()).tools == {"Agent": (1, 1), "Bash": (199, 0)}
    await session.assert_counted(200)


async def test_a_copy_has_the_only_result(session: Session) -> None:
    asked = [u(), a("m0", call("t1"))]
    await session.append(COMPACTION, again(asked))
    await session.append("", [a(f"m{number}") for number in range(1, 80)], 9)
    await session.append("", [*asked, result("t1", is_error=True)], 1)
    assert (await session.counted()).tools == {"Bash": (1, 1)}
    await session.assert_counted(80)


async def test_a_part_of_a_copy_comes_before_its_beginning(session: Session) -> None:
    whole = [a("m0", output=number, tokens=0 if number == 1 else 100) for number in range(1, 5)]
    await session.append(COMPACTION, again(whole[2:3]))
    await session.append("", [a(f"x{number}") for number in range(60)], 7)
    await session.append("", [u(), *whole], 1)
    await session.assert_counted(61)
    assert (await session.counted()).output == 604


async def test_a_copy_with_other_tokens_changes_only_what_grows(session: Session) -> None:
    first = a("m0", output=1)
    await session.append("", [u(), first])
    (later,) = again([first])
    later["message"] = {**later["message"], "usage": {"input_tokens": 100, "output_tokens": 50}}
    zero = {**first, "uuid": "z", "message": {**first["message"], "usage": {"input_tokens": 0}}}
    await session.append(COMPACTION, [later])
    await session.append("", [u(), zero])
    await session.assert_counted(1)
    assert (await session.counted()).output == 50


def _blocks(draw: Any, number: int) -> list[Entry]:
    kind = draw(st.sampled_from(["text", "call", "calls"]))
    if kind == "text":
        return [{"type": "text", "text": str(number)}]
    return [call(f"t{number}.{n}", f"Tool{n}") for n in range(1 if kind == "call" else 2)]


@dataclass
class Story:
    """Batches in the order of their appends."""

    batches: list[tuple[str, list[Entry]]] = field(default_factory=list)


@st.composite
def stories(draw: Any) -> Story:
    """Sessions of several transcripts that grow at once, are copied, and use a relay or not."""
    is_relay = draw(st.booleans())
    paths = ["", *(subagent(n) for n in range(draw(st.integers(0, 3))))]
    written: Transcripts = {path: [] for path in [*paths, COMPACTION]}
    story = Story([("", [u("hello")])])

    def put(path: str, entries: list[Entry]) -> None:
        size = draw(st.integers(1, 6))
        for at in range(0, len(entries), size):
            story.batches.append((path, entries[at : at + size]))
        written[path] += entries

    for number in range(draw(st.integers(1, 10))):
        path = draw(st.sampled_from(paths))
        step = draw(st.sampled_from(["respond", "respond", "copy", "late"]))
        if step == "respond":
            response: Any = draw(st.sampled_from(["ocgo", ""])) if is_relay else f"m{number}"
            fields: Entry = {}
            if draw(st.booleans()):
                fields["requestId"] = f"req_{number}"
            if path == "" and draw(st.booleans()):
                fields["isSidechain"] = True
            parts = [
                a(response, *_blocks(draw, number), tokens=100 + number, output=part, **fields)
                for part in range(draw(st.integers(1, 3)))
            ]
            asked = [b["id"] for p in parts for b in p["message"]["content"] if "id" in b]
            results = [
                result(each, is_error=draw(st.booleans()))
                for each in dict.fromkeys(asked)
                if draw(st.booleans())
            ]
            put(path, [u(**({"isSidechain": True} if "isSidechain" in fields else {})), *parts])
            put(path, results)
        else:
            source = written[path]
            if source:
                start = draw(st.integers(0, len(source) - 1))
                end = draw(st.integers(start + 1, len(source)))
                put(draw(st.sampled_from([path, COMPACTION])), again(source[start:end]))
    order = draw(st.booleans())
    if order:
        # The transcripts side by side, each in its own order.
        queues = {path: [b for b in story.batches if b[0] == path] for path in written}
        story.batches.clear()
        while any(queues.values()):
            path = draw(st.sampled_from([path for path, queue in queues.items() if queue]))
            story.batches.append(queues[path].pop(0))
    return story


async def test_a_copy_in_a_subagent_comes_before_its_original(database: Database) -> None:
    """The response goes on in the main transcript with an entry that was copied already."""
    for number, between in enumerate(([], [u()])):
        session = Session(f"s{number}")
        on = [a("m1", output=2)]
        await session.append("", [u(), a("m1", output=1)])
        await session.append(COMPACTION, again(on))
        await session.append("", [*between, *on])
        counted = await session.counted()
        assert counted == independent_count(session.entries)
        assert counted.responses == (2 if between else 1)


@pytest.mark.parametrize("stories_told", [20, pytest.param(300, marks=pytest.mark.soak)])
def test_any_story_is_counted_as_the_independent_count_does(
    mongo_url: str, database_name: str, stories_told: int
) -> None:
    numbers = count()

    with own_loop(mongo_url, database_name) as run:

        @settings(max_examples=stories_told, derandomize=True, database=None)
        @given(stories(), st.randoms(use_true_random=False))
        def check(story: Story, chance: random.Random) -> None:
            async def work() -> None:
                session = Session(f"s{next(numbers)}")
                stores = [BeanieSessionStore() for _ in range(2)]
                for path, batch in story.batches:
                    # Another store remembers nothing, or what no longer holds.
                    await session.append(path, batch, store=chance.choice(stores))
                expected = independent_count(session.entries)
                assert await session.counted() == expected
                before = await _marks(session)
                query = {"session_id": session.key["session_id"]}
                await collection_of(TranscriptEntry).update_many(
                    query, {"$unset": {"counted": "", "response": ""}}
                )
                await collection_of(SessionSummary).update_one(query, {"$unset": {"totals": ""}})
                assert not (await BeanieSessionStore().repair(session.key)).is_sound
                assert await session.counted() == expected
                assert await _marks(session) == before

            run(work)

        check()


async def _marks(session: Session) -> list[tuple[Any, Any]]:
    query = {"session_id": session.key["session_id"]}
    found = await TranscriptEntry.find(query).sort("seq").to_list()
    return [(entry.counted, entry.response) for entry in found]


@pytest.mark.parametrize(
    "change",
    [
        {"$inc": {"totals.usage.0.input": 1}},
        {"$inc": {"totals.usage.0.responses": -1}},
        {"$inc": {"totals.tools.0.errors": 1}},
        {"$set": {"totals.cost_usd": 1.0}},
    ],
)
async def test_verify_finds_a_wrong_total(
    session: Session, database: Database, change: dict[str, Any]
) -> None:
    await session.append("", [u(), a("m0", call("t1")), result("t1")])
    await session.append(COMPACTION, again([a("m0")]))
    await session.counted()
    await database["claude_transcript_summaries"].update_one({}, change)
    assert not (await BeanieSessionStore().verify(session.key)).is_sound
    await BeanieSessionStore().repair(session.key)
    await session.counted()


async def test_writers_at_once_count_once(session: Session) -> None:
    history = [e for number in range(40) for e in (u(), a(f"m{number}"), a(f"m{number}"))]
    await asyncio.gather(
        session.append("", history, 5),
        *(session.append(subagent(n), again(history), 7, BeanieSessionStore()) for n in range(3)),
    )
    found = await session.counted()
    assert (found.responses, found.input) == (40, 4000)


async def test_what_is_left_of_a_deleted_copy_is_counted(session: Session) -> None:
    history = [u(), *(a(f"m{number}") for number in range(20))]
    await session.append(COMPACTION, again(history))
    await session.append("", history)
    store = BeanieSessionStore()
    await store.delete({**session.key, "subpath": COMPACTION})
    assert (await session.counted()).responses == 20
    await session.append("", again(history), 3, store)
    await session.append(subagent(1), again(history), 50)
    assert (await session.counted()).responses == 20


async def test_what_an_older_release_stored_is_marked_with_the_next_append(
    session: Session, database: Database
) -> None:
    history = [u(), *(a(f"m{number // 2}") for number in range(60))]
    await session.append("", history)
    await database["claude_transcript_entries"].update_many(
        {}, {"$unset": {"counted": "", "response": ""}}
    )
    old = {"$unset": {"totals.in_flight": ""}, "$set": {"totals.usage.0.input": 9}}
    await database["claude_transcript_summaries"].update_one({}, old)
    await session.append(COMPACTION, again(history), 7)
    await session.assert_counted(30)


async def test_it_counts_without_the_index_too(database: Database) -> None:
    entries = database["claude_transcript_entries"]
    await entries.drop_index("transcript_counted")
    session = Session()
    history = [u(), *(a(f"m{number // 2}") for number in range(60))]
    await session.append("", history, 7)
    assert await entries.count_documents({"counted": {"$exists": True}}) == 0
    assert (await session.counted()).responses == 30


async def test_costs_on_the_entries_of_old_agents(session: Session) -> None:
    history = [
        u(),
        a("m0", costUSD=0.25),
        a("m0", costUSD=0.25),
        a("m1", costUSD=0.5),
        a(None, costUSD=1.0),
        a("odd", costUSD="1"),
    ]
    await session.append("", history, 2)
    await session.append(COMPACTION, again(history))
    await session.assert_counted(4)
    summary = await SessionSummary.find_one()
    assert summary is not None
    assert summary.totals is not None
    assert summary.totals.cost_usd == 1.75
    assert [row.cost_usd for row in summary.totals.usage] == [1.75]
    transcript = await BeanieSessionStore().transcript(session.key)
    assert transcript is not None
    assert transcript.cost_usd == 1.75
    (usage,) = await BeanieSessionStore().usage()
    assert usage.cost_usd == 1.75


@pytest.mark.parametrize(
    ("begun", "cost"), [("2026-02-27T00:00:00+00:00", 3.0), ("2026-03-05T00:00:00+00:00", 3.25)]
)
async def test_an_account_of_cost_holds_what_came_since_it_began(
    session: Session, begun: str, cost: float
) -> None:
    start = datetime.fromisoformat(begun).timestamp() * 1000
    account = {
        "type": "cost-state",
        "totalCostUSD": 3.0,
        "startTime": start,
        "modelUsage": {"opus": {"costUSD": 3.0}},
    }
    await session.append("", [u(), a("m0", costUSD=0.25)])
    await session.append("", [account])
    await session.append("", [u()], store=BeanieSessionStore())
    await session.assert_counted(1)
    (usage,) = await BeanieSessionStore().usage()
    assert usage.cost_usd == cost
    transcript = await BeanieSessionStore().transcript(session.key)
    assert transcript is not None
    assert transcript.cost_usd == cost


async def test_a_cost_that_no_agent_wrote_is_unknown(session: Session) -> None:
    await session.append("", [u(), a("m0")])
    (usage,) = await BeanieSessionStore().usage(by="model")
    assert (usage.cost_usd, usage.without_cost) == (None, 1)
    assert await costs() == (None, [None], None)
    nothing = {"type": "cost-state", "totalCostUSD": 0, "startTime": 1, "modelUsage": {}}
    await session.append("", [nothing])
    (usage,) = await BeanieSessionStore().usage(by="model")
    assert (usage.cost_usd, usage.without_cost) == (0, 0)
    assert await costs() == (0, [0], 0)


async def costs() -> tuple[float | None, list[float | None], float | None]:
    """The cost of the session, of its rows, and of its one model."""
    summary = await SessionSummary.find_one()
    assert summary is not None
    assert summary.totals is not None
    totals = summary.totals
    return totals.cost_usd, [row.cost_usd for row in totals.usage], totals.by_model["opus"].cost_usd


async def test_copies_are_told_on_a_server_without_transactions(
    standalone_database: Database,
) -> None:
    session = Session()
    history = [u(), *(a(f"m{number // 2}", call("t")) for number in range(60))]
    await session.append("", history, 7)
    await session.append(COMPACTION, again(history), 7)
    await session.assert_counted(30)
