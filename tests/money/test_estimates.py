"""What tokens cost is estimated beside what agents say, and what is not known is never free."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from itertools import count
from typing import Any

import pytest
from bson import encode
from support.entries import KEY, message

from beanie_session_store import (
    BeanieSessionStore,
    InvalidPriceError,
    PriceTable,
    TokenPrice,
    downgrade_schema,
    upgrade_schema,
)
from beanie_session_store.app.database.driver import Database
from beanie_session_store.app.pricing import price_list
from beanie_session_store.models.counting.tally import Tally
from beanie_session_store.models.totals import SessionTotals, UsageRow

OPUS = "claude-opus-4-5"
SUMMARIES = "claude_transcript_summaries"
_numbers = count()


def answer(
    model: str = OPUS,
    *,
    day: str = "2026-11-25",
    ends: object = "end_turn",
    tokens: tuple[int, ...] = (100, 10, 0, 0),
    for_an_hour: int | None = None,
    **fields: Any,
) -> dict[str, Any]:
    """An entry of a response; ``tokens`` are input, output, written to the cache, read from it."""
    number = next(_numbers)
    taken, said, written, read = tokens
    usage: dict[str, Any] = {"input_tokens": taken, "output_tokens": said}
    usage |= {"cache_creation_input_tokens": written, "cache_read_input_tokens": read}
    if for_an_hour is not None:
        split = {"ephemeral_5m_input_tokens": written - for_an_hour}
        usage["cache_creation"] = {**split, "ephemeral_1h_input_tokens": for_an_hour}
    content = [{"type": "text", "text": "yes"}]
    told = {"id": f"msg_{number}", "model": model, "content": content, "usage": usage}
    return {
        "type": "assistant",
        "uuid": f"a{number}",
        "timestamp": f"{day}T10:00:00.000Z",
        "message": {**told, "stop_reason": ends},
        **fields,
    }


def account(usd: float, model: str = OPUS) -> dict[str, Any]:
    by_model = {model: {"costUSD": usd}}
    return {"type": "cost-state", "startTime": 1, "totalCostUSD": usd, "modelUsage": by_model}


async def totals_of(store: BeanieSessionStore, key: dict[str, str] = KEY) -> SessionTotals:
    summary = await store.summary(key)
    assert summary is not None
    return summary.totals


async def test_an_estimate_stands_beside_the_account(store: BeanieSessionStore) -> None:
    await store.append(KEY, [message(), answer(tokens=(100_000, 10_000, 0, 0))])
    running = await totals_of(store)
    assert running.cost_usd is None
    assert running.estimated_usd == pytest.approx(0.75)
    await store.append(KEY, [account(0.8)])
    ended = await totals_of(store)
    assert (ended.cost_usd, ended.estimated_usd) == (0.8, pytest.approx(0.75))
    (row,) = await store.usage(by=())
    assert (row.cost_usd, row.estimated_usd) == (0.8, pytest.approx(0.75))
    (listed,) = (await store.sessions()).sessions
    assert listed.totals.estimated_usd == pytest.approx(0.75)
    (figures,) = (await store.sessions(figures_only=True)).sessions
    assert figures.totals.estimated_usd == pytest.approx(0.75)


async def test_what_is_kept_for_an_hour_costs_more(store: BeanieSessionStore) -> None:
    tokens = (0, 0, 1_000_000, 1_000_000)
    await store.append(KEY, [message(), answer(tokens=tokens, for_an_hour=400_000)])
    await store.append(KEY, [answer(tokens=tokens), answer(tokens=tokens, for_an_hour=0)])
    totals = await totals_of(store)
    (row,) = totals.usage
    assert (row.cache_creation, row.cache_creation_1h, row.cache_read) == (
        3_000_000,
        400_000,
        3_000_000,
    )
    assert totals.estimated_usd == pytest.approx(2.6 * 6.25 + 0.4 * 10 + 3 * 0.5)
    (used,) = await store.usage(by="day")
    assert (used.cache_creation_1h, used.estimated_usd) == (400_000, totals.estimated_usd)


@pytest.mark.parametrize(
    ("written", "split", "for_an_hour"),
    [
        (10, {"ephemeral_1h_input_tokens": 10}, 10),
        (10, {"ephemeral_1h_input_tokens": 11}, 10),
        (0, {"ephemeral_1h_input_tokens": 11}, 0),
        (10, {"ephemeral_1h_input_tokens": -1}, 0),
        (10, {"ephemeral_1h_input_tokens": True}, 0),
        (10, {"ephemeral_1h_input_tokens": 2**80}, 0),
        (10, {}, 0),
        (10, None, 0),
        (10, [1], 0),
        (10, "x", 0),
    ],
)
def test_a_split_is_never_more_than_was_written(
    written: int, split: object, for_an_hour: int
) -> None:
    entry = answer(tokens=(1, 1, written, 0))
    entry["message"]["usage"]["cache_creation"] = split
    tally = Tally()
    tally.add([entry], "", 1)
    (row,) = tally.document(2)["usage"]
    assert (row["cache_creation"], row["cache_creation_1h"]) == (written, for_an_hour)


async def test_a_response_without_its_last_count_is_incomplete(store: BeanieSessionStore) -> None:
    whole, cut = answer(), answer(ends=None)
    # The first of its entries was written before the count came.
    begun = {**whole, "uuid": "begun", "message": {**whole["message"], "stop_reason": None}}
    made_up = answer(apiBlockIndex=0, tokens=(100, 1, 0, 0))
    # One that was not streamed has no details either.
    at_once = answer(apiBlockIndex=0)
    numbered = answer(apiBlockIndex=0, tokens=(100, 1, 0, 0))
    numbered["message"]["stop_details"] = None
    silent = answer()
    del silent["message"]["stop_reason"]
    entries = [message(), begun, whole, cut, made_up, at_once, numbered, silent]
    for entry in entries:
        await store.append(KEY, [entry])
    await store.append({**KEY, "subpath": "subagents/agent-a1"}, [answer(ends=None)])
    totals = await totals_of(store)
    (row,) = totals.usage
    assert (row.responses, row.incomplete) == (7, 3)
    assert (await store.verify(KEY)).is_sound
    (used,) = await store.usage(by=())
    assert (used.responses, used.incomplete) == (7, 3)
    transcript = await store.transcript(KEY)
    assert transcript is not None
    assert transcript.total_usage[OPUS].incomplete == 3
    # What is written again with its last count is whole.
    await store.append(
        KEY, [{**cut, "uuid": "c2", "message": {**cut["message"], "stop_reason": "x"}}]
    )
    assert (await totals_of(store)).usage[0].incomplete == 2


async def test_a_model_without_a_price_is_listed_and_not_free(store: BeanieSessionStore) -> None:
    await store.append(KEY, [message(), answer("acme-1"), answer("acme-2"), answer("unused")])
    totals = await totals_of(store)
    assert totals.estimated_usd is None
    assert totals.estimate.unpriced == ("acme-1", "acme-2", "unused")
    other = {**KEY, "session_id": "other"}
    await store.append(other, [message(), answer(tokens=(100_000, 0, 0, 0)), answer("acme-1")])
    by_model = {row.group["model"]: row for row in await store.usage()}
    assert by_model["acme-1"].estimated_usd is None
    assert by_model["acme-1"].unpriced == ("acme-1",)
    assert (by_model[OPUS].estimated_usd, by_model[OPUS].unpriced) == (0.5, ())
    (all_of_it,) = await store.usage(by=())
    assert all_of_it.estimated_usd == 0.5
    assert all_of_it.unpriced == ("acme-1", "acme-2", "unused")
    # Nothing used is a cost of nothing.
    none = {**KEY, "session_id": "none"}
    await store.append(none, [message(), answer("acme-9", tokens=(0, 0, 0, 0))])
    assert (await totals_of(store, none)).estimate.unpriced == ()
    assert (await totals_of(store, none)).estimated_usd == 0.0


async def test_prices_are_those_of_a_table_and_of_the_day(database: Database) -> None:
    table = PriceTable(
        {
            "acme": {date(2026, 1, 1): TokenPrice(5, 25), date(2026, 7, 1): TokenPrice(4, 20)},
            OPUS: TokenPrice(1, 1, 1, 1, 1),
        }
    )
    store = BeanieSessionStore(prices=table)
    used = [
        answer("acme", day=day, tokens=(1_000_000, 0, 0, 0))
        for day in ("2025-12-31", "2026-06-30", "2026-07-01")
    ]
    await store.append(KEY, [message(), *used])
    totals = await totals_of(store)
    assert (totals.estimated_usd, totals.estimate.unpriced) == (9, ("acme",))
    by_day = {row.group["day"]: row.estimated_usd for row in await store.usage(by="day")}
    assert by_day == {"2025-12-31": None, "2026-06-30": 5, "2026-07-01": 4}
    await store.append(KEY, [answer(tokens=(0, 1_000_000, 1_000_000, 1_000_000), for_an_hour=1)])
    assert (await totals_of(store)).estimated_usd == 12
    (row,) = await store.usage(by=())
    assert row.estimated_usd == 12
    # What has no day has the price of today, and not one that is still to come.
    soon = datetime.now(timezone.utc).date() + timedelta(days=2)
    raised = PriceTable({"acme": {date(2026, 1, 1): TokenPrice(5, 25), soon: TokenPrice(9, 45)}})
    assert raised.price_of("acme") == TokenPrice(5, 25)
    # Another store, with the public list.
    assert (await totals_of(BeanieSessionStore())).estimate.unpriced == ("acme",)


@pytest.mark.parametrize(
    "wrong",
    [
        {"x": 1},
        {"": TokenPrice(1, 1)},
        {1: TokenPrice(1, 1)},
        {"x": {}},
        {"x": {"2026-01-01": TokenPrice(1, 1)}},
        {"x": {date(2026, 1, 1): 5}},
        [("x", TokenPrice(1, 1))],
        "x",
    ],
)
def test_a_table_that_is_none_is_refused(wrong: Any) -> None:
    with pytest.raises(InvalidPriceError):
        PriceTable(wrong)
    with pytest.raises(InvalidPriceError):
        BeanieSessionStore(prices=wrong)


@pytest.mark.parametrize(
    "wrong",
    [-1, float("nan"), float("inf"), pytest.param(10**400, id="huge"), 1e308, None, "1", True],
)
def test_a_price_that_is_none_is_refused(wrong: Any) -> None:
    with pytest.raises(InvalidPriceError):
        TokenPrice(wrong, 1)
    with pytest.raises(InvalidPriceError):
        TokenPrice(1, wrong)
    if wrong is not None:
        with pytest.raises(InvalidPriceError):
            TokenPrice(1, 1, cache_read=wrong)


async def test_without_the_list_nothing_is_free(
    store: BeanieSessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.append(KEY, [message(), answer()])
    monkeypatch.setattr(price_list, "_NAME", "genai_prices_that_is_not_installed")
    price_list._package.cache_clear()
    try:
        totals = await totals_of(store)
        assert (totals.estimated_usd, totals.estimate.unpriced) == (None, (OPUS,))
        (row,) = await store.usage(by=())
        assert (row.estimated_usd, row.unpriced) == (None, (OPUS,))
        with_table = BeanieSessionStore(prices=PriceTable({OPUS: TokenPrice(10, 0)}))
        assert (await totals_of(with_table)).estimated_usd == pytest.approx(0.001)
    finally:
        price_list._package.cache_clear()


async def forget_the_split(database: Database, session_id: str = "session") -> None:
    """Leave the summary as an older release would have."""
    rows = database[SUMMARIES]
    summary = await rows.find_one({"session_id": session_id})
    assert summary is not None
    for row in summary["totals"]["usage"]:
        del row["cache_creation_1h"], row["incomplete"]
    for place in summary["totals"].get("in_flight", {}).get("under_way", ()):
        del place[16:]
    await rows.replace_one({"_id": summary["_id"]}, summary)


async def test_older_totals_are_read_added_up_and_counted_anew(
    store: BeanieSessionStore, database: Database
) -> None:
    entries = [message(), answer(tokens=(0, 0, 1_000_000, 0), for_an_hour=1_000_000)]
    cut = answer(tokens=(0, 1, 0, 0), ends=None)
    await store.append(KEY, [*entries, cut])
    newer = {**KEY, "session_id": "newer"}
    await store.append(newer, [message(), answer(tokens=(0, 0, 500_000, 0), for_an_hour=500_000)])
    await forget_the_split(database)

    totals = await totals_of(store)
    (row,) = totals.usage
    assert (row.cache_creation, row.cache_creation_1h, row.incomplete) == (1_000_000, None, None)
    assert totals.by_model[OPUS].cache_creation_1h is None
    assert totals.estimated_usd == pytest.approx(6.25, abs=1e-4)
    (used,) = await store.usage(by=())
    assert (used.cache_creation, used.cache_creation_1h) == (1_500_000, 500_000)
    assert (used.sessions, used.with_older_counts) == (2, 1)
    assert used.estimated_usd == pytest.approx(6.25 + 5, abs=1e-4)

    # A store that does not know the session yet, with an append that goes on with the response.
    again = {**cut, "uuid": "again", "message": {**cut["message"], "stop_reason": "end_turn"}}
    await BeanieSessionStore().append(KEY, [again])
    (row,) = (await totals_of(store)).usage
    assert (row.responses, row.cache_creation_1h, row.incomplete) == (2, 1_000_000, 0)
    assert (await store.verify(KEY)).is_sound

    await forget_the_split(database)
    assert not (await store.verify(KEY)).is_sound
    await store.repair(KEY)
    (used,) = await store.usage(by=())
    assert (used.cache_creation_1h, used.with_older_counts) == (1_500_000, 0)
    assert used.estimated_usd == pytest.approx(15, abs=1e-4)


async def test_what_was_never_counted_is_not_known(
    store: BeanieSessionStore, database: Database
) -> None:
    await store.append(KEY, [message(), answer()])
    await database[SUMMARIES].update_one({}, {"$unset": {"totals": ""}})
    assert (await totals_of(store)).estimated_usd is None


async def test_a_fork_is_not_estimated_twice(store: BeanieSessionStore) -> None:
    tokens = (100_000, 0, 0, 0)
    await store.append(KEY, [message(), answer(tokens=tokens)])
    fork = {**KEY, "session_id": "fork"}
    copied = answer(tokens=tokens, forkedFrom={"sessionId": "session", "messageUuid": "x"})
    await store.append(fork, [message(), copied, answer(tokens=(200_000, 0, 0, 0))])
    assert (await totals_of(store, fork)).estimated_usd == pytest.approx(1.0)
    (row,) = await store.usage(by=())
    assert row.estimated_usd == pytest.approx(1.5)


async def test_groups_are_those_of_the_server(store: BeanieSessionStore) -> None:
    values: list[Any] = [1, 1.0, True, None, "1", [1], {"a": 1}, 2**40, 0.5]
    for number, value in enumerate(values):
        key = {**KEY, "session_id": f"s{number}"}
        mine = BeanieSessionStore(metadata={"user": value})
        await mine.append(key, [message(), answer(day=f"2026-11-{number + 1:02}")])
    await BeanieSessionStore().append({**KEY, "session_id": "bare"}, [message(), answer()])
    rows = await store.usage(by="metadata.user")
    assert sum(row.sessions for row in rows) == 10
    # 1 and 1.0 are one group, and so is what is null or missing.
    assert len(rows) == 8
    both = await store.usage(by=("metadata.user", "project_key"))
    assert [row.sessions for row in both] == [row.sessions for row in rows]
    for row in rows:
        assert row.responses == row.sessions
        assert row.input == 100 * row.sessions
        assert row.estimated_usd == pytest.approx(0.00075 * row.sessions)


def test_a_row_takes_no_more_than_is_reckoned_with() -> None:
    tally = Tally()
    for number in range(400):
        tally.add(
            [answer(f"model-{number}", tokens=(2**35,) * 4, for_an_hour=2**34)], "", number + 1
        )
    document = tally.document(401)
    assert len(encode({"usage": document["usage"]})) < 80 * 1024
    assert 250 < len(document["usage"]) < 400
    assert sum(row["cache_creation_1h"] for row in document["usage"]) == 400 * 2**34


def test_rows_of_older_and_newer_counts_add_up() -> None:
    older = UsageRow(day="2026-11-01", model="m", responses=1, cache_creation=5)
    newer = UsageRow(
        day="2026-11-02",
        model="m",
        responses=2,
        cache_creation=7,
        cache_creation_1h=7,
        incomplete=1,
    )
    totals = SessionTotals(next_seq=1, usage=[older, newer], cost_usd=0.5)
    row = totals.by_model["m"]
    assert (row.responses, row.cache_creation, row.cache_creation_1h) == (3, 12, None)
    assert row.incomplete is None
    assert totals.usage[0].responses == 1


async def test_a_migration_tells_what_wrote_nothing_to_the_cache(
    store: BeanieSessionStore, database: Database
) -> None:
    await store.append(KEY, [message(), answer(), answer("acme", tokens=(0, 1, 5, 0))])
    await forget_the_split(database)
    other = {**KEY, "session_id": "other"}
    await store.append(other, [message(), answer(tokens=(0, 1, 5, 0), for_an_hour=5)])
    before = await database[SUMMARIES].find_one({"session_id": "other"})
    script = "20261128020000"
    await downgrade_schema(database, to="20261127150000")
    for _ in range(2):
        assert len(await upgrade_schema(database, to=script)) == 1
        totals = (await totals_of(store)).by_model
        assert (totals[OPUS].cache_creation_1h, totals[OPUS].incomplete) == (0, None)
        assert (totals["acme"].cache_creation_1h, totals["acme"].cache_creation) == (None, 5)
        assert await database[SUMMARIES].find_one({"session_id": "other"}) == before
        await downgrade_schema(database, to="20261127150000")
    await store.append(KEY, [answer("acme", tokens=(0, 1, 5, 0), for_an_hour=2)])
    assert (await totals_of(store)).by_model["acme"].cache_creation_1h == 2
    assert (await store.verify(KEY)).is_sound
