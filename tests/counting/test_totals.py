"""Totals always count what is stored, whatever was appended, repeated, deleted and by whom."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Sequence
from datetime import datetime, timedelta, timezone
from itertools import count, groupby
from operator import itemgetter
from typing import Any, ClassVar, TypeVar

import bson
import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from support.entries import KEY, SUBAGENT, message, turn

from beanie_session_store import (
    BeanieSessionStore,
    SessionSummary,
    SessionTotals,
    UnknownSessionError,
    Verification,
)
from beanie_session_store.app.database.driver import Database
from beanie_session_store.app.transcripts.transcript import Transcript
from beanie_session_store.models.counting.tally import Tally
from beanie_session_store.models.plain import JSON_CODEC
from beanie_session_store.models.views.messages import UserEntry

T = TypeVar("T")
Entry = dict[str, Any]

DAYS = ("2026-01-01", "2026-01-02")
MODELS = ("claude-3.5", "$odd\0\ud83d")
_numbers = count()


def response(
    number: int, blocks: list[Entry], *, day: str = DAYS[0], output: int = 3, **fields: Any
) -> Entry:
    """One entry of a response of the API; several with one number are one response."""
    usage = {"input_tokens": 100 + number, "output_tokens": output, "cache_read_input_tokens": 7}
    return {
        "type": "assistant",
        "uuid": f"a{next(_numbers)}",
        "timestamp": f"{day}T10:00:00.000Z",
        "sessionId": "session",
        "message": {
            "id": f"msg_{number}",
            "model": MODELS[number % 2],
            "role": "assistant",
            "content": blocks,
            "usage": usage,
        },
        **fields,
    }


def call(number: str, name: str = "Bash") -> Entry:
    return {"type": "tool_use", "id": number, "name": name, "input": {}}


def result(number: str, *, is_error: bool = False) -> Entry:
    block = {"type": "tool_result", "tool_use_id": number, "content": "x", "is_error": is_error}
    return message([block])  # type: ignore[arg-type]


def cost(total: float, start: float | None = 1.0, model: str = MODELS[0]) -> Entry:
    return {
        "type": "cost-state",
        "totalCostUSD": total,
        "startTime": start,
        "modelUsage": {model: {"costUSD": total}},
    }


def new_entries(kind: str) -> list[Entry]:
    number = next(_numbers)
    day = DAYS[number % 2]
    if kind == "response":
        return [
            response(number, [{"type": "text", "text": "x"}], output=1),
            response(number, [call(f"t{number}")], day=day, output=9),
        ]
    if kind == "tools":
        return [
            response(number, [call(f"t{number}", "Read"), call(f"u{number}", "mcp.x")]),
            result(f"u{number}", is_error=number % 2 == 0),
            response(number, [{"type": "text", "text": "x"}], output=8),
            result(f"t{number}", is_error=True),
        ]
    if kind == "copied":
        blocks = [call(f"t{number}")]
        return [response(number, blocks, requestSessionId="another"), result(f"t{number}")]
    if kind == "cost":
        return [cost(number / 100, float(number % 3))]
    if kind == "title":
        titles = [
            {"type": "ai-title", "aiTitle": f"ai {number}"},
            {"type": "custom-title", "customTitle": f"\ud83d {number}" if number % 2 else ""},
            {"type": "tag", "tag": f"tag {number}" if number % 3 else ""},
            # Most of them name a response that is not in the main transcript, or not yet.
            {"type": "summary", "summary": f"summary {number}", "leafUuid": f"a{number - 4}"},
            {"type": "summary", "summary": f"summary {number}", "leafUuid": f"a{number + 9}"},
        ]
        return [titles[number % 5]]
    return [message(f"prompt {number}", cwd=f"/srv/{number}", gitBranch=f"b{number}")]


def naive(transcripts: dict[str, list[Entry]]) -> dict[str, Any]:
    """The totals by way of the typed transcript, which remembers everything."""
    transcript = Transcript(
        transcripts.get("", []), {path: found for path, found in transcripts.items() if path}
    )
    calls = [call for call in transcript.all_tool_calls if not call.entry.request_session_id]
    prompts = [e for e in transcript.messages if isinstance(e, UserEntry) and e.is_prompt]
    return {
        "entries": sum(map(len, transcripts.values())),
        "turns": len(prompts),
        "usage": {
            _shown(model): (
                tokens.responses,
                tokens.input,
                tokens.output,
                tokens.cache_creation,
                tokens.cache_read,
            )
            for model, tokens in transcript.total_usage.items()
        },
        "calls": dict(Counter(each.name for each in calls)),
        "errors": dict(Counter(each.name for each in calls if each.is_error)),
        "cost": transcript.cost_usd,
        "title": _shown(transcript.title),
        "tag": transcript.tag,
    }


def _shown(text: Any) -> Any:
    return text.encode("utf-8", "replace").decode() if isinstance(text, str) else text


def counted(summary: SessionSummary) -> dict[str, Any]:
    """The stored totals in the same form."""
    totals = summary.totals
    assert totals is not None
    assert totals.next_seq == summary.next_seq
    assert sum(row.cost_usd or 0 for row in totals.usage) == pytest.approx(totals.cost_usd or 0)
    return {
        "entries": totals.entries,
        "turns": totals.turns,
        "usage": {
            model: (row.responses, row.input, row.output, row.cache_creation, row.cache_read)
            for model, row in totals.by_model.items()
            if row.responses
        },
        "calls": totals.tool_calls,
        "errors": {row.name: row.errors for row in totals.tools if row.errors},
        "cost": None if totals.cost_usd is None else pytest.approx(totals.cost_usd),
        "title": summary.title,
        "tag": summary.tag,
    }


class TotalsModel(RuleBasedStateMachine):
    """Two stores of one tenant, as on two hosts, and one session with a subagent."""

    loop: ClassVar[asyncio.AbstractEventLoop]

    def __init__(self) -> None:
        super().__init__()
        self.tenant = f"tenant-{next(_numbers)}"
        self.stores = [BeanieSessionStore(tenant=self.tenant) for _ in range(2)]
        self.entries: dict[str, list[Entry]] = {"": [], "subagents/agent-a1": []}
        self.batches: dict[str, list[list[Entry]]] = {"": [], "subagents/agent-a1": []}

    def run(self, call: Awaitable[T]) -> T:
        return self.loop.run_until_complete(call)

    def key(self, subpath: str) -> Any:
        return {**KEY, "subpath": subpath} if subpath else KEY

    def append(
        self, host: int, subpath: str, batch: list[Entry], new: Sequence[Entry] = ()
    ) -> None:
        self.run(self.stores[host].append(self.key(subpath), batch))
        self.entries[subpath] += new
        self.check()

    def check(self) -> None:
        summary = self.run(SessionSummary.find_one({"tenant": self.tenant}))
        if summary is None:
            assert not any(self.entries.values())
            return
        assert counted(summary) == naive(self.entries)
        found = self.run(self.stores[0].verify(KEY))
        assert found == Verification(sum(map(len, self.entries.values())), ())

    @rule(
        host=st.integers(0, 1),
        subpath=st.sampled_from(["", "", "subagents/agent-a1"]),
        kinds=st.lists(
            st.sampled_from(["response", "tools", "copied", "cost", "title", "prompt"]), max_size=4
        ),
    )
    def append_new(self, host: int, subpath: str, kinds: list[str]) -> None:
        # The agent keeps its account and titles in the main transcript.
        kinds = [kind for kind in kinds if not subpath or kind not in ("cost", "title")]
        entries = [*(e for kind in kinds for e in new_entries(kind)), *new_entries("prompt")]
        middle = len(entries) // 2
        for batch in filter(None, (entries[:middle], entries[middle:])):
            self.append(host, subpath, batch, batch)
            self.batches[subpath].append(batch)

    @rule(host=st.integers(0, 1), subpath=st.sampled_from(["", "subagents/agent-a1"]))
    def replay(self, host: int, subpath: str) -> None:
        # By its uuid alone it is known that it comes again.
        for batch in self.batches[subpath][-2:]:
            if any("uuid" in entry for entry in batch):
                self.append(host, subpath, batch)

    @rule(host=st.integers(0, 1), subpath=st.sampled_from(["", "subagents/agent-a1"]))
    def delete(self, host: int, subpath: str) -> None:
        self.run(self.stores[host].delete(self.key(subpath)))
        for path in [subpath] if subpath else list(self.entries):
            self.entries[path] = []
            self.batches[path] = []
        self.check()

    @rule(host=st.integers(0, 1))
    def repair(self, host: int) -> None:
        if any(self.entries.values()):
            assert self.run(self.stores[host].repair(KEY)).is_sound


@pytest.mark.parametrize("tries", [10, pytest.param(60, marks=pytest.mark.soak)])
def test_totals_equal_those_counted_from_scratch(
    mongo_url: str, database_name: str, tries: int
) -> None:
    loop = TotalsModel.loop = asyncio.new_event_loop()
    connected = BeanieSessionStore.connect(mongo_url, database=database_name)
    loop.run_until_complete(connected.__aenter__())
    try:
        bounded = settings(
            max_examples=tries,
            stateful_step_count=15,
            deadline=None,
            derandomize=True,
            database=None,
            print_blob=False,
        )
        run_state_machine_as_test(TotalsModel, settings=bounded)
    finally:
        loop.run_until_complete(connected.__aexit__(None, None, None))
        loop.close()


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)
_ODD = st.sampled_from(
    [None, True, -1, 2**70, 1e300, float("nan"), "", "\ud83d", "\0", [], {}, [{}], "msg_1", "Bash"]
)
_KINDS = st.sampled_from(
    ["user", "assistant", "cost-state", "custom-title", "ai-title", "summary", "tag", [], None]
)


def _objects(**fields: Any) -> Any:
    return st.fixed_dictionaries({}, optional={k: v | _ODD | _JSON for k, v in fields.items()})


_BLOCK = _objects(
    type=st.sampled_from(["tool_use", "tool_result", "mcp_tool_result", "text"]),
    id=st.just("t1"),
    tool_use_id=st.just("t1"),
    name=st.text(max_size=300),
    is_error=st.booleans(),
    text=st.text(),
)
_MESSAGE = _objects(
    id=st.sampled_from(["msg_1", "msg_2"]),
    model=st.sampled_from(["m", "n" * 300, "<synthetic>"]),
    content=st.text() | st.lists(_BLOCK | _ODD, max_size=3),
    usage=_objects(input_tokens=st.integers(), output_tokens=st.integers()),
)
_ENTRY = _objects(
    type=_KINDS,
    timestamp=st.sampled_from(
        ["2026-01-01T00:00:00.123456Z", "0001-01-01T00:00:00+14:00", "2026-01-01", "x"]
    )
    | st.datetimes().map(str),
    message=_MESSAGE,
    isMeta=st.booleans(),
    origin=_objects(kind=st.just("human")),
    forkedFrom=_JSON,
    requestSessionId=st.text(max_size=2),
    sessionId=st.text(max_size=2),
    cwd=st.text(),
    gitBranch=st.text(),
    customTitle=st.text(),
    aiTitle=st.text(),
    summary=st.text(),
    tag=st.text(),
    totalCostUSD=st.floats(),
    startTime=st.integers() | st.floats(),
    modelUsage=st.dictionaries(st.text(max_size=3), _objects(costUSD=st.floats())),
)


def _through_bson(tally: Tally) -> Tally:
    stored = {"totals": tally.document(9), **{k: v for k, v in tally.texts.items() if v}}
    read = bson.decode(bson.encode(stored), JSON_CODEC)
    SessionTotals.model_validate(read["totals"])
    return Tally.of(read["totals"], read)


@pytest.mark.parametrize("tries", [40, pytest.param(1000, marks=pytest.mark.soak)])
def test_any_entry_is_counted_and_what_is_stored_goes_on_as_if_never_stored(tries: int) -> None:
    @settings(max_examples=tries, deadline=None)
    @given(entries=st.lists(st.tuples(_ENTRY, st.booleans()), max_size=8), cut=st.integers(0, 8))
    def check(entries: list[tuple[Entry, bool]], cut: int) -> None:
        _assert_goes_on(entries, cut)

    check()


def _assert_goes_on(entries: list[tuple[Entry, bool]], cut: int) -> None:
    whole, resumed = Tally(), Tally()
    for seq, (entry, is_main) in enumerate(entries, 1):
        whole.add([entry], "" if is_main else "subagents/agent-a1", seq)
    seq = 1
    for part in (entries[:cut], entries[cut:]):
        resumed = _through_bson(resumed)
        for is_main, batch in groupby(part, itemgetter(1)):
            added = [entry for entry, _ in batch]
            resumed.add(added, "" if is_main else "subagents/agent-a1", seq)
            seq += len(added)
            resumed.settle()
    assert whole.entries == len(entries)
    assert resumed.texts == whole.texts
    assert _through_bson(whole).document(1) == whole.document(1)
    # Else it would have been looked up.
    if not resumed.is_unsure:
        whole.settle()
        assert resumed.document(1) == whole.document(1)


def test_totals_take_bounded_room() -> None:
    tally = Tally()
    for number in range(5000):
        name = f"{number:0200}"
        entry = response(number, [call(f"t{number}", name)])
        entry["message"]["model"] = name
        title = {"type": "custom-title", "customTitle": name * 100}
        tally.add([entry, cost(1.0, float(number), name), title], "", 3 * number + 1)
        tally.settle()
    assert len(bson.encode(tally.document(1))) < 512 * 1024
    assert sum(row["calls"] for row in tally.document(1)["tools"]) == 5000
    assert sum(row["responses"] for row in tally.document(1)["usage"]) == 5000
    assert tally.document(1)["cost_usd"] == 5000
    assert len(tally.texts["title"] or "") == 200


async def test_a_day_and_a_model_have_a_row_each(store: BeanieSessionStore) -> None:
    await store.append(KEY, [response(1, [], day=DAYS[0]), response(2, [], day=DAYS[1])])
    await store.append(SUBAGENT, [response(3, [], day=DAYS[1])])
    await store.append(KEY, [response(1, [], day=DAYS[1], output=9), cost(0.5)])
    summary = await SessionSummary.find_one()
    assert summary is not None
    assert summary.totals is not None
    rows = {
        (row.day, row.model): (row.responses, row.output, row.cost_usd)
        for row in summary.totals.usage
        if row.responses or row.cost_usd
    }
    shown = _shown(MODELS[1])
    assert rows == {
        (DAYS[1], MODELS[0]): (1, 3, 0.5),
        (DAYS[1], shown): (2, 12, 0.0),
    }
    assert summary.totals.first_at is not None
    assert summary.totals.last_at is not None
    assert summary.totals.first_at.date().isoformat() == DAYS[0]
    assert summary.totals.last_at.date().isoformat() == DAYS[1]


async def test_what_an_older_release_appended_is_counted_with_the_next_append(
    store: BeanieSessionStore, database: Database
) -> None:
    for number in range(3):
        await store.append(KEY, turn(number))
    # It knows nothing of totals, and leaves them as they are.
    summaries = database["claude_transcript_summaries"]
    totals = (await summaries.find_one() or {})["totals"]
    await store.append(KEY, turn(3))
    await summaries.update_one({}, {"$set": {"totals": totals}})
    found = await store.verify(KEY)
    assert [difference.field for difference in found.differences] == ["totals"]
    other = BeanieSessionStore()
    await other.append(KEY, turn(4))
    assert await other.verify(KEY) == Verification(30, ())
    await summaries.update_one({}, {"$unset": {"totals": "", "first_prompt": ""}})
    await BeanieSessionStore().append(SUBAGENT, [message()])
    assert await other.verify(KEY) == Verification(31, ())


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"$set": {"data.custom_title": "other"}}, "data"),
        ({"$unset": {"data": ""}}, "data"),
        ({"$set": {"totals.entries": 5}}, "totals.entries"),
        ({"$set": {"totals.usage": []}}, "totals.usage"),
        ({"$set": {"first_prompt": "other"}}, "first_prompt"),
        ({"$unset": {"first_prompt": ""}}, "first_prompt"),
        ({"$set": {"tag": "other"}}, "tag"),
        ({"$unset": {"mtime": ""}}, "mtime"),
        ({"$set": {"next_seq": 3, "totals.next_seq": 3}}, "next_seq"),
    ],
)
async def test_repair_mends_what_verify_finds(
    store: BeanieSessionStore, database: Database, change: Any, field: str
) -> None:
    for number in range(3):
        await store.append(KEY, [*turn(number), response(number, [call(f"t{number}")])])
    assert (await store.verify(KEY)).is_sound
    await database["claude_transcript_summaries"].update_one({}, change)
    found = await store.verify(KEY)
    assert field in [difference.field for difference in found.differences]
    assert await store.repair(KEY) == found
    assert await store.verify(KEY) == Verification(21, ())
    # What the store remembers of the summary no longer holds.
    await store.append(KEY, turn(4))
    assert await store.verify(KEY) == Verification(27, ())
    assert len(await store.load(KEY) or []) == 27


async def test_repair_while_others_append_loses_nothing(store: BeanieSessionStore) -> None:
    await store.append(KEY, turn(0))
    others = [BeanieSessionStore() for _ in range(2)]

    async def write(other: BeanieSessionStore, start: int) -> None:
        for number in range(start, start + 15):
            await other.append(KEY, turn(number))

    async def mend() -> None:
        for _ in range(10):
            await store.repair(KEY)

    await asyncio.gather(write(others[0], 100), write(others[1], 200), mend())
    assert await store.verify(KEY) == Verification(6 * 31, ())


async def test_a_subagent_of_an_expired_session_can_be_deleted(
    store: BeanieSessionStore, database: Database
) -> None:
    await store.append(KEY, [message()])
    await store.append(SUBAGENT, [message()])
    gone = {"$set": {"expires_at": datetime.now(timezone.utc) - timedelta(days=1)}}
    for name in ("claude_transcript_entries", "claude_transcript_summaries"):
        # Without the index nothing sweeps them away.
        await database[name].drop_index("transcript_expiry")
        await database[name].update_many({}, gone)
    await store.delete(SUBAGENT)
    assert await store.load(SUBAGENT) is None
    # It was gone with its session, of which nothing is left once that is deleted too.
    await store.delete(KEY)
    assert await database["claude_transcript_entries"].count_documents({}) == 0


async def test_an_unknown_session_is_refused(store: BeanieSessionStore) -> None:
    with pytest.raises(UnknownSessionError, match="There is no session nobody"):
        await store.verify({**KEY, "session_id": "nobody"})
    with pytest.raises(UnknownSessionError, match="There is no session nobody"):
        await store.repair({**KEY, "session_id": "nobody"})


async def test_totals_hold_on_a_server_without_transactions(standalone_database: Database) -> None:
    store = BeanieSessionStore()
    await store.append(KEY, [message(), response(1, [call("t1")])])
    await store.append(SUBAGENT, [response(2, [call("t2")]), result("t2", is_error=True)])
    await store.append(KEY, [result("t1")])
    assert await store.verify(KEY) == Verification(5, ())
    await store.delete(SUBAGENT)
    assert await store.verify(KEY) == Verification(3, ())
    await store.append(KEY, [response(3, [])])
    assert await store.verify(KEY) == Verification(4, ())
