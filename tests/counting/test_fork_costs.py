"""What a fork cost is what was spent in it, so that sums count every dollar once."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

import pytest
from claude_agent_sdk import SessionKey, fork_session_via_store, project_key_for_directory

from beanie_session_store import BeanieSessionStore, NewSession, SessionTotals

Entry = dict[str, Any]

BEGUN = 1_772_359_200_000.0
"""When the account of the session that is forked began: 2026-03-01T10:00:00Z."""


def said(session: str, number: int, model: str = "opus") -> Entry:
    """A response that was made in a session."""
    return {
        "type": "assistant",
        "uuid": str(uuid.uuid4()),
        "sessionId": session,
        "timestamp": f"2026-03-01T10:{number:02}:00.000Z",
        "message": {
            "id": f"{session}-{number}",
            "model": model,
            "content": [{"type": "text", "text": "x"}],
            "usage": {"input_tokens": 100, "output_tokens": number},
        },
    }


def account(start: float = BEGUN, **costs: float) -> Entry:
    """A state of an account, by model."""
    usage = {model: {"costUSD": cost} for model, cost in costs.items()}
    total = sum(costs.values())
    return {
        "type": "cost-state",
        "startTime": start,
        "totalCostUSD": total,
        "modelUsage": usage,
    }


def forked(entries: list[Entry], session: str) -> list[Entry]:
    """As the agent copies them into a fork: responses under their uuids, and no account."""
    return [
        {"requestSessionId": entry["sessionId"], **entry, "sessionId": session}
        for entry in entries
        if entry["type"] == "assistant"
    ]


def key(session: str, project: str = "p") -> SessionKey:
    return {"project_key": project, "session_id": session}


async def totals_of(store: BeanieSessionStore, session: str, project: str = "p") -> SessionTotals:
    """The totals of a session, which is sound and whose transcript says the same."""
    summary = await store.summary(key(session, project))
    assert summary is not None
    assert summary.totals is not None
    assert (await store.verify(key(session, project))).differences == ()
    transcript = await store.transcript(key(session, project))
    assert transcript is not None
    assert transcript.cost_usd == summary.totals.cost_usd
    return summary.totals


async def sums(store: BeanieSessionStore) -> tuple[Mapping[str, float | None], int]:
    """The cost by model of all sessions, and of how many it may be too much."""
    rows = await store.usage(by="model")
    return {row.group["model"]: row.cost_usd for row in rows}, max(r.with_source_cost for r in rows)


SOURCE = [said("source", 1), said("source", 2, "haiku")]


async def test_a_fork_costs_what_was_spent_in_it(store: BeanieSessionStore) -> None:
    await store.append(key("source"), [*SOURCE, account(opus=1.5, haiku=0.5)])
    await store.append(key("fork"), [*forked(SOURCE, "fork"), said("fork", 5)])
    await store.append(key("fork"), [account(opus=2.5, haiku=0.5)])
    totals = await totals_of(store, "fork")
    assert (totals.cost_usd, totals.carried_usd, totals.forked_from) == (1.0, 2.0, "source")
    assert not totals.has_source_cost
    assert await sums(store) == ({"opus": 2.5, "haiku": 0.5}, 0)
    # Its account goes on.
    await store.append(key("fork"), [said("fork", 6), account(opus=4.5, haiku=0.75)])
    assert (await totals_of(store, "fork")).cost_usd == 3.25
    assert await sums(store) == ({"opus": 4.5, "haiku": 0.75}, 0)


@pytest.mark.parametrize("size", [1, 100])
async def test_what_the_session_spent_after_the_fork_is_its_own(
    store: BeanieSessionStore, size: int
) -> None:
    """Whether the fork comes entry by entry, or all at once, as it is imported or replayed."""
    first = [*SOURCE, account(opus=1.0, haiku=0.5)]
    await store.append(key("source"), [*first, said("source", 4), account(opus=5.0, haiku=0.5)])
    fork = [*forked(SOURCE, "fork"), said("fork", 5), account(opus=1.25, haiku=0.5)]
    for at in range(0, len(fork), size):
        await store.append(key("fork"), fork[at : at + size])
    assert (await totals_of(store, "fork")).cost_usd == 0.25
    assert (await totals_of(store, "source")).cost_usd == 5.5


async def test_a_fork_of_a_fork_costs_what_was_spent_in_it(store: BeanieSessionStore) -> None:
    own = said("second", 3)
    await store.append(key("source"), [*SOURCE, account(opus=1.0)])
    second = [*forked(SOURCE, "second"), own]
    await store.append(key("second"), [*second, account(opus=3.0)])
    await store.append(key("third"), [*forked(second, "third"), said("third", 4)])
    await store.append(key("third"), [account(opus=7.0)])
    assert [(await totals_of(store, each)).cost_usd for each in ("source", "second", "third")] == [
        1.0,
        2.0,
        4.0,
    ]
    assert (await totals_of(store, "third")).forked_from == "second"
    assert await sums(store) == ({"opus": 7.0, "haiku": None}, 0)


async def test_a_fork_that_has_an_account_of_its_own_costs_all_of_it(
    store: BeanieSessionStore,
) -> None:
    """As one that the SDK makes; nobody has spent anything on it before."""
    await store.append(key("source"), [*SOURCE, account(opus=1.0)])
    mark = {"sessionId": "source", "messageUuid": SOURCE[-1]["uuid"]}
    copied = [{**each, "uuid": str(uuid.uuid4()), "forkedFrom": mark} for each in SOURCE]
    started = BEGUN + 3_600_000
    await store.append(key("fork"), [*copied, said("fork", 59), account(started, opus=0.5)])
    totals = await totals_of(store, "fork")
    assert (totals.cost_usd, totals.carried_usd, totals.has_source_cost) == (0.5, None, False)
    assert await sums(store) == ({"opus": 1.5, "haiku": None}, 0)


async def test_the_sdk_and_the_agent_mark_a_fork_alike(store: BeanieSessionStore) -> None:
    project = project_key_for_directory(None)
    source = str(uuid.uuid4())
    await store.append(key(source, project), [said(source, 1), account(opus=1.0)])
    fork = await fork_session_via_store(store, source)
    totals = await totals_of(store, fork.session_id, project)
    assert (totals.forked_from, totals.cost_usd) == (source, None)


async def test_what_became_of_the_session_later_changes_nothing(store: BeanieSessionStore) -> None:
    await store.append(key("source"), [*SOURCE, account(opus=1.0)])
    fork = [*forked(SOURCE, "fork"), said("fork", 5), account(opus=1.5)]
    await store.append(key("fork"), fork)
    await store.append(key("source"), [said("source", 6), account(opus=9.0)])
    assert (await totals_of(store, "fork")).cost_usd == 0.5
    await store.delete(key("source"))
    assert (await totals_of(store, "fork")).cost_usd == 0.5
    await store.repair(key("fork"))
    await BeanieSessionStore().append(key("fork"), [said("fork", 7), account(opus=2.0)])
    assert (await totals_of(store, "fork")).cost_usd == 1.0


@pytest.mark.parametrize("why", ["gone", "another tenant's", "without the response", "not so old"])
async def test_a_fork_is_marked_where_nobody_knows_what_was_spent_before(
    store: BeanieSessionStore, why: str
) -> None:
    source = [*SOURCE, account(opus=1.0)]
    if why == "another tenant's":
        await BeanieSessionStore(tenant="other").append(key("source"), source)
    elif why == "without the response":
        await store.append(key("source"), [said("source", 3), account(opus=1.0)])
    elif why == "not so old":
        # The fork's account is below it, so it is no later state of this one.
        await store.append(key("source"), [*SOURCE, account(opus=100.0)])
    fork = [*forked(SOURCE, "fork"), said("fork", 5), account(opus=3.0)]
    await store.append(key("fork"), fork)
    totals = await totals_of(store, "fork")
    assert (totals.cost_usd, totals.carried_usd, totals.has_source_cost) == (3.0, None, True)
    (row,) = await store.usage({"session_id": "fork"}, by=())
    assert (row.cost_usd, row.with_source_cost) == (3.0, 1)


async def test_whole_sessions_are_stored_alike(store: BeanieSessionStore) -> None:
    """Many at once leave what takes a look at another session to the one that goes one by one."""
    fork = [*forked(SOURCE, "fork"), said("fork", 5), account(opus=1.5, haiku=0.5)]
    sessions = [
        NewSession("p", "source", None, {"": [*SOURCE, account(opus=1.0, haiku=0.5)]}),
        NewSession("p", "fork", None, {"": fork}),
    ]
    assert await store.insert_sessions(sessions) == [3, None]
    replay = await store.replay(key("fork"))
    await replay.add(fork)
    assert (await totals_of(store, "fork")).cost_usd == 0.5


@pytest.mark.parametrize(
    "odd",
    [
        {"requestSessionId": {"$ne": 1}},
        {"requestSessionId": "\0"},
        {"requestSessionId": "x" * 5000},
        {"requestSessionId": "\ud800"},
        {"forkedFrom": {"sessionId": "source", "messageUuid": {"$gt": ""}}},
        {"forkedFrom": {"sessionId": "source", "messageUuid": "\0"}},
        {"forkedFrom": {}},
        {"requestSessionId": "source", "timestamp": "never"},
        {"requestSessionId": "source", "uuid": None},
        {"requestSessionId": "fork"},
    ],
)
async def test_odd_marks_of_a_fork_stop_no_append(store: BeanieSessionStore, odd: Entry) -> None:
    await store.append(key("source"), [*SOURCE, account(opus=1.0)])
    starts = [account(start, opus=2.0) for start in (BEGUN, BEGUN - 1, BEGUN - 2, BEGUN - 3)]
    await store.append(key("fork"), [{**said("fork", 5), **odd}, *starts])
    assert (await totals_of(store, "fork")).cost_usd == 8.0
