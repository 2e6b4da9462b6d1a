"""Typed views of the entries of a transcript, beside reading them from the server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from beanie_session_store import AttachmentEntry, Transcript, parse_entry

from ..entries import Entry, EntrySource
from ..measures import Samples, elapsed, interleaved, ratio
from ..peers.ours import Ours
from ..plan import Plan, Size
from ..results import Section, Verdict, spread
from ..servers import running

_BATCH = 500
_LIMIT = 2.0
_LOAD = "`load`"
_ALL = "views with their content blocks"


async def run(plan: Plan) -> Section:
    """Measure views of what a load gives, by the clock."""
    entries = 1_000 if plan.size is Size.QUICK else 10_000
    rounds = plan.pick(3, 20)
    found: dict[str, dict[str, Samples]] = {}
    with running() as servers:
        source = EntrySource()
        ours = await Ours.open(servers.mongodb, "parse")
        for kind, batch in (("below 5 KB", source.light), ("of all sizes", source.batch)):
            plan.say(f"parse: {entries} entries {kind}, {rounds} rounds")
            key = source.session()
            for _ in range(entries // _BATCH):
                await ours.append(key, batch(_BATCH))
            loaded = await ours.load(key)
            assert len(loaded) == entries

            async def load(key=key) -> None:
                await ours.load(key)

            async def typed(key=key) -> None:
                await ours.store.transcript(key)

            works: dict[str, Callable[[], Awaitable[None]]] = {
                _LOAD: load,
                "`transcript`": typed,
                "views": lambda loaded=loaded: _views(loaded),
                _ALL: lambda loaded=loaded: _blocks(loaded),
                "turns, calls, tokens, branches": lambda loaded=loaded: _everything(loaded),
            }
            turns = {name: lambda work=work: elapsed(work) for name, work in works.items()}
            found[kind] = await interleaved(turns, rounds, warm_up=1)
        await ours.close()
    return _section(entries, found)


async def _views(entries: list[Entry]) -> None:
    # All at once, as a transcript keeps them.
    assert len([parse_entry(entry) for entry in entries]) == len(entries)


async def _blocks(entries: list[Entry]) -> None:
    for view in [parse_entry(entry) for entry in entries]:
        # Read when first asked for; entries without a message have none.
        getattr(view, "message", None)
        if isinstance(view, AttachmentEntry):
            assert view.attachment


async def _everything(entries: list[Entry]) -> None:
    transcript = Transcript(entries)
    assert transcript.turns
    assert transcript.total_usage
    assert transcript.all_tool_calls
    assert len(transcript.branches) < len(entries)


def _section(entries: int, found: dict[str, dict[str, Samples]]) -> Section:
    section = Section(
        title="Typed views",
        note=(
            f"Milliseconds for {entries:,} entries, one replica set member: median (p10 to p90), "
            "and how many times a load of the same entries it is (95 % interval). `transcript` "
            "reads from the server too; the lines below it start from what was loaded."
        ),
        columns=["entries", "", "ms", "times a load"],
    )
    for kind, samples in found.items():
        for name, each in samples.items():
            section.rows.append([kind, name, spread(each), str(ratio(each, samples[_LOAD]))])
    # The harder case of the two.
    measured = max(
        (ratio(samples[_ALL], samples[_LOAD]) for samples in found.values()),
        key=lambda each: each.value,
    )
    target = (
        f"parsing {entries:,} entries, blocks included: at most {_LIMIT:g} times a load of them"
    )
    section.verdicts.append(Verdict(target, str(measured), measured.value <= _LIMIT))
    return section
