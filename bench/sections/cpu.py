"""Processor time of this process per append: what a client pays on a machine it shares."""

from __future__ import annotations

from functools import partial

from bson import encode
from claude_agent_sdk import SessionKey, fold_session_summary

from beanie_session_store import EmbeddedMongo
from beanie_session_store.app.writing.count_marks import mark_elements
from beanie_session_store.models.counting.tally import Tally

from ..entries import TURN_ENTRIES, Entry, EntrySource
from ..measures import Turn, interleaved, processor_time, ratio
from ..peers.contender import Contender
from ..peers.mongodb_package import MongodbPackage
from ..peers.ours import Ours
from ..peers.pr1014 import PullRequest1014
from ..peers.same_writes import SameWrites
from ..plan import Plan
from ..results import Chart, Section, Verdict, spread

_APPENDS = 8
_LIMIT = 1.15


async def run(plan: Plan) -> Section:
    """Measure appends of one turn to sessions that each process wrote last."""
    rounds = plan.pick(quick=8, default=120)
    with EmbeddedMongo() as mongo:
        classes = (SameWrites, Ours, PullRequest1014, MongodbPackage)
        contenders = [await each.open(mongo.url, "cpu") for each in classes]
        source = EntrySource()
        plan.say(f"cpu: {rounds} rounds of {_APPENDS} appends for each of {len(contenders)}")
        turns = {each.name: _turn(each, source) for each in contenders}
        turns["the SDK's fold"] = _fold_turn(source)
        turns["counting it"] = _counting_turn(source)
        found = await interleaved(turns, rounds)
        for each in contenders:
            await each.close()
    base = found[SameWrites.name]
    section = Section(
        title=f"Client processor time per append of {TURN_ENTRIES} entries",
        note=(
            "Milliseconds of processor time of the client process, one replica set member, one "
            f"writer; a sample is the mean of {_APPENDS} appends of entries that were just parsed. "
            "The SDK's fold, which the store and both adapters run inside every append, is shown "
            "by itself too, and so is counting turns, responses and calls exactly."
        ),
        columns=["", "ms, median (p10 to p90)", f"ratio to {SameWrites.name} (95 % interval)"],
    )
    for name, samples in found.items():
        section.rows.append([name, spread(samples), str(ratio(samples, base))])
    ours = ratio(found[Ours.name], base)
    section.verdicts.append(
        Verdict(
            f"client CPU per append at most {_LIMIT} times {SameWrites.name}",
            str(ours),
            ours.value <= _LIMIT,
        )
    )
    section.charts.append(Chart("Client processor time per append of one turn", "ms", {"": found}))
    return section


def _turn(contender: Contender, source: EntrySource) -> Turn:
    key = source.session()

    async def turn() -> float:
        # Each is parsed just before it is appended, as what the agent writes is.
        times = [
            await processor_time(partial(contender.append, key, source.batch(TURN_ENTRIES)))
            for _ in range(_APPENDS)
        ]
        return sum(times) / _APPENDS

    return turn


def _counting_turn(source: EntrySource) -> Turn:
    totals = Tally()
    next_seq = 1

    async def turn() -> float:
        batches = [source.batch(TURN_ENTRIES) for _ in range(_APPENDS)]

        async def work() -> None:
            nonlocal next_seq
            for batch in batches:
                marks = totals.add(batch, "", next_seq)
                next_seq += len(batch)
                encode(totals.document(next_seq))
                totals.settle()
                for mark in marks.values():
                    mark_elements(mark)

        return await processor_time(work) / _APPENDS

    return turn


def _fold_turn(source: EntrySource) -> Turn:
    key = source.session()

    async def turn() -> float:
        batches = [source.batch(TURN_ENTRIES) for _ in range(_APPENDS)]

        async def work() -> None:
            for batch in batches:
                _fold(key, batch)

        return await processor_time(work) / _APPENDS

    return turn


def _fold(key: SessionKey, batch: list[Entry]) -> None:
    fold_session_summary(None, key, batch)
