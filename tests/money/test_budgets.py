"""A budget is asked for cheaply before a turn, and told of once when it is passed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from datetime import date, datetime, timedelta, timezone
from typing import Any

import pytest
from money.test_estimates import account, answer
from support.entries import KEY, message
from support.server import failing
from support.watchdog import WATCHDOG_SECONDS

from beanie_session_store import (
    BeanieSessionStore,
    Budget,
    InvalidBudgetError,
    ServerError,
    Spending,
    StandaloneError,
)
from beanie_session_store.app.budgets import budget_watch
from beanie_session_store.app.concurrency import cancellation
from beanie_session_store.app.database.collection_names import PASSED_BUDGETS
from beanie_session_store.app.database.driver import Database

MONTHLY = Budget(usd=1, per="month", by="metadata.user_id")
TODAY = datetime.now(timezone.utc).date()


def of(user: Any) -> BeanieSessionStore:
    return BeanieSessionStore(metadata={"user_id": user})


def named(session: str, project: str = "project") -> dict[str, str]:
    return {"project_key": project, "session_id": session}


def spends(usd: float, day: date = TODAY, **fields: Any) -> dict[str, Any]:
    """A response of so many dollars: opus takes 5 for a million tokens."""
    return answer(day=str(day), tokens=(round(usd * 200_000), 0, 0, 0), **fields)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"usd": 0}, "usd"),
        ({"usd": -1}, "usd"),
        ({"usd": float("nan")}, "usd"),
        ({"usd": float("inf")}, "usd"),
        ({"usd": 10**400}, "usd"),
        ({"usd": "50"}, "usd"),
        ({"usd": True}, "usd"),
        ({"usd": 1, "per": "hour"}, "per"),
        ({"usd": 1, "per": None}, "per"),
        ({"usd": 1, "by": "user_id"}, "by"),
        ({"usd": 1, "by": "metadata."}, "by"),
        ({"usd": 1, "by": "metadata.$where"}, "by"),
        ({"usd": 1, "by": "metadata.a.b"}, "by"),
        ({"usd": 1, "by": 5}, "by"),
        ({"usd": 1, "by": ("metadata.a",)}, "by"),
    ],
)
def test_a_budget_that_is_none_is_refused(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidBudgetError, match=says):
        Budget(**arguments)


@pytest.mark.parametrize(
    ("per", "day", "since", "until"),
    [
        ("day", "2026-12-31", "2026-12-31", "2027-01-01"),
        ("week", "2026-11-29", "2026-11-23", "2026-11-30"),
        ("week", "2026-11-30", "2026-11-30", "2026-12-07"),
        ("month", "2028-02-29", "2028-02-01", "2028-03-01"),
        ("month", "2026-12-31", "2026-12-01", "2027-01-01"),
        ("year", "2026-12-31", "2026-01-01", "2027-01-01"),
    ],
)
def test_periods_are_those_of_the_calendar(per: Any, day: str, since: str, until: str) -> None:
    found = Budget(usd=1, per=per).period(date.fromisoformat(day))
    assert found == (date.fromisoformat(since), date.fromisoformat(until))


async def test_what_is_asked_of_no_subject_is_refused(store: BeanieSessionStore) -> None:
    wrong: list[tuple[Any, Any]] = [
        (MONTHLY, None),
        (MONTHLY, ["u1"]),
        (MONTHLY, {"$gt": ""}),
        (Budget(usd=1), "u1"),
        (Budget(usd=1, by="project_key"), 5),
        (50, "u1"),
        (None, None),
    ]
    for budget, subject in wrong:
        with pytest.raises(InvalidBudgetError):
            await store.spent(budget, subject)
    with pytest.raises(InvalidBudgetError):
        async with store.watch_budget(MONTHLY, None):  # type: ignore[arg-type]
            pass


async def test_a_subject_has_spent_what_its_sessions_did(store: BeanieSessionStore) -> None:
    await of("u1").append(named("a"), [message(), spends(0.5)])
    await of("u1").append(named("b", "other"), [message(), spends(0.25), account(0.4)])
    await of("u2").append(named("c"), [message(), spends(5)])
    await BeanieSessionStore(tenant="other", metadata={"user_id": "u1"}).append(
        named("d"), [message(), spends(5)]
    )
    spent = await store.spent(MONTHLY, "u1")
    # Of the one with an account that, for it is the larger; of the other the estimate.
    assert spent.usd == pytest.approx(0.9)
    assert (spent.own_usd, spent.estimated_usd) == (pytest.approx(0.4), pytest.approx(0.75))
    assert (spent.is_passed, spent.left_usd) == (False, pytest.approx(0.1))
    assert (await store.spent(MONTHLY, "u2")).is_passed
    assert (await store.spent(MONTHLY, "u2")).left_usd == 0
    nobody = await store.spent(MONTHLY, "u3")
    assert (nobody.usd, nobody.own_usd, nobody.estimated_usd) == (0, None, 0)
    assert (await store.spent(Budget(usd=1))).usd == pytest.approx(5.9)
    by_project = Budget(usd=1, by="project_key")
    assert (await store.spent(by_project, "other")).usd == pytest.approx(0.4)


async def test_only_the_period_counts(store: BeanieSessionStore) -> None:
    first, _ = MONTHLY.period(TODAY)
    before = first - timedelta(days=1)
    await of("u1").append(named("a"), [message(), spends(3, before), spends(0.5)])
    assert (await store.spent(MONTHLY, "u1")).usd == pytest.approx(0.5)
    daily = Budget(usd=1, per="day", by="metadata.user_id")
    await of("u1").append(named("b"), [message(), spends(0.25, TODAY - timedelta(days=1))])
    assert (await store.spent(daily, "u1")).usd == pytest.approx(0.5)


async def test_a_model_without_a_price_is_told(store: BeanieSessionStore) -> None:
    await of("u1").append(named("a"), [message(), answer("acme", day=str(TODAY)), spends(0.5)])
    spent = await store.spent(MONTHLY, "u1")
    assert (spent.usd, spent.unpriced) == (pytest.approx(0.5), ("acme",))


async def test_a_question_reads_the_tenants_active_sessions_or_the_subjects(
    store: BeanieSessionStore, database: Database
) -> None:
    rows = database["claude_transcript_summaries"]
    for number in range(30):
        await of(f"u{number % 10}").append(named(f"s{number}"), [message(), spends(0.1)])
    # Sessions of another time are not looked at.
    long_ago = datetime(2020, 1, 1, tzinfo=timezone.utc)
    query = {"session_id": {"$in": [f"s{number}" for number in range(20)]}}
    await rows.update_many(query, {"$set": {"active_at": long_ago}})
    assert await examined(store, database, "u3") == ("session_activity", 10)
    keys = [("tenant", 1), ("metadata.user_id", 1), ("active_at", -1)]
    await rows.create_index(keys, name="spending")
    assert await examined(store, database, "u3") == ("spending", 1)


async def examined(store: BeanieSessionStore, database: Database, subject: str) -> tuple[str, int]:
    """Which index the question used, and how many documents it looked at, as the server says."""
    await database.command("profile", 2)
    await store.spent(MONTHLY, subject)
    await database.command("profile", 0)
    asked = {"command.aggregate": "claude_transcript_summaries"}
    found = await database["system.profile"].find_one(asked, sort=[("ts", -1)])
    assert found is not None
    await database.drop_collection("system.profile")
    return index_of(found), found["docsExamined"]


def index_of(found: dict[str, Any]) -> str:
    return "spending" if "metadata.user_id" in found["planSummary"] else "session_activity"


@pytest.fixture(autouse=True)
def _looks_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget_watch, "LOOK_SECONDS", 0)


class Told:
    """What a function was told."""

    def __init__(self, failures: int = 0) -> None:
        self.all: list[Spending] = []
        self._failures = failures
        self._came = asyncio.Event()

    async def __call__(self, spent: Spending) -> None:
        self.all.append(spent)
        self._came.set()
        if self._failures:
            self._failures -= 1
            raise RuntimeError("no mail today")

    async def until(self, count: int) -> None:
        async def wait() -> None:
            while len(self.all) < count:
                self._came.clear()
                await self._came.wait()

        await asyncio.wait_for(wait(), WATCHDOG_SECONDS)

    @property
    def subjects(self) -> list[Any]:
        return [spent.subject for spent in self.all]


async def test_a_passed_budget_is_told_once_for_each_subject(store: BeanieSessionStore) -> None:
    told = Told()
    async with store.watch_budget(MONTHLY, told):
        await of("u1").append(named("a"), [message(), spends(0.75)])
        await of("u1").append(named("b"), [message(), spends(0.75)])
        await told.until(1)
        for number in range(5):
            await of("u1").append(named(f"more{number}"), [message(), spends(1)])
        await BeanieSessionStore().append(named("nobody"), [message(), spends(9)])
        await of(["no", "subject"]).append(named("list"), [message(), spends(9)])
        await of("u2").append(named("c"), [message(), spends(1)])
        await told.until(2)
    assert told.subjects == ["u1", "u2"]
    assert told.all[0].is_passed
    assert told.all[0].since == TODAY.replace(day=1)


async def test_nobody_is_told_again_after_a_restart_or_by_another_process(
    store: BeanieSessionStore, database: Database
) -> None:
    first, second = Told(), Told()
    async with store.watch_budget(MONTHLY, first), of("x").watch_budget(MONTHLY, second):
        await of("u1").append(named("a"), [message(), spends(2)])
        await until(lambda: counted(database, 1))
        await of("u2").append(named("b"), [message(), spends(2)])
        await until(lambda: counted(database, 2))
        await until(lambda: all_told(first, second, 2))
    assert sorted([*first.subjects, *second.subjects]) == ["u1", "u2"]
    third = Told()
    async with store.watch_budget(MONTHLY, third):
        await of("u1").append(named("a"), [spends(2)])
        await of("u3").append(named("c"), [message(), spends(2)])
        await third.until(1)
    assert third.subjects == ["u3"]
    marks = await database[PASSED_BUDGETS].find().to_list(None)
    assert not any(name in str(marks) for name in ("u1", "u2", "u3", "user_id", "default"))


async def all_told(first: Told, second: Told, count: int) -> bool:
    return len(first.all) + len(second.all) >= count


async def counted(database: Database, count: int) -> bool:
    return await database[PASSED_BUDGETS].count_documents({}) >= count


async def until(is_so: Callable[[], Awaitable[bool]]) -> None:
    async def wait() -> None:
        while not await is_so():  # noqa: ASYNC110 - the database says it, and calls nobody
            await asyncio.sleep(0.01)

    await asyncio.wait_for(wait(), WATCHDOG_SECONDS)


async def test_another_budget_or_tenant_is_told_apart(store: BeanieSessionStore) -> None:
    small, large, other = Told(), Told(), Told()
    theirs = BeanieSessionStore(tenant="theirs", metadata={"user_id": "u1"})
    async with (
        store.watch_budget(MONTHLY, small),
        store.watch_budget(Budget(usd=5, by="metadata.user_id"), large),
        theirs.watch_budget(MONTHLY, other),
    ):
        await of("u1").append(named("a"), [message(), spends(2)])
        await theirs.append(named("a"), [message(), spends(3)])
        await small.until(1)
        await other.until(1)
        assert not large.all
        await of("u1").append(named("a"), [spends(4)])
        await large.until(1)
    assert [len(each.all) for each in (small, large, other)] == [1, 1, 1]
    assert other.all[0].usd == pytest.approx(3)


async def test_a_function_that_failed_is_called_again(
    store: BeanieSessionStore, caplog: pytest.LogCaptureFixture
) -> None:
    told = Told(failures=1)
    async with store.watch_budget(MONTHLY, told):
        await of("u1").append(named("a"), [message(), spends(2)])
        await told.until(1)
        await of("u1").append(named("a"), [spends(2)])
        await told.until(2)
    assert told.subjects == ["u1", "u1"]
    assert "on_passed function failed" in caplog.text


async def test_a_function_that_is_cut_off_is_called_again(
    store: BeanieSessionStore, database: Database
) -> None:
    began = asyncio.Event()

    async def cut_off(spent: Spending) -> None:
        began.set()
        await asyncio.Event().wait()

    async with store.watch_budget(MONTHLY, cut_off):
        await of("u1").append(named("a"), [message(), spends(2)])
        await asyncio.wait_for(began.wait(), WATCHDOG_SECONDS)
    assert await database[PASSED_BUDGETS].count_documents({}) == 0
    told = Told()
    async with store.watch_budget(MONTHLY, told):
        await of("u1").append(named("a"), [spends(2)])
        await told.until(1)


async def test_a_watch_ends_though_a_cancellation_is_swallowed(
    store: BeanieSessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cancellation, "_AGAIN_SECONDS", 0.01)
    began = asyncio.Event()

    async def stubborn(spent: Spending) -> None:
        began.set()
        # As what it awaits may do before Python 3.12.
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    async def watch() -> None:
        async with store.watch_budget(MONTHLY, stubborn):
            await of("u1").append(named("a"), [message(), spends(2)])
            await began.wait()

    await asyncio.wait_for(watch(), WATCHDOG_SECONDS)


@pytest.mark.parametrize(
    "failure",
    [
        {"errorCode": 8000},
        # It was stored, and the answer says that it may not hold.
        {"writeConcernError": {"code": 100, "errmsg": "no majority"}},
    ],
)
async def test_what_cannot_be_noted_is_told_when_it_can(
    store: BeanieSessionStore,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    failure: dict[str, Any],
) -> None:
    monkeypatch.setattr(budget_watch, "_AGAIN_SECONDS", 0)
    told = Told()
    where = f"{database.name}.{PASSED_BUDGETS}"
    async with (
        failing(database, "insert", namespace=where, **failure) as failed,
        store.watch_budget(MONTHLY, told),
    ):
        await of("u1").append(named("a"), [message(), spends(2)])
        await failed(1)
        await told.until(1)
        await of("u1").append(named("a"), [spends(2)])
        await of("u2").append(named("b"), [message(), spends(2)])
        await told.until(2)
    assert told.subjects == ["u1", "u2"]


async def test_no_change_is_passed_over_when_a_look_at_it_fails(
    store: BeanieSessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget_watch, "_AGAIN_SECONDS", 0)
    ask, failures = budget_watch.BudgetWatch._subject_of, [ServerError("away")]

    async def once_away(watch: Any, *session: str) -> Any:
        if failures:
            raise failures.pop()
        return await ask(watch, *session)

    monkeypatch.setattr(budget_watch.BudgetWatch, "_subject_of", once_away)
    told = Told()
    async with store.watch_budget(MONTHLY, told):
        await of("u1").append(named("a"), [message(), spends(2)])
        await told.until(1)
    assert told.subjects == ["u1"]


async def test_a_tenants_budget_is_looked_at_from_the_start(store: BeanieSessionStore) -> None:
    await store.append(KEY, [message(), spends(2)])
    told = Told()
    async with store.watch_budget(Budget(usd=1), told.__call__):
        await told.until(1)
    assert told.subjects == [None]


async def test_marks_of_ended_periods_are_swept(
    store: BeanieSessionStore, database: Database
) -> None:
    marks = database[PASSED_BUDGETS]
    ended = datetime(2020, 1, 1, tzinfo=timezone.utc)
    await marks.insert_many(
        [{"_id": "old", "ends": ended}, {"_id": "new", "ends": datetime(2999, 1, 1)}]
    )
    async with store.watch_budget(MONTHLY, Told()):
        assert [each["_id"] for each in await marks.find().to_list(None)] == ["new"]


async def test_a_server_without_a_feed_is_refused(standalone_database: Database) -> None:
    store = BeanieSessionStore.on(standalone_database)
    with pytest.raises(StandaloneError):
        async with store.watch_budget(MONTHLY, Told()):
            pass
