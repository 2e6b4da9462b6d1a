"""Dates, holds and deletes of sessions that hold much: what a caller waits for."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from functools import partial
from typing import Any

from bson import ObjectId
from bson.int64 import Int64
from claude_agent_sdk import SessionKey
from pymongo import AsyncMongoClient

from beanie_session_store import BeanieSessionStore, EmbeddedMongo, set_retention
from beanie_session_store.app.storage.background import gone_on, stop

from ..entries import TURN_ENTRIES, EntrySource
from ..measures import Samples, elapsed
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


async def run(plan: Plan) -> Section:
    """Measure what callers wait for, and what others do meanwhile."""
    sizes = [2_000] if plan.size is Size.QUICK else [20_000, 200_000, 1_000_000]
    appends = plan.pick(quick=5, default=200)
    section = Section(
        title="Dates, holds and deletes of large sessions",
        note=(
            "Milliseconds by the clock, one replica set member, a policy of 30 days; appends are "
            f"of {TURN_ENTRIES} entries, median (p10 to p90). Others' appends go to another "
            "session of the same server, from the same process."
        ),
        columns=["entries stored", "what", "ms"],
    )
    with EmbeddedMongo() as mongo:
        source = EntrySource()
        async with BeanieSessionStore.connect(mongo.url, database=_DATABASE) as store:
            client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(mongo.url)
            database = client[_DATABASE]
            await set_retention(database, _KEEP)
            for stored in sizes:
                plan.say(f"sweep: a session of {stored:,} entries")
                await _measure(section, store, database, source, stored, appends, plan)
            await client.close()
    return section


async def _measure(
    section: Section,
    store: BeanieSessionStore,
    database: Any,
    source: EntrySource,
    stored: int,
    appends: int,
    plan: Plan,
) -> None:
    key, other = source.session(), source.session()
    await store.append(other, source.batch(TURN_ENTRIES))
    await store.append(key, source.batch(TURN_ENTRIES))
    await _fill(database, key, stored)
    alone = await _appends(store, other, source, appends)
    usual = await _appends(store, key, source, appends)
    moving: list[float] = []
    for _ in range(max(appends // 4, 3)):
        # As if a fifth of the period had gone by since the last append.
        await _make_due(database, key)
        batch = source.batch(TURN_ENTRIES)
        await BeanieSessionStore().append(key, source.batch(1))
        await _make_due(database, key)
        moving.append(await elapsed(lambda batch=batch: BeanieSessionStore().append(key, batch)))
    moved = Samples(tuple(moving))
    beside_move = await _appends(store, other, source, appends)
    hold = await elapsed(lambda: store.hold(key))
    beside_hold = await _appends(store, other, source, appends)
    # The entries' dates are still on their way when the session goes.
    delete = await elapsed(lambda: store.delete(key))
    if await store.load(key) is not None:
        raise AssertionError("a deleted session was loaded")
    beside_delete = await _appends(store, other, source, appends)
    plan.say(f"sweep: waiting for the remains of {stored:,} entries")
    client = (await store._connection()).client
    ended = gone_on if stored <= _WAITED_FOR else partial(stop, client)
    rest = await elapsed(ended)
    rows = {
        "usual append": spread(usual),
        "append that moves the date": spread(moved),
        "hold": f"{hold:,.0f}",
        "delete, until readers see nothing": f"{delete:,.0f}",
        "another session's append, alone": spread(alone),
        "... while dates are moved": spread(beside_move),
        "... while a hold is finished": spread(beside_hold),
        "... while remains are swept": spread(beside_delete),
    }
    if stored <= _WAITED_FOR:
        rows["until nothing is left in the database"] = f"{rest:,.0f}"
    for what, found in rows.items():
        plan.say(f"sweep: {what}: {found}")
    section.rows += [[f"{stored:,}", what, found] for what, found in rows.items()]
    more = moved.median - usual.median
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
    ]
    slowed = max(each.median for each in (beside_move, beside_hold, beside_delete)) / alone.median
    section.verdicts.append(
        Verdict(
            f"others' appends beside a sweep {at}: at most {_SLOWED} times as long",
            f"{slowed:.2f}",
            slowed <= _SLOWED,
        )
    )


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
