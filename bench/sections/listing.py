"""Listing a project's sessions, as a picker of sessions to resume does."""

from __future__ import annotations

from ..entries import EntrySource
from ..measures import Samples, Turn, elapsed, interleaved, ratio
from ..peers.contender import Contender
from ..peers.mongodb_package import MongodbPackage
from ..peers.opened import opened
from ..peers.ours import Ours
from ..peers.pr1014 import PullRequest1014
from ..plan import Plan, Size
from ..results import Chart, Section, Verdict, spread
from ..servers import running

_CLASSES = (Ours, PullRequest1014, MongodbPackage)

_Project = tuple[int, int]
"""Sessions, and entries in each of them."""


async def run(plan: Plan) -> Section:
    """Measure both listings one after the other, by the clock."""
    many, long = (10_000, 10), (100, 1_000)
    projects: list[_Project] = [(10, 10), (1_000, 10), many, (100, 10), long]
    if plan.size is Size.QUICK:
        many, long = (500, 10), (20, 200)
        projects = [(10, 10), many, (20, 10), long]
    elif plan.size is Size.FULL:
        projects.append((100_000, 10))
    found: dict[_Project, dict[str, Samples]] = {}
    with running(others=True) as servers:
        async with opened(servers, _CLASSES) as contenders:
            for project in projects:
                plan.say(f"listing: {project[0]:,} sessions of {project[1]:,} entries")
                await _fill(contenders, project)
            for project in projects:
                turns = {each.name: _turn(each, project) for each in contenders}
                rounds = plan.pick(3, 30 if project[0] <= 1_000 else 12)
                found[project] = await interleaved(turns, rounds, warm_up=1)
            base, grown = (long[0], 10), long
            mine = next(each for each in contenders if each.name == Ours.name)
            turns = {str(project): _turn(mine, project) for project in (base, grown)}
            flat = await interleaved(turns, plan.pick(5, 80))
    section = _section(found, many)
    measured = ratio(flat[str(grown)], flat[str(base)])
    section.verdicts.append(
        Verdict(
            f"listing {long[0]} sessions of {long[1]:,} entries takes as long as of 10 "
            "(within 10 %)",
            str(measured),
            measured.value <= 1.1,
        )
    )
    return section


def _name(project: _Project) -> str:
    return f"-srv-{project[0]}-{project[1]}"


async def _fill(contenders: list[Contender], project: _Project) -> None:
    sessions, entries = project
    source = EntrySource()
    key = source.session(_name(project))
    batch = source.light(entries)
    names = [source.session()["session_id"] for _ in range(sessions - 1)]
    for each in contenders:
        await each.append(key, batch)
        await each.clone(key, names)


def _turn(contender: Contender, project: _Project) -> Turn:
    name = _name(project)

    async def both() -> None:
        assert len(await contender.list_sessions(name)) == project[0]
        # PostgreSQL's adapter keeps no fold.
        if contender.name != "postgres":
            assert len(await contender.list_session_summaries(name)) == project[0]

    return lambda: elapsed(both)


def _section(found: dict[_Project, dict[str, Samples]], many: _Project) -> Section:
    section = Section(
        title="Listing",
        note=(
            "Milliseconds for `list_sessions` and `list_session_summaries` of a project, one "
            "after the other, one replica set member: median (p10 to p90), and how many times "
            "ours it is (95 % interval). All projects are in one database; the sessions of each "
            "are copies of one under other ids. Long sessions are measured with fewer of them. "
            "PostgreSQL's adapter has no summaries, so its figure is `list_sessions` alone."
        ),
        columns=["sessions", "entries in each", "", "ms", "times ours"],
    )
    for (sessions, entries), samples in found.items():
        for name, each in samples.items():
            times = str(ratio(each, samples[Ours.name]))
            row = [f"{sessions:,}", f"{entries:,}", name, spread(each), times]
            section.rows.append(row)
    samples = found[many]
    for peer, times, words in (
        (MongodbPackage.name, 1.0, "at least as fast as"),
        (PullRequest1014.name, 3.0, "3 times as fast as"),
    ):
        measured = ratio(samples[peer], samples[Ours.name])
        target = f"listing {many[0]:,} sessions: {words} {peer}"
        section.verdicts.append(Verdict(target, str(measured), measured.value >= times))
    title = f"Both listings of {many[0]:,} sessions"
    section.charts.append(Chart(title, "ms", {"": samples}))
    return section
