"""Many writers on one connection pool, each on a session of its own."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from claude_agent_sdk import SessionKey

from ..entries import TURN_ENTRIES, Entry, EntrySource
from ..measures import Ratio, Samples, Turn, interleaved, ratio
from ..peers.contender import POOL_SIZE, Contender
from ..peers.floor import Floor
from ..peers.mongodb_package import MongodbPackage
from ..peers.opened import opened
from ..peers.ours import Ours
from ..peers.pr1014 import PullRequest1014
from ..peers.same_writes import SameWrites
from ..plan import Plan, Size
from ..results import Chart, Section, Verdict, spread
from ..servers import running

_CLASSES = (Floor, SameWrites, Ours, PullRequest1014, MongodbPackage)
_APPENDS = 2


@dataclass(frozen=True)
class _Place:
    writers: int = 32
    members: int = 1
    delay_ms: int = 0
    pool_size: int = POOL_SIZE

    def __str__(self) -> str:
        members = f"{self.members} member{'s' if self.members > 1 else ''}, +{self.delay_ms} ms"
        pool = "" if self.pool_size == POOL_SIZE else f", {self.pool_size} connections"
        return f"{self.writers} writers, {members}{pool}"


_PLACES = (
    _Place(),
    _Place(writers=256),
    _Place(pool_size=4),
    _Place(members=3),
    _Place(members=3, delay_ms=1),
)


@dataclass
class _Aside:
    """What a contender's turns took besides, in milliseconds."""

    processor: list[float] = field(default_factory=list)
    """For each turn, per append."""
    latencies: list[float] = field(default_factory=list)
    """For each append."""


@dataclass(frozen=True)
class _Found:
    rates: dict[str, Samples]
    processor: dict[str, Samples]
    latencies: dict[str, Samples]


async def run(plan: Plan) -> Section:
    """Measure entries per second while all writers append turns at once."""
    rounds = plan.pick(quick=2, default=12)
    warm_up = plan.pick(0, 1)
    found: dict[_Place, _Found] = {}
    places = _PLACES[:1] if plan.size is Size.QUICK else _PLACES
    for members in sorted({place.members for place in places}):
        with running(members, others=members == 1) as servers:
            for place in (each for each in places if each.members == members):
                plan.say(f"writers: {place}, {rounds} rounds")
                with servers.slowed(place.delay_ms) as slowed:
                    async with opened(slowed, _CLASSES, place.pool_size) as contenders:
                        source = EntrySource()
                        asides = {each.name: _Aside() for each in contenders}
                        turns = {
                            each.name: _turn(each, source, place.writers, asides[each.name])
                            for each in contenders
                        }
                        rates = await interleaved(turns, rounds, warm_up)
                found[place] = _Found(
                    rates,
                    {name: Samples(tuple(a.processor[warm_up:])) for name, a in asides.items()},
                    {
                        name: Samples(tuple(a.latencies[warm_up * place.writers * _APPENDS :]))
                        for name, a in asides.items()
                    },
                )
    return _section(found)


def _turn(contender: Contender, source: EntrySource, writers: int, aside: _Aside) -> Turn:
    keys = [source.session() for _ in range(writers)]

    async def turn() -> float:
        batches = [(key, [source.batch(TURN_ENTRIES) for _ in range(_APPENDS)]) for key in keys]

        async def write(key: SessionKey, turns: list[list[Entry]]) -> None:
            for batch in turns:
                begin = time.perf_counter()
                await contender.append(key, batch)
                aside.latencies.append((time.perf_counter() - begin) * 1000)

        spent, begin = time.process_time(), time.perf_counter()
        await asyncio.gather(*[write(*batch) for batch in batches])
        took = time.perf_counter() - begin
        aside.processor.append((time.process_time() - spent) * 1000 / (writers * _APPENDS))
        return writers * _APPENDS * TURN_ENTRIES / took

    return turn


def _section(found: dict[_Place, _Found]) -> Section:
    section = Section(
        title="Many writers on one pool",
        note=(
            "Tasks of one process, each appending turns of "
            f"{TURN_ENTRIES} entries to its own session. Entries per second, more is better: "
            "median (p10 to p90), and how many times the contender's rate ours is (95 % "
            "interval). Processor time of the client process per append, and how long an append "
            "takes, in milliseconds."
        ),
        columns=["", "", "entries/s", "ours is times", "CPU ms", "median ms", "p99 ms"],
    )
    for place, each in found.items():
        for name, rates in each.rates.items():
            latencies = each.latencies[name]
            section.rows.append(
                [
                    str(place),
                    name,
                    spread(rates),
                    str(ratio(each.rates[Ours.name], rates)),
                    f"{each.processor[name].median:.2f}",
                    f"{latencies.median:.0f}",
                    f"{latencies.percentile(99):.0f}",
                ]
            )
        section.verdicts += _verdicts(place, each)
    section.charts.append(
        Chart(
            "Many writers on one pool (more is better)",
            "entries/s",
            {str(place): each.rates for place, each in found.items()},
        )
    )
    return section


def _verdicts(place: _Place, found: _Found) -> list[Verdict]:
    if place.writers != 32 or place.pool_size != POOL_SIZE or place.delay_ms:
        return []
    package, pull_request, floor = MongodbPackage.name, PullRequest1014.name, Floor.name
    limits = {package: 1.3, pull_request: 1.0} if place.members == 1 else {floor: 1.0, package: 1.8}
    verdicts: list[Verdict] = []
    for name, limit in limits.items():
        times = ratio(found.rates[Ours.name], found.rates[name])
        verdicts.append(_verdict(f"{place}: {limit} times the entries/s of {name}", times, limit))
    spent = ratio(found.processor[Ours.name], found.processor[SameWrites.name])
    target = f"{place}: client CPU per append at most 0.8 of {SameWrites.name}"
    verdicts.append(Verdict(target, str(spent), spent.value <= 0.8))
    return verdicts


def _verdict(target: str, times: Ratio, least: float) -> Verdict:
    return Verdict(target, str(times), times.value >= least)
