"""Many small sessions from local disk: how near the import comes to bare inserts."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bson.int64 import Int64
from claude_agent_sdk import SessionKey

from beanie_session_store import BeanieSessionStore, import_transcripts

from ..entries import Entry, EntrySource
from ..measures import Samples, Turn, elapsed, interleaved, ratio
from ..peers.floor import Floor
from ..peers.opened import opened
from ..peers.ours import Ours
from ..plan import Plan
from ..results import Section, Verdict, spread
from ..servers import running

_ENTRIES = 12
_WORKERS = 4
_AT_ONCE = 1000
_IMPORT = "import"
_BY_SESSION, _BY_THOUSAND = "insert_many per session", "insert_many per 1,000 documents"

Session = tuple[SessionKey, list[Entry]]


async def run(plan: Plan) -> Section:
    """Import a folder of projects, and insert the same documents bare."""
    count = plan.pick(quick=60, default=10_000)
    rounds = plan.pick(quick=1, default=3)
    source = EntrySource()
    sessions: list[Session] = [(source.session(), source.light(_ENTRIES)) for _ in range(count)]
    plan.say(f"imports: {count:,} sessions of {_ENTRIES} entries, {rounds} round(s)")
    with tempfile.TemporaryDirectory() as folder, running() as servers:
        projects = Path(folder)
        _write(projects, sessions)
        async with opened(servers, (Floor, Ours)) as (floor, ours):
            assert isinstance(floor, Floor)
            assert isinstance(ours, Ours)
            turns = _turns(projects, sessions, floor, ours)
            samples = await interleaved(turns, rounds, warm_up=1)
    return _section(samples, count)


def _write(projects: Path, sessions: Iterable[Session]) -> None:
    for key, entries in sessions:
        path = projects / key["project_key"] / f"{key['session_id']}.jsonl"
        path.parent.mkdir(exist_ok=True)
        lines = (json.dumps(entry, separators=(",", ":")) for entry in entries)
        path.write_text("".join(f"{line}\n" for line in lines))


def _turns(projects: Path, sessions: list[Session], floor: Floor, ours: Ours) -> dict[str, Turn]:
    async def insert_by_session(batches: Iterable[list[dict[str, Any]]]) -> None:
        async def work() -> None:
            for batch in batches:
                await floor.entries.insert_many(batch)

        await asyncio.gather(*(work() for _ in range(_WORKERS)))

    async def by_session() -> float:
        await floor.entries.delete_many({})
        batches = iter([_documents(session) for session in sessions])
        return await elapsed(lambda: insert_by_session(batches))

    async def by_thousand() -> float:
        await floor.entries.delete_many({})
        documents = [each for session in sessions for each in _documents(session)]
        parts = range(0, len(documents), _AT_ONCE)
        batches = iter([documents[at : at + _AT_ONCE] for at in parts])
        return await elapsed(lambda: insert_by_session(batches))

    async def imported() -> float:
        for name in ("claude_transcript_entries", "claude_transcript_summaries"):
            await ours.database[name].delete_many({})
        return await elapsed(read_in)

    async def read_in() -> None:
        report = await import_transcripts(BeanieSessionStore(), projects, workers=_WORKERS)
        assert report.done == report.listed == len(sessions)
        assert not report.failed

    return {
        _BY_SESSION: by_session,
        _BY_THOUSAND: by_thousand,
        _IMPORT: imported,
    }


def _documents(session: Session) -> list[dict[str, Any]]:
    key, entries = session
    return [
        {**key, "subpath": "", "seq": Int64(seq), "uuid": entry.get("uuid"), "entry": entry}
        for seq, entry in enumerate(entries, 1)
    ]


def _section(samples: dict[str, Samples], count: int) -> Section:
    section = Section(
        title=f"Import of {count:,} small sessions",
        note=(
            f"Milliseconds by the clock for {count:,} sessions of {_ENTRIES} entries each, four at "
            "once, on one member: median (p10 to p90). The import reads and parses the files, "
            "folds the summaries, and looks for what is stored; the bare inserts have their "
            "documents in memory, with one index less and no summaries."
        ),
        columns=["", "ms", "sessions per second", "times the import"],
    )
    for name, each in samples.items():
        rate = f"{count / each.median * 1000:,.0f}"
        times = str(ratio(each, samples[_IMPORT]))
        section.rows.append([name, spread(each), rate, times])
    for name in (_BY_SESSION, _BY_THOUSAND):
        measured = ratio(samples[name], samples[_IMPORT])
        what = f"import of {count:,} small sessions: at least half the speed of {name}"
        section.verdicts.append(Verdict(what, str(measured), measured.value >= 0.5))
    return section
