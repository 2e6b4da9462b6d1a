"""One writer: batches of three sizes, one member and three, a near and a slower network."""

from __future__ import annotations

from pymongo.monitoring import CommandListener, CommandStartedEvent

from ..entries import EntrySource
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
from ..servers import Servers, running

CLASSES = (Floor, SameWrites, Ours, PullRequest1014, MongodbPackage)
DELAYS_MS = (0, 1)
TURN = 24

_Place = tuple[int, int, int]
"""Members, delay in ms, entries per batch."""


async def run(plan: Plan) -> Section:
    """Measure how long one append takes, by the clock."""
    found: dict[_Place, dict[str, Samples]] = {}
    commands: dict[str, float] = {}
    for members in (1, 3):
        # Redis and PostgreSQL run as one server each, so they stand beside the single member.
        with running(members, others=members == 1) as servers:
            commands = commands or await _commands(servers)
            for delay in DELAYS_MS:
                with servers.slowed(delay) as slowed:
                    for size in (TURN,) if plan.size is Size.QUICK else (1, TURN, 500):
                        place = (members, delay, size)
                        found[place] = await _measure(plan, slowed, place)
    return _section(found, commands)


async def _measure(plan: Plan, servers: Servers, place: _Place) -> dict[str, Samples]:
    members, delay, size = place
    rounds = 12 if size > TURN else plan.pick(5, 80, 200)
    plan.say(f"append: {members} member(s), {delay} ms, {size} entries, {rounds} rounds")
    source = EntrySource()
    async with opened(servers, CLASSES) as contenders:
        turns = {each.name: _turn(each, source, size) for each in contenders}
        return await interleaved(turns, rounds)


def _turn(contender: Contender, source: EntrySource, size: int) -> Turn:
    key = source.session()

    async def turn() -> float:
        batch = source.batch(size)
        return await elapsed(lambda: contender.append(key, batch))

    return turn


class _Counter(CommandListener):
    def __init__(self) -> None:
        self.sent = 0

    def started(self, event: CommandStartedEvent) -> None:
        self.sent += 1

    def succeeded(self, event: object) -> None:
        pass

    def failed(self, event: object) -> None:
        pass


async def _commands(servers: Servers) -> dict[str, float]:
    """Commands that one append of a turn sends, to a session written before."""
    appends = 10
    counted: dict[str, float] = {}
    for each in CLASSES:
        counter, source = _Counter(), EntrySource()
        contender = await each.open(servers.mongodb, "count", [counter])
        key = source.session()
        await contender.append(key, source.batch(TURN))
        before = counter.sent
        for _ in range(appends):
            await contender.append(key, source.batch(TURN))
        counted[each.name] = (counter.sent - before) / appends
        await contender.close()
    return counted


def _section(found: dict[_Place, dict[str, Samples]], commands: dict[str, float]) -> Section:
    section = Section(
        title="Append, one writer",
        note=(
            "Milliseconds by the clock until the batch is acknowledged by a majority: median (p10 "
            "to p90), and in the last column how many times our median it is (95 % interval). "
            "Redis and PostgreSQL run as one unreplicated server. Commands per append: "
            + ", ".join(f"{name} {count:g}" for name, count in commands.items())
            + "."
        ),
        columns=["members", "added delay", "entries", "", "ms", "times ours"],
    )
    for (members, delay, size), samples in found.items():
        for name, each in samples.items():
            times = str(ratio(each, samples[Ours.name]))
            section.rows.append([str(members), f"{delay} ms", str(size), name, spread(each), times])
    near, slow = found[3, 0, TURN], found[3, 1, TURN]
    package, pull = MongodbPackage.name, PullRequest1014.name
    section.verdicts += [
        _faster(near, package, 1.5, "append, 24 entries, 3 members"),
        _faster(near, pull, 1.2, "append, 24 entries, 3 members"),
        _within_floor(near),
        Verdict(
            f"fewer commands per append than {package} and {pull}",
            ", ".join(f"{name} {commands[name]:g}" for name in (Ours.name, package, pull)),
            commands[Ours.name] < min(commands[package], commands[pull]),
        ),
        _faster(slow, package, 1.3, "append, 24 entries, 3 members, 1 ms network"),
    ]
    groups = {
        f"{members} member{'s' if members > 1 else ''}, +{delay} ms": found[members, delay, TURN]
        for members in (1, 3)
        for delay in DELAYS_MS
    }
    section.charts.append(Chart("Append of one turn (24 entries), one writer", "ms", groups))
    return section


def _faster(samples: dict[str, Samples], peer: str, times: float, what: str) -> Verdict:
    measured = ratio(samples[peer], samples[Ours.name])
    return Verdict(
        f"{what}: {times} times as fast as {peer}", str(measured), measured.value >= times
    )


def _within_floor(samples: dict[str, Samples]) -> Verdict:
    measured = ratio(samples[Ours.name], samples[Floor.name])
    what = "append, 24 entries, 3 members: at most 1.6 times the floor's time"
    return Verdict(what, str(measured), measured.value <= 1.6)
