"""Sessions expire whole, by inactivity, and no sooner and no later than promised."""

from __future__ import annotations

import asyncio
import random
import subprocess
import time
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from support.entries import KEY, SUBAGENT, assert_summary_is_the_fold, message, turn
from support.processes import PREPARED
from support.server import without_expiry
from support.watchdog import WATCHDOG_SECONDS

from beanie_session_store import (
    EVERY,
    BeanieSessionStore,
    EntryChunk,
    InvalidKeyError,
    InvalidRetentionError,
    RetentionPolicy,
    SchemaOutdatedError,
    SessionSummary,
    TranscriptEntry,
    UnknownSessionError,
    downgrade_schema,
    retention_policies,
    set_retention,
    upgrade_schema,
)
from beanie_session_store.app.database.driver import Database, collection_of
from beanie_session_store.app.retention.ending_sessions import ending_sessions
from beanie_session_store.app.storage.background import gone_on
from beanie_session_store.app.storage.expiry import read_retention
from beanie_session_store.app.transcript_key import TranscriptKey

# One pass of MongoDB's own TTL monitor, which the test servers run every second, and its work.
TTL_PASS = 3.0


pytestmark = pytest.mark.usefixtures("quick_policies")


async def dates() -> set[datetime | None]:
    """The dates of expiry of everything that is stored."""
    found: set[datetime | None] = set()
    for model in (TranscriptEntry, SessionSummary, EntryChunk):
        found |= {document.expires_at async for document in model.find_all()}
    return found


async def session_dates() -> set[datetime | None]:
    """The dates by which sessions expire, once the entries' own are known to be later."""
    found: set[datetime | None] = set()
    async for summary in SessionSummary.find_all():
        await assert_entries_outlive(summary)
        found.add(summary.expires_at)
    return found


async def assert_entries_outlive(summary: SessionSummary) -> None:
    """MongoDB never takes a part of a session that lives, whatever is killed from now on."""
    if summary.expires_at is None:
        return
    owner = {name: getattr(summary, name) for name in ("tenant", "project_key", "session_id")}
    for model in (TranscriptEntry, EntryChunk):
        async for document in model.find(owner):
            assert document.expires_at is not None
            assert document.expires_at >= summary.expires_at


async def is_swept() -> bool:
    return not [
        model
        for model in (TranscriptEntry, SessionSummary, EntryChunk)
        if await model.find_all().count()
    ]


