"""Appends of different sessions that meet in one process: one commit, and each by itself."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from typing import Any

import pymongo
import pytest
from beanie import init_beanie
from support.entries import marker, message, turn
from support.server import Commands, connected, failing

from beanie_session_store import (
    DOCUMENT_MODELS,
    BeanieSessionStore,
    SessionStoreError,
    settled,
    upgrade_schema,
)
from beanie_session_store.app.concurrency.cancellation import under_way
from beanie_session_store.app.database.driver import Database
from beanie_session_store.app.writing import shared_commits
from beanie_session_store.app.writing.shared_commits import SharedCommits

Entries = list[dict[str, Any]]
Groups = list[tuple[int, bool | str]]

FAILURES = [
    pytest.param({"errorCode": 20}, id="refused"),
    pytest.param({"errorCode": 112, "errorLabels": ["TransientTransactionError"]}, id="again"),
    pytest.param({"closeConnection": True}, id="connection"),
    pytest.param({"errorCode": 11602}, id="no-primary-any-more"),
]


def session(number: int, subpath: str = "") -> Any:
    key = {"project_key": "project", "session_id": f"s{number}"}
    return {**key, "subpath": subpath} if subpath else key


async def begun(store: BeanieSessionStore, count: int) -> dict[int, Entries]:
    """Sessions whose state the store knows, with what is stored of them."""
    stored = {number: turn(number) for number in range(count)}
    for number, entries in stored.items():
        await store.append(session(number), entries)
    return stored


@pytest.fixture
def groups(monkeypatch: pytest.MonkeyPatch) -> Groups:
    """How many appends were tried together, and whether they were stored, for each group."""
    found: Groups = []
    together = SharedCommits._together

    async def watched(self: SharedCommits, group: Any, attempts: Any) -> bool:
        try:
            is_stored = await together(self, group, attempts)
        except BaseException as error:
            found.append((len(group), type(error).__name__))
            raise
        found.append((len(group), is_stored))
        return is_stored

    monkeypatch.setattr(SharedCommits, "_together", watched)
    return found


async def append_all(
    store: BeanieSessionStore, stored: dict[int, Entries], numbers: Iterable[int] | None = None
) -> None:
    """A turn for each session at once, noted in ``stored``."""
    batches = {n: turn(len(stored[n])) for n in (stored if numbers is None else numbers)}
    await asyncio.gather(*(store.append(session(n), each) for n, each in batches.items()))
    for n, each in batches.items():
        stored[n] = stored[n] + each


async def assert_sound(store: BeanieSessionStore, expected: dict[int, Entries]) -> None:
    for number, entries in expected.items():
        assert await store.load(session(number)) == entries
        assert not (await store.verify(session(number))).differences


async def test_appends_that_meet_share_a_commit(mongo_url: str, database_name: str) -> None:
    commands = Commands()
    async with connected(mongo_url, event_listeners=[commands]) as client:
        await upgrade_schema(client[database_name])
        await init_beanie(database=client[database_name], document_models=DOCUMENT_MODELS)
        store = BeanieSessionStore()
        stored = await begun(store, 16)
        commands.sent.clear()
        await append_all(store, stored)
        sent = Counter(commands.names)
        # Two go at once, and the others together.
        assert 3 <= sent["commitTransaction"] <= 5
        assert sent["update"] == sent["insert"] == sent["commitTransaction"]
        assert sum(len(c["updates"]) for name, c in commands.sent if name == "update") == 16
        # One that is alone sends what it always did, at once.
        commands.sent.clear()
        await append_all(store, stored, [0])
        assert commands.names == ["update", "insert", "commitTransaction"]
        await assert_sound(store, stored)


async def test_stores_of_one_client_share(store: BeanieSessionStore, groups: Groups) -> None:
    stores = [BeanieSessionStore(tenant=f"tenant{n}") for n in range(12)]
    stored = [await begun(each, 1) for each in stores]
    await asyncio.gather(*map(append_all, stores, stored))
    assert sum(size for size, is_stored in groups if is_stored is True) >= 8
    for each, expected in zip(stores, stored, strict=True):
        assert await each.load(session(0)) == expected[0]


async def test_who_is_refused_is_refused_alone(store: BeanieSessionStore, groups: Groups) -> None:
    stored = await begun(store, 12)
    # What the store remembers of one session is not true any more; another's batch is stored.
    await append_all(BeanieSessionStore(), stored, [5])
    again = asyncio.ensure_future(store.append(session(6), stored[6][-6:]))
    await append_all(store, stored, [n for n in stored if n != 6])
    await again
    assert any(is_stored is False for _, is_stored in groups)
    await assert_sound(store, stored)


async def test_a_contended_session_is_left_out_for_a_while(
    store: BeanieSessionStore, groups: Groups
) -> None:
    stored = await begun(store, 12)
    other = BeanieSessionStore()
    for _ in range(4):
        await append_all(other, stored, [5])
        await append_all(store, stored)
    assert [is_stored for _, is_stored in groups].count(False) == 1
    await assert_sound(store, stored)


async def test_two_appends_to_one_session_never_go_together(
    store: BeanieSessionStore, groups: Groups
) -> None:
    stored = await begun(store, 6)
    writers = [store, BeanieSessionStore(), BeanieSessionStore()]
    for each in writers:
        await append_all(each, stored, [0])
    length = len(stored[0])
    others = (each.append(session(0), turn(9)) for each in writers[1:])
    await asyncio.gather(append_all(store, stored), *others)
    assert len(await store.load(session(0)) or []) == length + 3 * 6
    for number in range(6):
        assert not (await store.verify(session(number))).differences


@pytest.mark.parametrize("command", ["update", "insert", "commitTransaction"])
@pytest.mark.parametrize("failure", FAILURES)
async def test_a_failure_of_the_shared_transaction_is_nobodys(
    store: BeanieSessionStore,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    failure: dict[str, Any],
) -> None:
    stored = await begun(store, 10)
    tried: list[bool | str] = []

    async def failed(together: Awaitable[bool]) -> bool:
        async with failing(database, command, **failure):
            try:
                tried.append(await together)
            except BaseException as error:
                tried.append(type(error).__name__)
                raise
        assert isinstance(tried[-1], bool)
        return tried[-1]

    _around(monkeypatch, failed)
    await append_all(store, stored)
    # Only a commit that was not answered is sent again, and then it holds for all.
    assert tried == [command == "commitTransaction" and failure.get("errorCode") not in (20, 112)]
    await assert_sound(store, stored)


def _around(
    monkeypatch: pytest.MonkeyPatch, work: Callable[[Awaitable[bool]], Awaitable[bool]]
) -> None:
    """Let ``work`` await what stores a group, which is all but the first append."""
    monkeypatch.setattr(shared_commits, "_AT_ONCE", 1)
    together = SharedCommits._together

    async def watched(self: SharedCommits, group: Any, attempts: Any) -> bool:
        return await work(together(self, group, attempts))

    monkeypatch.setattr(SharedCommits, "_together", watched)


async def test_nobody_waits_for_more_than_two_transactions(
    store: BeanieSessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_commits, "_PATIENCE_SECONDS", 60.0)
    stored = await begun(store, 32)
    ended = 0
    waited: list[int] = []
    came: dict[int, int] = {}
    leave, next_group = SharedCommits._leave, SharedCommits._next_group

    def counted(self: SharedCommits, sessions: int) -> None:
        nonlocal ended
        ended += 1
        leave(self, sessions)
        for each in self._waiting:
            came.setdefault(id(each), ended - 1)

    def watched(self: SharedCommits) -> Any:
        group = next_group(self)
        # Who came since the last one ended is not noted yet.
        waited.extend(ended - came.pop(id(each), ended - 1) for each in group)
        return group

    monkeypatch.setattr(SharedCommits, "_leave", counted)
    monkeypatch.setattr(SharedCommits, "_next_group", watched)

    async def write(number: int) -> None:
        for _ in range(4):
            await append_all(store, stored, [number])

    await asyncio.gather(*map(write, stored))
    assert len(waited) > 64
    assert max(waited) <= 2
    await assert_sound(store, stored)


async def test_nobody_waits_for_long_behind_who_is_not_answered(
    store: BeanieSessionStore, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_commits, "_PATIENCE_SECONDS", 0.05)
    await begun(store, 5)
    ended: list[int] = []

    async def append(number: int) -> None:
        await store.append(session(number), turn(number))
        ended.append(number)

    block = {"blockConnection": True, "blockTimeMS": 2000}
    async with failing(database, "commitTransaction", {"times": 2}, **block):
        await asyncio.gather(*(append(n) for n in range(5)))
    assert set(ended[:3]) == {2, 3, 4}


@pytest.mark.parametrize("place", [1, 4], ids=["who-leads", "who-goes-along"])
async def test_who_is_cut_off_costs_no_other(
    store: BeanieSessionStore, database: Database, monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    stored = await begun(store, 8)
    batches = {n: turn(1) for n in stored}

    async def cut(together: Awaitable[bool]) -> bool:
        block = {"blockConnection": True, "blockTimeMS": 500}
        async with failing(database, "commitTransaction", **block) as met:
            storing = asyncio.ensure_future(together)
            await met(1)
            work[place].cancel()
            return await storing

    _around(monkeypatch, cut)
    appends = [asyncio.ensure_future(store.append(session(n), batches[n])) for n in stored]
    work: Sequence[asyncio.Task[None]] = ()
    while len(work) < len(stored):
        await asyncio.sleep(0)
        work = list(under_way())
    ended = await asyncio.gather(*appends, return_exceptions=True)
    assert [n for n, each in enumerate(ended) if each is not None] == [place]
    assert not await settled()
    # It may be stored or not, and is not stored again.
    await store.append(session(place), batches[place])
    await assert_sound(store, {n: entries + batches[n] for n, entries in stored.items()})


async def test_a_callers_own_time_is_nobody_elses(
    store: BeanieSessionStore, database: Database, groups: Groups
) -> None:
    stored = await begun(store, 8)

    async def hurried(number: int) -> None:
        with pymongo.timeout(0.2):
            await store.append(session(number), turn(1))

    block = {"blockConnection": True, "blockTimeMS": 400}
    async with failing(database, "commitTransaction", {"times": 8}, **block):
        hurry = [asyncio.ensure_future(hurried(n)) for n in range(4)]
        await append_all(store, stored, range(4, 8))
    ended = await asyncio.gather(*hurry, return_exceptions=True)
    # A commit whose time is over is not waited for any longer; on a busy machine, nor what is
    # before it.
    assert {type(each).__name__ for each in ended} <= {"UnreachableError", "SlowQueryError"}
    assert all(size <= 2 for size, _ in groups)
    for n in range(4, 8):
        assert await store.load(session(n)) == stored[n]


async def test_while_nobody_is_answered_none_waits_for_those_before(
    store: BeanieSessionStore, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_commits, "_PATIENCE_SECONDS", 0.2)
    waits = 0
    turn_of = SharedCommits._turn

    async def counted(self: SharedCommits, append: Any) -> Any:
        nonlocal waits
        waits += 1
        return await turn_of(self, append)

    stored = await begun(store, 6)
    monkeypatch.setattr(SharedCommits, "_turn", counted)
    block = {"blockConnection": True, "blockTimeMS": 3000}
    async with failing(database, "commitTransaction", {"times": 2}, **block) as met:
        stuck = asyncio.ensure_future(append_all(store, stored, range(2)))
        await met(2)
        await asyncio.sleep(0.3)
        for _ in range(5):
            await append_all(store, stored, [5])
        assert not stuck.done()
        await stuck
    assert waits == 1


async def test_a_commit_that_no_majority_confirmed_is_not_stored_twice(
    store: BeanieSessionStore, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_commits, "_AT_ONCE", 1)
    stored = await begun(store, 5)
    batches = {n: [marker(f"m{n}")] for n in stored}
    unconfirmed = {"code": 100, "codeName": "UnsatisfiableWriteConcern", "errmsg": "no majority"}
    async with failing(database, "commitTransaction", {"times": 2}, writeConcernError=unconfirmed):
        ended = await asyncio.gather(
            *(store.append(session(n), each) for n, each in batches.items()),
            return_exceptions=True,
        )
    assert {type(each).__name__ for each in ended} == {"ServerError"}
    assert all("not known" in str(each) for each in ended)
    for n, each in batches.items():
        await store.append(session(n), each)
    await assert_sound(store, {n: entries + batches[n] for n, entries in stored.items()})


async def test_who_holds_leases_shares_and_who_lost_one_costs_no_other(
    store: BeanieSessionStore, groups: Groups
) -> None:
    stored = await begun(store, 8)
    async with AsyncExitStack() as stack:
        leased = [
            await stack.enter_async_context(store.lease(session(n), owner=f"host-{n}"))
            for n in stored
        ]
        await asyncio.gather(*(each.append(session(n), turn(1)) for n, each in enumerate(leased)))
        assert sum(size for size, is_stored in groups if is_stored is True) >= 5
        await store.break_lease(session(3))
        groups.clear()
        ended = await asyncio.gather(
            *(each.append(session(n), turn(2)) for n, each in enumerate(leased)),
            return_exceptions=True,
        )
        assert any(is_stored is False for _, is_stored in groups)
        assert [type(each).__name__ for each in ended if each] == ["LeaseLostError"]
        assert ended[3] is not None
    for n in stored:
        assert len(await store.load(session(n)) or []) == (12 if n == 3 else 18)
        assert not (await store.verify(session(n))).differences


@pytest.mark.parametrize("seed", range(6))
async def test_whoever_meets_whatever_fails_each_is_stored_once_or_not(
    store: BeanieSessionStore, database: Database, seed: int
) -> None:
    await _any_company(store, database, seed, rounds=5)


@pytest.mark.soak
async def test_any_company_for_long(store: BeanieSessionStore, database: Database) -> None:
    for seed in range(100, 160):
        await _any_company(store, database, seed, rounds=8)


async def _any_company(
    store: BeanieSessionStore, database: Database, seed: int, rounds: int
) -> None:
    rng = random.Random(seed)
    tenant = f"t{seed}"
    store, other = BeanieSessionStore(tenant=tenant), BeanieSessionStore(tenant=tenant)
    stored = await begun(store, rng.randint(4, 14))
    last = dict(stored)
    subagents: dict[int, Entries] = {n: [] for n in stored}
    for number in range(rounds):
        writes: list[tuple[int, str, Entries, asyncio.Task[None]]] = []
        for n in stored:
            if rng.random() < 0.2:
                await append_all(other, stored, [n])
        (failure,) = rng.choice(FAILURES).values
        command = rng.choice(["update", "insert", "commitTransaction", "ping"])
        if command == "commitTransaction" and failure.get("errorCode") in (20, 112):
            # MongoDB never refuses that, and what it then leaves open is ended only after a while.
            command = "insert"
        mode = {"times": rng.randint(1, 3)}
        async with failing(database, command, mode, **failure):
            for n in stored:
                kind = rng.choice(["new", "new", "new", "again", "part", "subagent"])
                batch = [message("a"), marker(str(rng.random())), message("b")]
                if kind == "again":
                    batch = last[n]
                elif kind == "part":
                    batch = [*(e for e in stored[n][-6:] if "uuid" in e), *batch]
                key = session(n, "subagents/agent-a" if kind == "subagent" else "")
                task = asyncio.ensure_future(store.append(key, batch))
                writes.append((n, kind, batch, task))
            if rng.random() < 0.5:
                await asyncio.sleep(rng.uniform(0, 0.02))
                rng.choice(writes)[3].cancel()
            await asyncio.gather(*(task for *_, task in writes), return_exceptions=True)
        assert not await settled()
        for n, kind, batch, task in writes:
            is_certain = not task.cancelled() and task.exception() is None
            place = subagents if kind == "subagent" else stored
            key = session(n, "subagents/agent-a" if kind == "subagent" else "")
            if not is_certain:
                error = None if task.cancelled() else task.exception()
                assert error is None or isinstance(error, SessionStoreError)
                found = await store.load(key) or []
                # All of it or nothing, whatever was said.
                assert found in (place[n], place[n] + _unstored(place[n], batch)), (seed, n, kind)
                await store.append(key, batch)
            place[n] = place[n] + _unstored(place[n], batch)
            if kind in ("new", "part"):
                last[n] = batch
            assert (await store.load(key) or []) == place[n], (seed, number, n, kind)
    for n in stored:
        assert not (await store.verify(session(n))).differences


def _unstored(stored: Entries, batch: Entries) -> Entries:
    known = [entry.get("uuid") for entry in stored]
    if all("uuid" not in entry or entry["uuid"] in known for entry in batch):
        return []
    return [entry for entry in batch if "uuid" not in entry or entry["uuid"] not in known]
