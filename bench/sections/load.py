"""Loading a whole transcript."""

from __future__ import annotations

from ..entries import EntrySource
from ..measures import Samples, elapsed, interleaved, ratio
from ..peers.contender import Contender
from ..peers.mongodb_package import MongodbPackage
from ..peers.opened import opened
from ..peers.ours import Ours
from ..peers.pr1014 import PullRequest1014
from ..peers.same_writes import SameWrites
from ..plan import Plan, Size
from ..results import Chart, Section, Verdict, spread
from ..servers import Servers, running

_CLASSES = (SameWrites, Ours, PullRequest1014, MongodbPackage)
_BATCH = 500
_TARGET_ENTRIES = 10_000
_MOST = 1.05


async def run(plan: Plan) -> Section:
    """Measure how long a load takes, by the clock, for transcripts of several lengths."""
    sizes = [100, 1_000, _TARGET_ENTRIES]
    if plan.size is Size.QUICK:
        sizes = [100, 1_000]
    elif plan.size is Size.FULL:
        sizes.append(100_000)
    found: dict[int, dict[str, Samples]] = {}
    with running(others=True) as servers:
        for entries in sizes:
            rounds = plan.pick(3, 40 if entries <= 1_000 else 20 if entries <= 10_000 else 5)
            plan.say(f"load: {entries} entries, {rounds} rounds")
            found[entries] = await _measure(servers, entries, rounds)
    return _section(found)


async def _measure(servers: Servers, entries: int, rounds: int) -> dict[str, Samples]:
    source = EntrySource()
    key = source.session()
    async with opened(servers, _CLASSES) as contenders:
        for _ in range(entries // min(_BATCH, entries)):
            batch = source.light(min(_BATCH, entries))
            for each in contenders:
                await each.append(key, batch)

        async def load(contender: Contender) -> None:
            assert len(await contender.load(key)) == entries

        turns = {each.name: lambda each=each: elapsed(lambda: load(each)) for each in contenders}
        return await interleaved(turns, rounds, warm_up=1)


def _section(found: dict[int, dict[str, Samples]]) -> Section:
    section = Section(
        title="Load",
        note=(
            "Milliseconds to read a transcript back as Python dicts, one replica set member: "
            "median (p10 to p90), and how many times bare `find` and decode "
            f"(`{SameWrites.name}`) it is (95 % interval). The entries are those below 5 KB: a "
            "real transcript holds few larger ones, and many small entries are the harder case."
        ),
        columns=["entries", "", "ms", "times bare find"],
    )
    for entries, samples in found.items():
        for name, each in samples.items():
            times = str(ratio(each, samples[SameWrites.name]))
            section.rows.append([f"{entries:,}", name, spread(each), times])
    for entries, samples in found.items():
        measured = ratio(samples[Ours.name], samples[SameWrites.name])
        target = f"load of {entries:,} entries: at most {_MOST} times bare find and decode"
        section.verdicts.append(Verdict(target, str(measured), measured.value <= _MOST))
    entries = min(_TARGET_ENTRIES, max(found))
    section.charts.append(Chart(f"Load of {entries:,} entries", "ms", {"": found[entries]}))
    return section
