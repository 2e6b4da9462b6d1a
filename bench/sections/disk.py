"""What a stored entry takes on disk, in data and in indexes."""

from __future__ import annotations

import asyncio
from typing import Any

from ..entries import TURN_ENTRIES, EntrySource
from ..measures import Samples
from ..peers.floor import Floor
from ..peers.mongodb_package import MongodbPackage
from ..peers.opened import opened
from ..peers.ours import Ours
from ..peers.pr1014 import PullRequest1014
from ..plan import Plan
from ..results import Chart, Section, Verdict
from ..servers import running

_CLASSES = (Floor, Ours, PullRequest1014, MongodbPackage)
_SESSIONS = 20
_CHECKPOINTS = 10


async def run(plan: Plan) -> Section:
    """Store the same turns with each contender and ask the server what they take."""
    turns = plan.pick(quick=8, default=600, full=3000)
    sizes: dict[str, tuple[float, float]] = {}
    count = turns * TURN_ENTRIES
    with running() as servers:
        async with opened(servers, _CLASSES) as contenders:
            plan.say(f"disk: {count:,} entries for each of {len(contenders)}")
            source = EntrySource()
            keys = [source.session() for _ in range(_SESSIONS)]
            for turn in range(turns):
                batch = source.batch(TURN_ENTRIES)
                for each in contenders:
                    await each.append(keys[turn % _SESSIONS], batch)
            for each in contenders:
                data, indexes = await _settled(each)
                sizes[each.name] = data / count, indexes / count
    return _section(sizes, count)


async def _settled(contender: Any) -> tuple[int, int]:
    """Bytes of data and of indexes, once checkpoints change them no more."""
    known = (-1, -1)
    for _ in range(_CHECKPOINTS):
        await contender.database.client.admin.command("fsync")
        found = await _sizes(contender.database)
        if found == known:
            break
        known = found
        await asyncio.sleep(0.2)
    return known


async def _sizes(database: Any) -> tuple[int, int]:
    data = indexes = 0
    for name in await database.list_collection_names():
        stats = await database.command("collStats", name)
        data += stats["storageSize"]
        indexes += stats["totalIndexSize"]
    return data, indexes


def _section(sizes: dict[str, tuple[float, float]], count: int) -> Section:
    section = Section(
        title="Bytes on disk per entry",
        note=(
            f"Of all collections of each contender after the same {count:,} entries in turns of "
            f"{TURN_ENTRIES} to {_SESSIONS} sessions, as `collStats` says once checkpoints change "
            "it no more. Long texts in the entries are filler that compresses about as prose does."
        ),
        columns=["", "data", "indexes", "together", "times ours"],
    )
    ours = sum(sizes[Ours.name])
    for name, (data, indexes) in sizes.items():
        whole = data + indexes
        row = [name, f"{data:,.0f}", f"{indexes:,.0f}", f"{whole:,.0f}", f"{whole / ours:.2f}"]
        section.rows.append(row)
    share = ours / sum(sizes[MongodbPackage.name])
    section.verdicts.append(
        Verdict(
            f"bytes per entry, data and indexes: at most 0.7 of {MongodbPackage.name}",
            f"{share:.2f}",
            share <= 0.7,
        )
    )
    groups = {"": {name: Samples((sum(both),)) for name, both in sizes.items()}}
    section.charts.append(Chart("Bytes on disk per entry, indexes included", "B", groups))
    return section
