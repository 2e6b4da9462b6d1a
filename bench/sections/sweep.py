"""Dates, holds and deletes of sessions that hold much: what a caller waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from statistics import median
from typing import Any, NamedTuple

from bson import ObjectId
from bson.int64 import Int64
from claude_agent_sdk import SessionKey
from pymongo import AsyncMongoClient

from beanie_session_store import BeanieSessionStore, EmbeddedMongo, set_retention
from beanie_session_store.app.storage.background import SessionWork, go_on, gone_on, stop
from beanie_session_store.app.transcript_key import TranscriptKey
from beanie_session_store.app.writing.dating import follow
from beanie_session_store.app.writing.remains import sweep

from ..entries import TURN_ENTRIES, EntrySource
from ..measures import Ratio, Samples, elapsed, ratio
from ..plan import Plan, Size
from ..results import Section, Verdict, spread

_DATABASE = "sweep"
_ENTRIES, _SUMMARIES = "claude_transcript_entries", "claude_transcript_summaries"
_INSERTED_AT_ONCE = 5_000
_KEEP = timedelta(days=30)
# A million take their time, in which nobody waits for them.
_WAITED_FOR = 20_000
_MORE_MS = 50.0
_VISIBLE_MS = 1000.0
# Of an append beside a sweep, for it shares the server.
_SLOWED = 1.5
_WINDOWS = 5


class _Beside(NamedTuple):
    """Others' appends while something goes on, and in turns with them while it does not."""

    beside: Samples
    alone: Samples


@dataclass(frozen=True)
class _Round:
    """What was measured of one session, from its first append to its end."""

    usual: Samples
    moved: Samples
    hold: float
    delete: float
    others: Mapping[str, _Beside]
    """By what goes on meanwhile."""
    rest: float | None
    """Until nothing is left, if that was waited for."""


async def run(plan: Plan) -> Section:
    """Measure what callers wait for, and what others do meanwhile."""
    sizes = {20_000: 3, 200_000: 2, 1_000_000: 1}
    if plan.size is Size.QUICK:
        sizes = {2_000: 1}
    appends = plan.pick(quick=5, default=200)
    section = Section(
        title="Dates, holds and deletes of large sessions",
        note=(
            "Milliseconds by the clock, one replica set member, a policy of 30 days; appends are "
            f"of {TURN_ENTRIES} entries, median (p10 to p90) over all rounds. Others' appends go "
            "to the session that stands before this one in the index, which a sweep concerns "
            "most, from the same process; in turns with them the work is cut off, and appends go "
            "to a session elsewhere."
        ),
        columns=["entries stored", "what", "ms"],
    )
    with EmbeddedMongo() as mongo:
        source = EntrySource()
        async with BeanieSessionStore.connect(mongo.url, database=_DATABASE) as store:
            client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(mongo.url)
            database = client[_DATABASE]
            await set_retention(database, _KEEP)
            for stored, count in sizes.items():
                rounds: list[_Round] = []
                for number in range(count):
                    plan.say(f"sweep: a session of {stored:,} entries, round {number + 1}")
                    rounds.append(await _measure(store, database, source, stored, number, appends))
                _report(section, stored, rounds, plan)
            await client.close()
    return section


