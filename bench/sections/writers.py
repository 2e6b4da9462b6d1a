"""Many writers on one connection pool, each on a session of its own."""

from __future__ import annotations

import asyncio

from claude_agent_sdk import SessionKey

from ..entries import TURN_ENTRIES, Entry, EntrySource
from ..measures import Samples, Turn, elapsed, interleaved, ratio
from ..peers.contender import Contender
from ..peers.floor import Floor
from ..peers.mongodb_package import MongodbPackage
from ..peers.opened import opened
from ..peers.ours import Ours
from ..peers.pr1014 import PullRequest1014
from ..peers.same_writes import SameWrites
from ..plan import Plan, Size
from ..results import Chart, Section, Verdict, spread
from ..servers import running

_WRITERS = 32
_CLASSES = (Floor, SameWrites, Ours, PullRequest1014, MongodbPackage)


async def run(plan: Plan) -> Section:
    """Measure entries per second while all writers append turns at once."""
    rounds = plan.pick(quick=2, default=10)
    found: dict[tuple[int, int], dict[str, Samples]] = {}
    deployments = {1: (0,)} if plan.size is Size.QUICK else {1: (0,), 3: (0, 1)}
    for members, delays in deployments.items():
        with running(members, others=members == 1) as servers:
            for delay in delays:
                plan.say(f"writers: {members} member(s), {delay} ms, {rounds} rounds")
                with servers.slowed(delay) as slowed:
                    async with opened(slowed, _CLASSES) as contenders:
                        source = EntrySource()
                        turns = {each.name: _turn(each, source) for each in contenders}
                        found[members, delay] = await interleaved(turns, rounds, plan.pick(0, 1))
    return _section(found)


def _turn(contender: Contender, source: EntrySource) -> Turn:
    keys = [source.session() for _ in range(_WRITERS)]

    async def turn() -> float:
        batches = [(key, [source.batch(TURN_ENTRIES) for _ in range(2)]) for key in keys]

        async def write(key: SessionKey, turns: list[list[Entry]]) -> None:
            for batch in turns:
                await contender.append(key, batch)

        took = await elapsed(lambda: asyncio.gather(*[write(*batch) for batch in batches]))
        return _WRITERS * 2 * TURN_ENTRIES / took * 1000

    return turn


def _section(found: dict[tuple[int, int], dict[str, Samples]]) -> Section:
    section = Section(
        title=f"{_WRITERS} writers on one pool",
        note=(
            f"Entries per second, more is better: {_WRITERS} tasks of one process, each appending "
            f"turns of {TURN_ENTRIES} entries to its own session; median (p10 to p90), and how "
            "many times the contender's rate ours is (95 % interval)."
        ),
        columns=["members", "added delay", "", "entries/s", "ours is times"],
    )
    for (members, delay), samples in found.items():
        for name, each in samples.items():
            times = str(ratio(samples[Ours.name], each))
            section.rows.append([str(members), f"{delay} ms", name, spread(each), times])
    for (members, delay), samples in found.items():
        measured = ratio(samples[Ours.name], samples[MongodbPackage.name])
        what = f"{_WRITERS} writers, {_place(members, delay)}"
        target = f"{what}: 1.2 times the entries/s of {MongodbPackage.name}"
        section.verdicts.append(Verdict(target, str(measured), measured.value >= 1.2))
    groups = {_place(*place): samples for place, samples in found.items()}
    section.charts.append(
        Chart(f"{_WRITERS} writers on one pool (more is better)", "entries/s", groups)
    )
    return section


def _place(members: int, delay: int) -> str:
    return f"{members} member{'s' if members > 1 else ''}, +{delay} ms"
