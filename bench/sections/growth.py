"""Appending to a session that holds much already."""

from __future__ import annotations

from itertools import cycle

from claude_agent_sdk import SessionKey

from ..entries import TURN_ENTRIES, EntrySource
from ..measures import Samples, Turn, elapsed, interleaved, ratio
from ..peers.contender import Contender
from ..peers.floor import Floor
from ..peers.opened import opened
from ..peers.ours import Ours
from ..plan import Plan, Size
from ..results import Section, Verdict, spread
from ..servers import running

_BATCH = 500
# Short sessions take turns, for each append makes them longer.
_SHORT_ENTRIES, _SHORT_SESSIONS = 1_000, 10


async def run(plan: Plan) -> Section:
    """Measure one append of a turn to sessions of several lengths, by the clock."""
    sizes = [100, 2_000] if plan.size is Size.QUICK else [100, 1_000, 10_000, 100_000]
    rounds = plan.pick(quick=5, default=100)
    with running() as servers:
        async with opened(servers, (Floor, Ours)) as contenders:
            source = EntrySource()
            turns: dict[str, Turn] = {}
            for stored in sizes:
                plan.say(f"growth: {stored:,} entries stored")
                keys = [
                    await _filled(contenders, source, stored)
                    for _ in range(_SHORT_SESSIONS if stored <= _SHORT_ENTRIES else 1)
                ]
                for each in contenders:
                    turns[_label(each.name, stored)] = _turn(each, source, keys)
            found = await interleaved(turns, rounds, warm_up=plan.pick(1, _SHORT_SESSIONS))
    return _section(found, sizes)


def _label(name: str, stored: int) -> str:
    return f"{name} {stored}"


async def _filled(contenders: list[Contender], source: EntrySource, stored: int) -> SessionKey:
    key = source.session()
    size = min(stored, _BATCH)
    for _ in range(stored // size):
        batch = source.light(size)
        for each in contenders:
            await each.append(key, batch)
    return key


def _turn(contender: Contender, source: EntrySource, keys: list[SessionKey]) -> Turn:
    places = cycle(keys)

    async def turn() -> float:
        key, batch = next(places), source.batch(TURN_ENTRIES)
        return await elapsed(lambda: contender.append(key, batch))

    return turn


def _section(found: dict[str, Samples], sizes: list[int]) -> Section:
    section = Section(
        title="Append to a long session",
        note=(
            f"Milliseconds by the clock for one append of {TURN_ENTRIES} entries, one replica set "
            "member, all lengths in turn: median (p10 to p90), and how many times that at the "
            "shortest length it is (95 % interval). A session that the store's process does not "
            "remember costs one read of its summary more, whatever its length."
        ),
        columns=["entries stored", "", "ms", f"times that at {sizes[0]}"],
    )
    for stored in sizes:
        for name in (Floor.name, Ours.name):
            samples, first = found[_label(name, stored)], found[_label(name, sizes[0])]
            row = [f"{stored:,}", name, spread(samples), str(ratio(samples, first))]
            section.rows.append(row)
    longest, shortest = (found[_label(Ours.name, size)] for size in (sizes[-1], sizes[0]))
    measured = ratio(longest, shortest)
    target = f"append at {sizes[-1]:,} stored entries: within 10 % of append at {sizes[0]}"
    section.verdicts.append(Verdict(target, str(measured), measured.value <= 1.1))
    return section
