"""Questions to all sessions of a tenant: right answers, from summaries, by an index."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta, timezone
from typing import Any

import pytest
from bson import ObjectId
from support.entries import KEY, SUBAGENT, message
from support.server import profiled

from beanie_session_store import (
    AssistantEntry,
    BeanieSessionStore,
    InvalidKeyError,
    InvalidQueryError,
    SchemaOutdatedError,
    SessionSummary,
    TranscriptEntry,
    disable_search,
    enable_search,
)
from beanie_session_store.app.database.driver import Database

Record = dict[str, Any]

START = datetime(2026, 1, 1, tzinfo=timezone.utc)
SUMMARIES = "claude_transcript_summaries"
ENTRIES = "claude_transcript_entries"


def answer(
    text: str = "done", *, model: str = "opus", day: str = "2026-01-02", **usage: int
) -> Any:
    tokens = {"input_tokens": 10, "output_tokens": 5, **usage}
    content = [
        {"type": "text", "text": text},
        {"type": "tool_use", "id": text, "name": "Bash", "input": {}},
    ]
    return {
        "type": "assistant",
        "uuid": f"{ObjectId()}",
        "timestamp": f"{day}T12:00:00.000Z",
        "message": {"id": f"{ObjectId()}", "model": model, "content": content, "usage": tokens},
    }


def result(call: str, *, is_error: bool) -> Any:
    block = {"type": "tool_result", "tool_use_id": call, "content": "", "is_error": is_error}
    return message([block])  # type: ignore[arg-type]


async def fill(database: Database, sessions: int = 2000) -> None:
    """Sessions of two tenants and four projects, one more active each minute."""
    store = BeanieSessionStore(tenant="acme", metadata={"user_id": "u"})
    await store.append(
        KEY, [message("fix the login", gitBranch="main"), answer(), result("done", is_error=True)]
    )
    await store.append(KEY, [{"type": "tag", "tag": "t"}])
    summaries = database[SUMMARIES]
    (one,) = await summaries.find().to_list(None)
    await summaries.delete_many({})
    rows = []
    for number in range(sessions):
        day = (START + timedelta(days=number % 10)).date().isoformat()
        usage = {**one["totals"]["usage"][0], "day": day, "cost_usd": 0.5}
        rows.append(
            {
                **one,
                "_id": ObjectId(),
                "tenant": "other" if number % 4 == 3 else "acme",
                "project_key": f"p{number % 2}",
                "session_id": f"s{number}",
                "active_at": START + timedelta(minutes=number // 2),
                "branch": f"b{number % 5}",
                "tag": f"t{number % 100}",
                "title": f"Title {number}",
                "metadata": {"user_id": f"u{number % 8}"},
                "totals": {**one["totals"], "usage": [usage]},
            }
        )
    await summaries.insert_many(rows)


def numbers(sessions: Sequence[SessionSummary]) -> list[int]:
    return [int(session.session_id[1:]) for session in sessions]


async def all_pages(store: BeanieSessionStore, limit: int, **wanted: Any) -> list[int]:
    found: list[int] = []
    after = None
    while True:
        page = await store.sessions(limit=limit, after=after, **wanted)
        found += numbers(page.sessions)
        after = page.cursor
        if after is None:
            return found


async def test_pages_hold_every_session_once_and_the_latest_first(database: Database) -> None:
    await fill(database, 300)
    store = BeanieSessionStore(tenant="acme")
    mine = [number for number in range(300) if number % 4 != 3]
    found = await all_pages(store, 7)
    assert sorted(found) == mine
    minutes = [number // 2 for number in found]
    assert minutes == sorted(minutes, reverse=True)
    assert await all_pages(store, 225) == found
    assert await all_pages(store, 224) == found
    assert await all_pages(store, 1000) == found


async def test_of_figures_alone_no_text_is_read(database: Database) -> None:
    await fill(database, 60)
    store = BeanieSessionStore(tenant="acme")
    assert await all_pages(store, 7, figures_only=True) == await all_pages(store, 7)
    (whole,) = (await store.sessions(limit=1)).sessions
    found: list[dict[str, Any]] = []
    async with profiled(database, found):
        (alone,) = (await store.sessions(limit=1, tag=whole.tag, figures_only=True)).sessions
    texts = ("title", "first_prompt", "branch", "cwd", "tag", "data")
    assert all(getattr(whole, name) is not None for name in ("title", "branch", "tag", "data"))
    assert all(getattr(alone, name) is None for name in texts)
    for name in ("session_id", "totals", "metadata", "active_at", "mtime", "created_at", "id"):
        assert getattr(alone, name) == getattr(whole, name)
    (asked,) = [each["command"] for each in found if each["op"] == "query"]
    assert not set(texts) & set(asked["projection"])


async def test_a_session_that_becomes_active_is_not_met_twice(database: Database) -> None:
    await fill(database, 40)
    store = BeanieSessionStore(tenant="acme")
    page = await store.sessions(limit=10)
    moved = page.sessions[3]
    await store.append(
        {"project_key": moved.project_key, "session_id": moved.session_id}, [message()]
    )
    rest = await all_pages(store, 10, until=START + timedelta(days=30))
    assert len(rest) == 29
    after = (await store.sessions(limit=30, after=page.cursor)).sessions
    assert len(after) == 20
    assert not set(numbers(after)) & set(numbers(page.sessions))


@pytest.mark.parametrize(
    ("wanted", "fits"),
    [
        ({"project_key": "p1"}, lambda n: n % 2 == 1),
        ({"tag": "t7"}, lambda n: n % 100 == 7),
        ({"branch": "b2"}, lambda n: n % 5 == 2),
        ({"title": "TITLE 17"}, lambda n: str(n).startswith("17")),
        ({"title": "the LOGIN"}, lambda n: True),
        ({"title": "Title .*"}, lambda n: False),
        ({"metadata": {"user_id": "u5"}}, lambda n: n % 8 == 5),
        ({"since": START + timedelta(minutes=90)}, lambda n: n >= 180),
        ({"until": START + timedelta(minutes=90)}, lambda n: n < 180),
        ({"tag": "t7", "branch": "b2", "project_key": "p1"}, lambda n: n % 100 == 7),
        ({"tag": "t7", "branch": "b1"}, lambda n: False),
    ],
)
async def test_a_filter_finds_just_what_fits(database: Database, wanted: Any, fits: Any) -> None:
    await fill(database, 200)
    found = await all_pages(BeanieSessionStore(tenant="acme"), 9, **wanted)
    assert sorted(found) == [n for n in range(200) if n % 4 != 3 and fits(n)]


async def test_criteria_are_of_the_odm_and_stay_in_the_tenant(database: Database) -> None:
    await fill(database, 40)
    store = BeanieSessionStore(tenant="acme")
    page = await store.sessions(SessionSummary.branch == "b2", SessionSummary.project_key == "p0")
    assert sorted(numbers(page.sessions)) == [2, 12, 22, 32]
    for escape in ({"tenant": "other"}, {"$or": [{"tenant": "other"}, {"tag": "none"}]}):
        assert (await store.sessions(escape)).sessions == []
        assert await store.usage(escape) == []
        assert await store.tools(escape) == []


async def test_usage_adds_up_by_what_is_asked_for(store: BeanieSessionStore) -> None:
    other = {**KEY, "project_key": "second", "session_id": "another"}
    for_user = BeanieSessionStore(metadata={"user_id": "u1"})
    await for_user.append(KEY, [answer("a"), answer("b", model="haiku", day="2026-01-03")])
    await for_user.append(SUBAGENT, [answer("c", output_tokens=100)])
    await store.append(other, [answer("d")])
    costs = {"opus": {"costUSD": 2.0}}
    await store.append(
        other, [{"type": "cost-state", "totalCostUSD": 2.0, "startTime": 1, "modelUsage": costs}]
    )

    def shown(rows: Any) -> list[Any]:
        return [(*row.group.values(), row.sessions, row.responses, row.output) for row in rows]

    assert shown(await store.usage()) == [("opus", 2, 3, 110), ("haiku", 1, 1, 5)]
    assert shown(await store.usage(by=())) == [(2, 4, 115)]
    assert (await store.usage(by=()))[0].cost_usd == 2.0
    assert shown(await store.usage(by="project_key")) == [
        ("second", 1, 1, 5),
        ("project", 1, 3, 110),
    ]
    assert shown(await store.usage(by=("day", "model"), project_key="project")) == [
        ("2026-01-02", "opus", 1, 2, 105),
        ("2026-01-03", "haiku", 1, 1, 5),
    ]
    assert shown(await store.usage(by="metadata.user_id")) == [(None, 1, 1, 5), ("u1", 1, 3, 110)]
    assert shown(await store.usage(metadata={"user_id": "u1"}, since=date(2026, 1, 3))) == [
        ("haiku", 1, 1, 5)
    ]
    assert shown(await store.usage(until=date(2026, 1, 3))) == [("opus", 2, 3, 110)]
    assert await BeanieSessionStore(tenant="stranger").usage() == []


async def test_tools_tell_how_often_they_fail(store: BeanieSessionStore) -> None:
    await store.append(KEY, [answer("a"), answer("b"), result("a", is_error=True)])
    await store.append(SUBAGENT, [answer("c"), result("c", is_error=False), answer("d")])
    await store.append({**KEY, "session_id": "another"}, [answer("e")])
    (bash,) = await store.tools()
    assert (bash.name, bash.sessions, bash.calls, bash.errors) == ("Bash", 2, 5, 1)
    assert bash.error_rate == 0.2
    assert await store.tools(since=datetime.now(timezone.utc) + timedelta(days=1)) == []
    assert await BeanieSessionStore(tenant="stranger").tools() == []


async def test_search_needs_its_index_and_finds_what_was_said(
    store: BeanieSessionStore, database: Database
) -> None:
    await store.append(KEY, [message("where is the Zürich office?"), answer("in the annex")])
    with pytest.raises(SchemaOutdatedError, match=r"no text index.*enable_search"):
        await store.search("annex")
    said: list[str] = []
    await enable_search(database, on_progress=said.append)
    assert "building index transcript_text" in " ".join(said)
    await enable_search(database)
    # MongoDB would take this for the language of the index, which it does not know.
    odd = {
        **message("rust"),
        "message": {"content": [{"type": "text", "text": "crab", "language": "x"}]},
    }
    await store.append(SUBAGENT, [answer("annex annex"), odd])
    await BeanieSessionStore(tenant="other").append(KEY, [message("annex")])

    hits = await store.search("annex")
    assert [(hit.session_id, hit.subpath, hit.seq) for hit in hits] == [
        ("session", "subagents/agent-a1", 3),
        ("session", "", 2),
    ]
    assert hits[0].score > hits[1].score
    view = hits[1].parsed
    assert isinstance(view, AssistantEntry)
    assert view.text == "in the annex"
    assert len(await store.search("annex", limit=1)) == 1
    assert await store.search("annex", project_key="elsewhere") == []
    assert [hit.seq for hit in await store.search("zürich -crab")] == [1]
    assert [hit.seq for hit in await store.search("CRAB")] == [4]
    # A tool's input and output are no conversation.
    assert await store.search("bash") == []
    await disable_search(database)
    with pytest.raises(SchemaOutdatedError):
        await store.search("annex")
    assert (await store.verify(KEY)).is_sound


@pytest.mark.parametrize(
    "wanted",
    [
        {"tag": {"$ne": None}},
        {"tag": ""},
        {"branch": ["b"]},
        {"title": "\0"},
        {"title": "\ud83d"},
        {"metadata": "u1"},
        {"metadata": {"user_id": {"$ne": None}}},
        {"metadata": {"$where": "1"}},
        {"metadata": {"a.b": 1}},
        {"since": datetime(2026, 1, 1)},
        {"until": "yesterday"},
        {"limit": 0},
        {"limit": True},
        {"limit": 1001},
        {"after": "x"},
        {"after": {"$gt": ""}},
        {"after": "WzEsMl0="},
    ],
)
async def test_a_condition_that_is_none_is_refused(store: BeanieSessionStore, wanted: Any) -> None:
    with pytest.raises(InvalidQueryError, match="nothing was read"):
        await store.sessions(**wanted)


async def test_other_queries_refuse_what_is_no_condition(store: BeanieSessionStore) -> None:
    calls: list[Any] = [
        store.sessions("tag"),  # type: ignore[arg-type]
        store.usage(by="$tenant"),
        store.usage(by=["metadata.$x"]),
        store.usage(by=[{"$x": 1}]),  # type: ignore[list-item]
        store.usage(by=7),  # type: ignore[arg-type]
        store.usage(since=datetime(2026, 1, 1, tzinfo=timezone.utc)),
        store.usage(until="2026-01-01"),  # type: ignore[arg-type]
        store.usage(metadata={"a": []}),
        store.tools(tag={"$ne": 1}),  # type: ignore[arg-type]
        store.search({"$x": 1}),  # type: ignore[arg-type]
        store.search(""),
        store.search("x", limit=0),
    ]
    for call in calls:
        with pytest.raises(InvalidQueryError):
            await call
    for call in (store.sessions(project_key={"$ne": 1}), store.search("x", project_key="")):  # type: ignore[arg-type]
        with pytest.raises(InvalidKeyError):
            await call


async def test_expired_sessions_are_in_no_answer(database: Database) -> None:
    await fill(database, 8)
    # Without the index nothing sweeps them away.
    await database[SUMMARIES].drop_index("transcript_expiry")
    gone = datetime.now(timezone.utc) - timedelta(days=1)
    await database[SUMMARIES].update_many({}, {"$set": {"expires_at": gone}})
    store = BeanieSessionStore(tenant="acme")
    assert (await store.sessions()).sessions == []
    assert await store.usage() == []
    assert await store.tools() == []


async def explained(database: Database, call: Any) -> Record:
    """What the one operation of a query examined, summed over its commands."""
    await database.drop_collection("system.profile")
    found: list[Record] = []
    async with profiled(database, found):
        await call
    read = [o for o in found if o["op"] in ("query", "command", "getmore") and "docsExamined" in o]
    assert read != []
    # Nothing but summaries is read, and by an index.
    assert {operation["ns"].split(".", 1)[1] for operation in read} == {SUMMARIES}
    plans = " ".join(operation.get("planSummary", "") for operation in read)
    assert "COLLSCAN" not in plans
    return {
        "plan": plans,
        "keys": sum(operation["keysExamined"] for operation in read),
        "documents": sum(operation["docsExamined"] for operation in read),
        "sorted": any(operation.get("hasSortStage") for operation in read),
    }


async def test_no_query_examines_more_than_it_needs(database: Database) -> None:
    await fill(database)
    store = BeanieSessionStore(tenant="acme")
    await store.sessions(limit=1)
    by_activity = "IXSCAN { tenant: 1, active_at: -1, _id: -1 }"

    latest = await explained(database, store.sessions(limit=50))
    assert latest["plan"] == by_activity
    assert (latest["keys"], latest["documents"], latest["sorted"]) == (51, 51, False)

    page = await store.sessions(limit=1000)
    later = await explained(database, store.sessions(limit=50, after=page.cursor))
    assert later["plan"] == by_activity
    assert later["keys"] <= 55
    assert later["documents"] <= 55
    assert not later["sorted"]

    recent = START + timedelta(minutes=990)
    for wanted in ({}, {"tag": "t7"}, {"branch": "b1"}, {"title": "x"}, {"metadata": {"a": 1}}):
        found = await explained(database, store.sessions(since=recent, **wanted))
        assert found["plan"] == by_activity
        assert found["keys"] <= 16
        assert not found["sorted"]
        found = await explained(database, store.sessions(limit=50, **wanted))
        assert found["documents"] <= 1500

    for project in ({"project_key": "p0"}, {"project_key": "nowhere"}):
        found = await explained(database, store.sessions(limit=50, **project))
        assert found["documents"] <= 105

    everything = await explained(database, store.usage(by=("day", "model", "project_key")))
    assert everything["documents"] == 1500
    assert everything["keys"] <= 1501
    week = await explained(database, store.usage(since=date(2026, 1, 3)))
    # Once for the groups, and once for the models and days in them, which have prices.
    assert week["plan"] == f"{by_activity} {by_activity}"
    assert week["documents"] == 0
    found = await explained(database, store.tools(since=recent))
    assert found["plan"] == by_activity
    assert found["documents"] <= 16


async def test_search_examines_what_it_finds(database: Database) -> None:
    await enable_search(database)
    store = BeanieSessionStore(tenant="acme")
    for number in range(20):
        key = {**KEY, "session_id": f"s{number}"}
        await store.append(key, [message("rare" if number == 7 else "often"), answer("often")])
        await BeanieSessionStore(tenant="other").append(key, [message("rare")])
    found: list[Record] = []
    async with profiled(database, found):
        assert len(await store.search("rare")) == 1
    (read,) = [o for o in found if o["ns"].endswith(ENTRIES) and "docsExamined" in o]
    # It is fetched to be compared, and again for its score.
    assert (read["keysExamined"], read["docsExamined"]) == (1, 2)
    assert await TranscriptEntry.find_all().count() == 60
