"""What a summary keeps stays small, and its sums exact, whatever the entries are."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any

import bson
import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from support.entries import KEY, message

from beanie_session_store import BeanieSessionStore, SessionSummary
from beanie_session_store.app.database.driver import Database
from beanie_session_store.models.counting.tally import MAX_TOTALS_BYTES, Tally

Entry = dict[str, Any]

_WIDE = "\U0001f600"
_numbers = count()


def long_name(number: int) -> str:
    return f"{number}{_WIDE * 128}"


def at(number: int) -> str:
    return f"{2000 + number // 336}-{number // 28 % 12 + 1:02}-{number % 28 + 1:02}T00:00:00.000Z"


def response(model: str, tools: Sequence[str] = (), *, day: int = 0, **fields: Any) -> Entry:
    number = next(_numbers)
    return {
        "type": "assistant",
        "uuid": f"r{number}",
        "timestamp": at(day),
        "message": {
            "id": f"msg_{number}",
            "model": model,
            "content": [
                {"type": "tool_use", "id": f"{number}-{index}-{_WIDE * 128}", "name": tool}
                for index, tool in enumerate(tools)
            ],
            "usage": {"input_tokens": 7, "output_tokens": 5},
        },
        **fields,
    }


def cost_state(start: int, costs: dict[str, float]) -> Entry:
    return {
        "type": "cost-state",
        "startTime": start,
        "totalCostUSD": sum(costs.values()),
        "modelUsage": {model: {"costUSD": cost} for model, cost in costs.items()},
    }


def many_accounts() -> list[Entry]:
    states = [
        cost_state(start, {long_name(model): 1.0 for model in range(500)}) for start in range(16)
    ]
    return [*states, cost_state(3, {long_name(model): 1.5 for model in range(500)})]


def many_rows() -> list[Entry]:
    return [response(long_name(number), day=number, costUSD=0.25) for number in range(1000)]


def many_tools() -> list[Entry]:
    names = [long_name(number) for number in range(500)]
    return [response("m", names[at : at + 50]) for at in range(0, 500, 50)]


def many_chains() -> list[Entry]:
    return [
        response(long_name(0), [long_name(5)] * 60, isSidechain=True, agentId=long_name(number))
        for number in range(100)
    ]


def one_long_chain() -> list[Entry]:
    return [
        response("m", isSidechain=True, agentId="x" * 10_000_000, requestId=long_name(1)),
        response("m", ["Bash"], requestId=_WIDE * 1_000_000),
    ]


def long_texts() -> list[Entry]:
    # Several of them are more than a document can hold.
    text = _WIDE * 1_000_000
    return [
        message(text, gitBranch=text, cwd=text, forkedFrom={"sessionId": text}),
        {"type": "custom-title", "customTitle": text},
        {"type": "ai-title", "aiTitle": text},
        {"type": "tag", "tag": text},
        {"type": "summary", "summary": text},
        {"type": "last-prompt", "lastPrompt": text},
    ]


def waiting_summaries() -> list[Entry]:
    return [
        {"type": "summary", "summary": _WIDE * 300, "leafUuid": f"{number:0128}"}
        for number in range(100)
    ]


KINDS = {
    kind.__name__: kind
    for kind in (
        many_accounts,
        many_rows,
        many_tools,
        many_chains,
        one_long_chain,
        long_texts,
        waiting_summaries,
    )
}


def counted(entries: Sequence[Entry]) -> Tally:
    """As a store counts them, an entry a batch."""
    tally = Tally()
    for seq, entry in enumerate(entries, 1):
        tally.add((entry,), "", seq)
        tally.settle_leaves(())
        tally = tally.resumed()
    return tally


def size_of(tally: Tally) -> int:
    return len(bson.encode(tally.document(2**40)))


def cost_of(tally: Tally) -> float:
    return tally.document(1)["cost_usd"]


def costs_of(tally: Tally) -> dict[tuple[str, str], float]:
    return {(row["day"], row["model"]): row["cost_usd"] for row in tally.document(1)["usage"]}


def all_kinds() -> Iterator[Entry]:
    for make in KINDS.values():
        if make is not long_texts and make is not one_long_chain:
            yield from make()


def test_all_limits_reached_at_once_are_within_the_stated_size() -> None:
    tally = counted(list(all_kinds()))
    document = tally.document(1)
    assert 2**17 < size_of(tally) <= MAX_TOTALS_BYTES
    assert document["in_flight"].keys() >= {"accounts", "logged", "summaries", "under_way"}
    assert sum(row["responses"] for row in document["usage"]) == 1110
    assert sum(row["output"] for row in document["usage"]) == 5 * 1110
    assert sum(row["calls"] for row in document["tools"]) == 500 + 6000
    assert {row["model"] for row in document["usage"]} > {"(other)"}


def test_costs_are_exact_though_the_models_of_accounts_are_not_told_apart() -> None:
    entries = many_accounts()
    tally = counted(entries)
    assert cost_of(tally) == sum(costs_of(tally).values()) == 15 * 500 + 750
    grown = [cost_state(start, {long_name(0): 100.0, "new": 600.0}) for start in range(16)]
    tally = counted([*entries, *grown])
    assert cost_of(tally) == 16 * 700
    assert size_of(tally) <= MAX_TOTALS_BYTES


def test_models_with_one_beginning_in_common_cost_what_all_of_them_cost() -> None:
    tally = counted([cost_state(1, {"x" * 200: 1.0, "x" * 201: 2.0})])
    assert costs_of(tally) == {("", "x" * 128): 3.0}


def test_a_model_that_a_state_leaves_out_is_not_paid_for_twice() -> None:
    states = [{"a": 1.0, "b": 2.0}, {"a": 1.5}, {"a": 1.5, "b": 2.5}]
    tally = counted([cost_state(1, costs) for costs in states])
    assert costs_of(tally) == {("", "a"): 1.5, ("", "b"): 2.5}


def test_costs_are_added_in_one_order_for_good() -> None:
    # What was counted once is compared to the last digit with what is counted anew.
    tally = counted([cost_state(1, {"a": cost}) for cost in (0.26, 4.44, 6.6)])
    assert costs_of(tally) == {("", "a"): 6.599999999999999}


_MODELS = st.integers(0, 60).map(lambda number: f"model-{number}")


@given(st.data())
@settings(max_examples=60)
def test_rows_add_up_to_what_accounts_said_last(data: st.DataObject) -> None:
    """Accounts that grow, in any order of models, in as many processes as are remembered."""
    chance = random.Random(data.draw(st.integers(0, 2**32)))
    models = [f"model-{number}" for number in range(data.draw(st.integers(1, 80)))]
    accounts: dict[int, dict[str, float]] = {}
    entries: list[Entry] = []
    for _ in range(40):
        account = accounts.setdefault(chance.randrange(16), {})
        for model in chance.sample(models, chance.randint(1, len(models))):
            account[model] = account.get(model, 0.0) + chance.randint(1, 9)
        shuffled = dict(chance.sample(list(account.items()), len(account)))
        start = next(start for start, each in accounts.items() if each is account)
        entries.append(cost_state(start, shuffled))
    expected = sum(sum(account.values()) for account in accounts.values())
    tally = counted(entries)
    assert cost_of(tally) == expected
    assert sum(costs_of(tally).values()) == expected
    assert size_of(tally) <= MAX_TOTALS_BYTES


_names = st.one_of(
    st.text(max_size=5),
    st.integers(0, 400).map(long_name),
    st.integers(0, 400).map(lambda number: f"{number}" + "\ud83d" * 200),
)
_costs = st.dictionaries(_names, st.floats(0, 1e14), max_size=40)
_entries = st.one_of(
    st.builds(response, _names, st.lists(_names, max_size=70), day=st.integers(0, 2000)),
    st.builds(
        response,
        _names,
        st.lists(_names, max_size=70),
        requestId=_names,
        agentId=_names,
        isSidechain=st.just(True),
        costUSD=st.floats(0, 1e14),
    ),
    st.builds(cost_state, st.integers(0, 40), _costs),
    st.builds(
        lambda text, leaf: {"type": "summary", "summary": text, "leafUuid": leaf}, _names, _names
    ),
    st.builds(
        lambda kind, text: {"type": kind, "customTitle": text, "aiTitle": text, "tag": text},
        st.sampled_from(["custom-title", "ai-title", "tag"]),
        _names,
    ),
)


@given(st.lists(_entries, max_size=40), st.integers(1, 5))
@settings(max_examples=100)
def test_no_sequence_of_entries_exceeds_the_size(entries: list[Entry], times: int) -> None:
    every = entries * times
    tally = counted(every)
    assert size_of(tally) <= MAX_TOTALS_BYTES
    complete = Tally(is_complete=True)
    complete.add(every, "", 1)
    assert size_of(complete) <= MAX_TOTALS_BYTES


@pytest.mark.parametrize("kind", KINDS)
async def test_no_such_session_makes_an_append_fail(
    store: BeanieSessionStore, database: Database, kind: str
) -> None:
    entries = KINDS[kind]()
    await store.append(KEY, entries)
    await store.append(KEY, [message("after")])
    assert await store.load(KEY) is not None
    (document,) = await database[SessionSummary.get_collection_name()].find().to_list(2)
    assert len(bson.encode(document["totals"])) <= MAX_TOTALS_BYTES
    fold = {name: document.pop(name) for name in ("data", "packed_data") if name in document}
    assert len(fold) == 1
    assert len(bson.encode(document)) <= MAX_TOTALS_BYTES + 16 * 1024
    assert (await store.verify(KEY)).is_sound


@pytest.mark.parametrize("steps", [2, pytest.param(6, marks=pytest.mark.soak)])
async def test_a_fold_that_just_fits_a_document_fits_beside_all_totals(
    store: BeanieSessionStore, steps: int
) -> None:
    for make in (many_accounts, many_rows, many_tools, waiting_summaries):
        await store.append(KEY, make())
    for spare in range(0, 1024 * 1024, 1024 * 1024 // steps):
        title = random.Random(3).randbytes((16 * 1024 * 1024 - spare) // 2).hex()
        await store.append(KEY, [{"type": "custom-title", "customTitle": title}])
        (summary,) = await store.list_session_summaries("project")
        assert summary["data"]["custom_title"] == title