async def until(condition: Any, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if await condition():
            return True
        await asyncio.sleep(0.1)
    return False


class LateError(Exception):
    """The machine was so busy that the session may have expired meanwhile."""


class Life:
    """A session that something is appended to before its period is over, or :class:`LateError`."""

    def __init__(self, number: int, period: float) -> None:
        self.key = {**KEY, "session_id": f"session-{number}"}
        self.subagent = {**self.key, "subpath": "subagents/agent-a1"}
        self.written: list[dict[str, Any]] = []
        self._period = period
        self._last = time.monotonic()

    async def append(self, store: BeanieSessionStore, batch: list[Any]) -> None:
        began = time.monotonic()
        await store.append(self.key, batch)
        self.require_time()
        self._last = began
        self.written += batch

    async def append_to_subagent(self, store: BeanieSessionStore, batch: list[Any]) -> None:
        began = time.monotonic()
        await store.append(self.subagent, batch)
        self.require_time()
        self._last = began

    async def load(self, store: BeanieSessionStore) -> list[Any] | None:
        loaded = await store.load(self.key)
        self.require_time()
        return loaded

    @property
    def is_late(self) -> bool:
        return time.monotonic() - self._last > self._period

    def require_time(self) -> None:
        if self.is_late:
            raise LateError


async def lived(period: float, live: Callable[[Life], Awaitable[None]]) -> Life:
    """A session that was in time, after others that were not."""
    for number in range(50):
        life = Life(number, period)
        try:
            await live(life)
        except (LateError, AssertionError):
            if not life.is_late:
                raise
        else:
            return life
    raise AssertionError("no session was in time")


async def test_without_a_policy_nothing_has_a_date(store: BeanieSessionStore) -> None:
    await store.append(KEY, turn(1))
    assert await dates() == {None}


async def test_a_policy_that_was_read_before_it_changed_is_not_remembered(
    store: BeanieSessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("beanie_session_store.app.storage.expiry.CACHE_SECONDS", 60.0)
    has_read, may_answer = asyncio.Event(), asyncio.Event()

    async def slow(*arguments: Any) -> Any:
        found = await read_retention(*arguments)
        has_read.set()
        await may_answer.wait()
        return found

    monkeypatch.setattr("beanie_session_store.app.storage.expiry.read_retention", slow)
    connection = await store._connection()
    key = TranscriptKey.parse(store.tenant, KEY)
    reading = asyncio.create_task(connection.retention_of(key))
    await has_read.wait()
    policy = {"tenant": store.tenant, "project_key": key.project_key, "keep_seconds": 60}
    await connection.policies.collection.insert_one(policy)
    connection.retentions.clear()
    may_answer.set()
    assert (await reading).keep is None
    assert (await connection.retention_of(key)).keep == timedelta(seconds=60)


async def test_an_idle_session_disappears_whole(
    store: BeanieSessionStore, database: Database, smaller_limits: int
) -> None:
    period = 3.0
    await set_retention(database, timedelta(seconds=period))
    noise = random.Random(1).randbytes(18_000_000 // smaller_limits)

    async def live(life: Life) -> None:
        await life.append(store, turn(1))
        await life.append_to_subagent(store, turn(2))
        await life.append(store, [message(noise.hex())])
        assert len(await life.load(store) or []) == 7

    # Nobody comes by; MongoDB takes what is left, but not before this was seen.
    async with without_expiry(database):
        life = await lived(period, live)
        assert len(await session_dates()) >= 1

        async def is_gone() -> bool:
            return await store.load(life.key) is None

        assert await until(is_gone, WATCHDOG_SECONDS)
        assert await store.list_sessions("project") == []
        found = TranscriptEntry.find({"session_id": life.key["session_id"]})
        assert await found.count() == 13
    assert await until(is_swept, WATCHDOG_SECONDS)


async def test_an_active_session_never_loses_its_first_entry(
    store: BeanieSessionStore, database: Database
) -> None:
    period = 3.0
    await set_retention(database, timedelta(seconds=period))

    async def live(life: Life) -> None:
        for number in range(8):
            await life.append(store if number % 2 else BeanieSessionStore(), turn(number))
            assert await life.load(store) == life.written
            await asyncio.sleep(0.5)
        await assert_summary_is_the_fold(store, life.key)

    await lived(period, live)


async def test_subagents_keep_the_session_alive_too(
    store: BeanieSessionStore, database: Database
) -> None:
    period = 3.0
    await set_retention(database, timedelta(seconds=period))

    async def live(life: Life) -> None:
        await life.append(store, turn(0))
        for number in range(5):
            await asyncio.sleep(0.8)
            await life.append_to_subagent(store, turn(number))
        assert await life.load(store) == life.written

    await lived(period, live)


async def test_a_session_is_dated_anew_at_most_once_per_tenth_of_its_period(
    store: BeanieSessionStore, database: Database
) -> None:
    await set_retention(database, timedelta(days=30))
    await store.append(KEY, turn(0))
    before = await session_dates()
    for number in range(1, 10):
        await store.append(KEY, turn(number))
    assert await session_dates() == before
    (date,) = before
    assert date is not None
    left = date.replace(tzinfo=timezone.utc) - datetime.now(timezone.utc)
    assert timedelta(days=30) < left <= timedelta(days=33)


async def test_an_append_moves_the_date_of_the_whole_session(
    store: BeanieSessionStore, database: Database
) -> None:
    await set_retention(database, timedelta(seconds=10))
    began = time.monotonic()
    await store.append(KEY, turn(1))
    await store.append(SUBAGENT, turn(2))
    (first,) = await session_dates()
    await asyncio.sleep(1.2)
    await BeanieSessionStore().append(SUBAGENT, turn(3))
    took = timedelta(seconds=time.monotonic() - began)
    (second,) = await session_dates()
    assert first is not None
    assert second is not None
    assert timedelta(seconds=1) < second - first < took + timedelta(seconds=1)


async def test_readers_and_writers_take_an_expired_session_for_gone_before_it_is_swept(
    store: BeanieSessionStore, database: Database
) -> None:
    """The TTL monitor is held up, as it is on a busy server."""
    await set_retention(database, timedelta(hours=1))
    await store.append(KEY, turn(1))
    await store.append(SUBAGENT, turn(2))
    async with without_expiry(database):
        past = datetime.now(timezone.utc) - timedelta(milliseconds=1)
        for model in (TranscriptEntry, SessionSummary):
            await collection_of(model).update_many({}, {"$set": {"expires_at": past}})
        for reader in (store, BeanieSessionStore()):
            assert await reader.load(KEY) is None
            assert [entry async for entry in reader.stream(KEY)] == []
            assert await reader.list_sessions("project") == []
            assert await reader.list_session_summaries("project") == []
            assert await reader.list_subkeys(KEY) == []
        with pytest.raises(UnknownSessionError):
            await store.hold(KEY)
        # The same entries as before, so that none of the old ones may count as stored.
        fresh = turn(1)
        await store.append(KEY, fresh)
        assert await store.load(KEY) == fresh
        assert await store.load(SUBAGENT) is None
        await gone_on()
        assert await TranscriptEntry.find_all().count() == 6
        await assert_summary_is_the_fold(store)


async def test_a_session_whose_summary_is_swept_first_starts_afresh(
    store: BeanieSessionStore, database: Database
) -> None:
    await set_retention(database, timedelta(hours=1))
    old = turn(1)
    await store.append(KEY, old)
    async with without_expiry(database):
        past = datetime.now(timezone.utc) - timedelta(seconds=1)
        await collection_of(TranscriptEntry).update_many({}, {"$set": {"expires_at": past}})
        await collection_of(SessionSummary).delete_many({})
        await BeanieSessionStore().append(KEY, old)
        assert await store.load(KEY) == old
        await gone_on()
        assert await TranscriptEntry.find_all().count() == 6


async def test_a_held_session_stays_and_goes_after_its_release(
    store: BeanieSessionStore, database: Database
) -> None:
    await set_retention(database, timedelta(hours=1))
    await store.append(KEY, turn(1))
    await store.hold(KEY)
    await store.append(KEY, turn(2))
    await set_retention(database, timedelta(seconds=1))
    await asyncio.sleep(1.1 + TTL_PASS)
    assert len(await store.load(KEY) or []) == 12
    assert await dates() == {None}
    released = time.monotonic()
    await store.release(KEY)
    loaded = await store.load(KEY)
    assert len(loaded or []) == 12 or time.monotonic() - released > 1
    assert await until(is_swept, WATCHDOG_SECONDS)


async def test_hold_and_release_name_a_session_that_is_not_there(
    store: BeanieSessionStore,
) -> None:
    for change in (store.hold, store.release):
        with pytest.raises(UnknownSessionError, match="session-of-nobody"):
            await change({"project_key": "project", "session_id": "session-of-nobody"})


async def test_the_most_specific_policy_holds(database: Database) -> None:
    day = timedelta(days=1)
    await set_retention(database, 40 * day)
    await set_retention(database, 30 * day, project_key="project")
    await set_retention(database, 20 * day, tenant="acme")
    await set_retention(database, 10 * day, tenant="acme", project_key="project")
    await set_retention(database, None, tenant="kept")
    expected = {
        ("other", "other"): 40,
        ("other", "project"): 30,
        ("acme", "other"): 20,
        ("acme", "project"): 10,
        ("kept", "project"): None,
    }
    for (tenant, project), days in expected.items():
        key = {"project_key": project, "session_id": "session"}
        await BeanieSessionStore(tenant=tenant).append(key, turn(1))
        summary = await SessionSummary.find_one({"tenant": tenant, "project_key": project})
        assert summary is not None
        if days is None:
            assert summary.expires_at is None
        else:
            assert summary.expires_at is not None
            left = summary.expires_at.replace(tzinfo=timezone.utc) - datetime.now(timezone.utc)
            assert days * day < left <= days * day * 1.1
    policies = await retention_policies(database)
    assert [(p["tenant"], p["project_key"]) for p in policies] == [
        (EVERY, EVERY),
        (EVERY, "project"),
        ("acme", EVERY),
        ("acme", "project"),
        ("kept", EVERY),
    ]
    assert await RetentionPolicy.find_all().count() == 5


async def test_a_changed_policy_dates_what_is_stored(
    store: BeanieSessionStore, database: Database
) -> None:
    for number in range(20):
        key = {"project_key": "project", "session_id": f"session-{number}"}
        await store.append(key, turn(number))
    await store.hold({"project_key": "project", "session_id": "session-7"})
    for days in (30, 90, 10):
        seen: list[Any] = []
        done = await set_retention(database, timedelta(days=days), on_progress=seen.append)
        assert done.sessions == 20
        assert max(progress.moved for progress in seen) == 19
        undated = 0
        async for summary in SessionSummary.find_all():
            await assert_entries_outlive(summary)
            if summary.expires_at is None:
                undated += 1
                assert summary.session_id == "session-7"
            else:
                kept = summary.expires_at - (summary.active_at or datetime.min)
                assert timedelta(days=days) < kept <= timedelta(days=days * 1.1)
        assert undated == 1
    await set_retention(database, None)
    assert await dates() == {None}


async def test_running_stores_follow_a_changed_policy(
    store: BeanieSessionStore, database: Database
) -> None:
    """A store elsewhere goes on with the old policy for a while; what it writes is dated too."""
    await set_retention(database, timedelta(days=90))
    await store.append(KEY, turn(0))
    change = asyncio.create_task(set_retention(database, timedelta(days=1)))
    number = 0
    # On a busy machine it may be done before.
    while not change.done() or number < 4:
        number += 1
        await store.append({**KEY, "session_id": f"session-{number}"}, turn(number))
        await store.append(KEY, turn(number))
        # Each is one more to be dated.
        await asyncio.sleep(0.01)
    await change
    await gone_on()
    latest = datetime.now(timezone.utc) + timedelta(days=1.1, seconds=1)
    assert all(
        date and date.replace(tzinfo=timezone.utc) < latest for date in await session_dates()
    )
    # What MongoDB may take by itself goes with the shorter period too.
    latest += timedelta(days=1.2)
    assert all(date and date.replace(tzinfo=timezone.utc) < latest for date in await dates())


async def test_appends_and_redating_at_once_keep_entries_behind_their_session(
    store: BeanieSessionStore, database: Database
) -> None:
    written: list[dict] = []

    async def write() -> None:
        for number in range(40):
            batch = turn(number)
            await (store if number % 3 else BeanieSessionStore()).append(KEY, batch)
            written.extend(batch)

    async def change() -> None:
        for days in (30, 1, None, 60):
            await set_retention(database, days and timedelta(days=days))

    await asyncio.gather(write(), change())
    assert await store.load(KEY) == written
    (date,) = await session_dates()
    assert date is not None
    assert date > datetime.now() + timedelta(days=59)
    await assert_summary_is_the_fold(store)


REDATING = """
import asyncio, sys
from datetime import timedelta
from beanie_session_store.app.retention import policies as retention
from beanie_session_store.app.storage import expiry
from beanie_session_store.app.storage.client import open_database
expiry.CACHE_SECONDS = retention.CACHE_SECONDS = 0.2

async def main(url, name, days):
    async with open_database(url, name) as database:
        await retention.set_retention(
            database,
            timedelta(days=int(days)),
            on_progress=lambda done: print(done.sessions, flush=True),
        )

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("sessions", "entries"),
    [(150, 3), pytest.param(1000, 200, marks=[pytest.mark.soak, pytest.mark.timeout(900)])],
)
async def test_redating_that_is_killed_goes_on_where_it_was(
    store: BeanieSessionStore, database: Database, mongo_url: str, sessions: int, entries: int
) -> None:
    await set_retention(database, timedelta(days=30))
    batch = [message(str(n)) for n in range(entries)]
    for first in range(0, sessions, 10):
        # Some at once, for those share their commits.
        names = [f"session-{number:04}" for number in range(first, first + 10)]
        keys = [{"project_key": "project", "session_id": name} for name in names]
        await asyncio.gather(*(store.append(key, batch) for key in keys))
    command = [PREPARED, "-c", REDATING, mongo_url, database.name, "90"]
    for _ in range(2):
        process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert await process.stdout.readline()
        process.kill()
        await process.wait()
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    output, _ = await process.communicate()
    assert process.returncode == 0
    assert int(output.split()[-1]) == sessions
    earliest = datetime.now(timezone.utc) + timedelta(days=89)
    found = await dates()
    assert all(date and date.replace(tzinfo=timezone.utc) > earliest for date in found)
    assert await TranscriptEntry.find_all().count() == sessions * entries


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.soak) for seed in (1, 2))]
)
async def test_sessions_are_kept_their_period_and_at_most_a_tenth_longer(
    store: BeanieSessionStore, database: Database, seed: int
) -> None:
    """Sessions with appends at random times; each is looked at all the time until it is gone."""
    period = 1.5
    await set_retention(database, timedelta(seconds=period))
    chance = random.Random(seed)
    lived: list[int] = []

    def is_over(last: float) -> bool:
        return time.monotonic() - last > period - 0.3

    async def live(number: int) -> None:
        key = {"project_key": "project", "session_id": f"session-{number}"}
        sub = {**key, "subpath": "subagents/agent-a1"}
        written = turn(number)
        last = time.monotonic()
        await store.append(key, written)
        ended = time.monotonic()
        for _ in range(chance.randrange(5)):
            pause = chance.uniform(0, period * 0.9)
            end = time.monotonic() + pause
            while time.monotonic() < end:
                assert await store.load(key) == written or is_over(last)
                await asyncio.sleep(0.05)
            batch = turn(chance.randrange(1000))
            to_main = chance.random() < 0.5
            started = time.monotonic()
            await store.append(key if to_main else sub, batch)
            if is_over(last):
                # On a busy machine another session has begun.
                return
            last, ended = started, time.monotonic()
            written = written + batch if to_main else written
        seen = ended
        while True:
            asked = time.monotonic()
            loaded = await store.load(key)
            if loaded is None:
                break
            assert loaded == written, "a reader saw a part of a session"
            seen = asked
            await asyncio.sleep(0.05)
        # When within the last append its time was taken is not known to either side.
        assert is_over(last)
        assert seen - ended < period * 1.1 + 1.0
        lived.append(number)

    await asyncio.gather(*(live(number) for number in range(8)))
    assert lived
    # What MongoDB takes by itself it takes at the entries' own date.
    assert await until(is_swept, WATCHDOG_SECONDS)


async def test_retention_is_refused_where_nothing_would_ever_expire(
    store: BeanieSessionStore, database: Database
) -> None:
    await store.append(KEY, turn(1))
    await downgrade_schema(database, to="20261123150000")
    with pytest.raises(SchemaOutdatedError, match="schema upgrade"):
        await set_retention(database, timedelta(days=1))
    await store.append(KEY, turn(2))
    assert await dates() == {None}
    await upgrade_schema(database)
    await set_retention(database, timedelta(days=1))
    assert None not in await dates()


@pytest.mark.parametrize("keep", [30, "30d", timedelta(0), timedelta(seconds=-1), 2.5])
async def test_a_time_that_is_none_is_refused(database: Database, keep: Any) -> None:
    with pytest.raises(InvalidRetentionError, match="nothing was changed"):
        await set_retention(database, keep)
    with pytest.raises(InvalidKeyError):
        await set_retention(database, timedelta(days=1), tenant={"$ne": None})  # type: ignore[arg-type]
    assert await retention_policies(database) == []


async def test_retention_works_without_transactions(
    standalone_database: Database,
) -> None:
    store = BeanieSessionStore()
    await set_retention(standalone_database, timedelta(hours=1))
    await store.append(KEY, turn(1))
    await store.hold(KEY)
    await set_retention(standalone_database, timedelta(seconds=1))
    assert await dates() == {None}
    await store.release(KEY)
    assert await until(is_swept, WATCHDOG_SECONDS)


async def test_two_creators_of_one_session_do_not_clear_each_other_away(
    database: Database,
) -> None:
    await set_retention(database, timedelta(days=1))
    for number in range(15):
        key = {"project_key": "project", "session_id": f"session-{number}"}
        stores = [BeanieSessionStore() for _ in range(4)]
        await asyncio.gather(*(store.append(key, turn(n)) for n, store in enumerate(stores)))
        assert len(await stores[0].load(key) or []) == 24
        await assert_summary_is_the_fold(stores[0], key)


async def test_without_a_policy_the_expiry_index_is_empty(
    store: BeanieSessionStore, database: Database
) -> None:
    async def indexed() -> int:
        checked = await database.command("validate", "claude_transcript_entries")
        return checked["keysPerIndex"]["transcript_expiry"]

    await store.append(KEY, [message(str(number)) for number in range(10)])
    assert await indexed() == 0
    await set_retention(database, timedelta(days=1))
    assert await indexed() == 10


@pytest.mark.parametrize("owner", [["default"], {"a": 1}, None, 7])
async def test_a_policy_of_nobody_ends_nothing(
    store: BeanieSessionStore, database: Database, owner: Any
) -> None:
    """Something else than the store wrote it."""
    policies = database["claude_retention_policies"]
    await policies.insert_many(
        [
            {"tenant": owner, "project_key": "*", "keep_seconds": 1},
            {"tenant": "default", "project_key": [owner, KEY["project_key"]]},
            {"tenant": "*", "project_key": "*", "keep_seconds": "soon"},
        ]
    )
    await store.append(KEY, turn(1))
    assert await dates() == {None}
    found = await retention_policies(database)
    assert len(found) == 3
    (of_all,) = [each for each in found if each["tenant"] is EVERY]
    assert (of_all["project_key"], of_all["keep_seconds"]) == (EVERY, "soon")
    assert await ending_sessions(database, timedelta(days=1)) == 0


async def test_what_a_hold_kept_until_now_would_not_end_at_once(
    store: BeanieSessionStore, database: Database
) -> None:
    await store.append(KEY, turn(1))
    long_ago = datetime.now(timezone.utc) - timedelta(days=40)
    summaries = collection_of(SessionSummary)
    await summaries.update_one({}, {"$set": {"active_at": long_ago, "held_at": long_ago}})
    assert await ending_sessions(database, timedelta(days=30)) == 0
    await store.release(KEY)
    # Its period has just begun anew.
    assert await ending_sessions(database, timedelta(days=30)) == 0
    await summaries.update_one({}, {"$unset": {"released_at": ""}})
    assert await ending_sessions(database, timedelta(days=30)) == 1