async def _measure(
    store: BeanieSessionStore,
    database: Any,
    source: EntrySource,
    stored: int,
    number: int,
    appends: int,
) -> _Round:
    # An insert looks for what stands behind it, and goes over what was deleted there. Behind all
    # that earlier rounds have left, the order of the index is that of these names.
    far, beside, key = (
        SessionKey(project_key="-srv-app", session_id=f"{stored:09}-{number}-{name}")
        for name in ("a", "b", "c")
    )
    session = TranscriptKey.parse("default", key)
    for each in (far, beside, key):
        await store.append(each, source.batch(TURN_ENTRIES))
    await _fill(database, key, stored)
    connection = await store._connection()

    async def others(work: SessionWork) -> _Beside:
        found: dict[str, list[float]] = {"beside": [], "alone": []}
        for number in range(_WINDOWS):
            for what in ("beside", "alone") if number % 2 else ("alone", "beside"):
                # What is cut off goes on later from where it was.
                await stop(connection.client)
                if what == "beside":
                    go_on(connection, session, work)
                place = beside if what == "beside" else far
                found[what] += (await _appends(store, place, source, appends // _WINDOWS)).values
        return _Beside(Samples(tuple(found["beside"])), Samples(tuple(found["alone"])))

    usual = await _appends(store, key, source, appends)
    moving: list[float] = []
    for _ in range(max(appends // 4, 3)):
        # As if a fifth of the period had gone by since the last append.
        await _make_due(database, key)
        batch = source.batch(TURN_ENTRIES)
        await BeanieSessionStore().append(key, source.batch(1))
        await _make_due(database, key)
        moving.append(await elapsed(lambda batch=batch: BeanieSessionStore().append(key, batch)))
    found = {"while dates are moved": await others(follow)}
    hold = await elapsed(lambda: store.hold(key))
    found["while a hold is finished"] = await others(follow)
    # The entries' dates are still on their way when the session goes.
    delete = await elapsed(lambda: store.delete(key))
    if await store.load(key) is not None:
        raise AssertionError("a deleted session was loaded")
    found["while remains are swept"] = await others(sweep)
    rest = None
    if stored <= _WAITED_FOR:
        go_on(connection, session, sweep)
        rest = await elapsed(gone_on)
    else:
        await stop(connection.client)
    return _Round(usual, Samples(tuple(moving)), hold, delete, found, rest)


def _report(section: Section, stored: int, rounds: Sequence[_Round], plan: Plan) -> None:
    usual, moved = _all(each.usual for each in rounds), _all(each.moved for each in rounds)
    hold, delete = max(each.hold for each in rounds), max(each.delete for each in rounds)
    rows = {
        "usual append": spread(usual),
        "append that moves the date": spread(moved),
        "hold, at most": f"{hold:,.0f}",
        "delete, until readers see nothing, at most": f"{delete:,.0f}",
    }
    slowed: dict[str, Ratio] = {}
    for what in rounds[0].others:
        beside = _all(each.others[what].beside for each in rounds)
        alone = _all(each.others[what].alone for each in rounds)
        slowed[what] = ratio(beside, alone)
        rows[f"another session's append {what}"] = spread(beside)
        rows[f"... and in turns with it, alone ({what})"] = spread(alone)
    rests = [each.rest for each in rounds if each.rest is not None]
    if rests:
        rows["until nothing is left in the database"] = f"{median(rests):,.0f}"
    for what, found in rows.items():
        plan.say(f"sweep: {what}: {found}")
    section.rows += [[f"{stored:,}", what, found] for what, found in rows.items()]
    more = moved.median - usual.median
    worst = max(slowed.values(), key=lambda each: each.value)
    at = f"at {stored:,} entries"
    section.verdicts += [
        Verdict(
            f"an append that moves the date {at}: within 50 ms of a usual one",
            f"{more:+.1f} ms",
            more <= _MORE_MS,
        ),
        Verdict(f"hold {at}: below 1 s", f"{hold:,.0f} ms", hold <= _VISIBLE_MS),
        Verdict(
            f"visible part of delete {at}: below 1 s", f"{delete:,.0f} ms", delete <= _VISIBLE_MS
        ),
        Verdict(
            f"others' appends beside a sweep {at}: at most {_SLOWED} times as long",
            str(worst),
            worst.value <= _SLOWED,
        ),
    ]


def _all(samples: Iterable[Samples]) -> Samples:
    return Samples(tuple(value for each in samples for value in each.values))


async def _fill(database: Any, key: SessionKey, stored: int) -> None:
    """Put small entries into a session, past the store, for a million take it an hour."""
    entries, summaries = database[_ENTRIES], database[_SUMMARIES]
    query = {"project_key": key["project_key"], "session_id": key["session_id"]}
    like = await entries.find_one(query)
    summary = await summaries.find_one(query)
    common = {k: v for k, v in like.items() if k not in ("_id", "seq", "uuid", "entry")}
    begin = summary["next_seq"]
    for start in range(begin, begin + stored, _INSERTED_AT_ONCE):
        await entries.insert_many(
            [
                {**common, "_id": ObjectId(), "seq": Int64(seq), "entry": {"type": "x", "n": seq}}
                for seq in range(start, min(start + _INSERTED_AT_ONCE, begin + stored))
            ],
            ordered=False,
        )
    end = begin + stored
    positions = {"next_seq": end, "totals.next_seq": end, "backstop.next_seq": end}
    await summaries.update_one(query, {"$set": positions})


async def _make_due(database: Any, key: SessionKey) -> None:
    """Date a session and its entries' floor earlier, so that the next append moves both."""
    summaries = database[_SUMMARIES]
    query = {"project_key": key["project_key"], "session_id": key["session_id"]}
    row = await summaries.find_one(query)
    earlier = row["expires_at"] - _KEEP * 0.2
    await summaries.update_one(query, {"$set": {"expires_at": earlier}})


async def _appends(
    store: BeanieSessionStore, key: SessionKey, source: EntrySource, count: int
) -> Samples:
    found: list[float] = []
    for _ in range(count):
        batch = source.batch(TURN_ENTRIES)
        found.append(await elapsed(lambda batch=batch: store.append(key, batch)))
        await asyncio.sleep(0)
    return Samples(tuple(found))
