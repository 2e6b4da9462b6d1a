"""What is asked of one long session: its turns, calls and branches, its pages, and ``show``."""

from __future__ import annotations

import io
import itertools
from collections.abc import Awaitable, Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory

from claude_agent_sdk import SessionKey

from beanie_session_store import Transcript, export_transcripts
from beanie_session_store.app.cli.terminal.transcript_lines import TranscriptLines
from beanie_session_store.app.cli.terminal.transcript_order import NestedTranscripts
from beanie_session_store.app.reading.listings import SessionListing

from ..entries import Entry
from ..measures import Samples, interleaved, processor_time
from ..peers.ours import Ours
from ..plan import Plan
from ..results import Section, Verdict
from ..servers import running

_BATCH = 500
# Twice the entries, twice the work; the rest is what a busy machine adds.
_LIMIT = 2.5
_WORDS = "The clock of the second host is late by a second, so what it wrote looks older. "

Works = dict[str, Callable[[], Awaitable[None]]]


async def run(plan: Plan) -> Section:
    """Measure processor time for sessions of three lengths, each twice as long as the last."""
    longest = plan.pick(quick=2_000, default=50_000)
    sizes = (longest // 4, longest // 2, longest)
    rounds = plan.pick(quick=2, default=3)
    found: dict[int, dict[str, Samples]] = {}
    with running() as servers, TemporaryDirectory() as folder:
        ours = await Ours.open(servers.mongodb, "transcript")
        for size in sizes:
            plan.say(f"transcript: {size:,} entries, {rounds} rounds")
            key: SessionKey = {"project_key": "bench", "session_id": f"long-{size}"}
            entries = list(itertools.islice(_conversation(), size))
            for start in range(0, size, _BATCH):
                await ours.append(key, entries[start : start + _BATCH])
            works = _works(ours, key, entries, Path(folder))
            turns = {name: lambda work=work: processor_time(work) for name, work in works.items()}
            found[size] = await interleaved(turns, rounds, warm_up=0)
        await ours.close()
    return _section(sizes, found)


def _works(ours: Ours, key: SessionKey, entries: list[Entry], folder: Path) -> Works:
    async def turns() -> None:
        assert len(Transcript(entries).turns) > len(entries) // 8

    async def tool_calls() -> None:
        assert len(Transcript(entries).tool_calls) > len(entries) // 8

    async def branches() -> None:
        assert len(Transcript(entries).branches) > len(entries) // 100

    async def page(form: str) -> None:
        report = await export_transcripts(
            ours.store,
            folder,
            session_id=key["session_id"],
            format=form,  # type: ignore[arg-type]
            overwrite=True,
        )
        assert report.entries == len(entries)

    async def show() -> None:
        listing = SessionListing(key["project_key"], key["session_id"], None)
        with redirect_stdout(io.StringIO()) as output:
            lines = TranscriptLines(is_full=True)
            async for depth, piece in NestedTranscripts(ours.store, listing).stored(len(entries)):
                lines.write(depth, piece)
        assert output.tell() > 80 * len(entries)

    return {
        "`turns`": turns,
        "`tool_calls`": tool_calls,
        "`branches`": branches,
        "page as Markdown": lambda: page("markdown"),
        "page as HTML": lambda: page("html"),
        "`show --full`": show,
    }


def _conversation() -> Iterator[Entry]:
    """Turns of six entries, one of eight left for another; every call has the same id."""
    parent = None
    for number in itertools.count():
        names = [f"{number}-{each}" for each in range(6)]
        links = [parent, *names[:-1]]
        call = {"type": "tool_use", "id": "call_1", "name": "Bash", "input": {"command": "date"}}
        result = {"type": "tool_result", "tool_use_id": "call_1", "content": _WORDS * 4}
        contents = [
            ("user", _WORDS),
            ("assistant", [{"type": "thinking", "thinking": _WORDS * 2}]),
            ("assistant", [{"type": "text", "text": f"I look at `{number}`. " + _WORDS}]),
            ("assistant", [call]),
            ("user", [result]),
            ("assistant", [{"type": "text", "text": _WORDS * 3 + f"\n\n- one\n- **{number}**"}]),
        ]
        for name, link, (kind, content) in zip(names, links, contents, strict=True):
            message = {"role": kind, "content": content}
            if kind == "assistant":
                message |= {"id": f"msg_{number}_{name[-1] == '5'}", "model": "m", "usage": {}}
            yield {
                "type": kind,
                "uuid": name,
                "parentUuid": link,
                "timestamp": "2026-01-01T00:00:00.000Z",
                "message": message,
            }
        # Whoever goes on from the turn before leaves this one as a branch.
        parent = parent if number % 8 == 7 else names[-1]


def _section(sizes: tuple[int, ...], found: dict[int, dict[str, Samples]]) -> Section:
    section = Section(
        title="Long sessions",
        note=(
            "Seconds of processor time of the client, one replica set member: median of "
            f"{len(next(iter(found[sizes[0]].values())).values)} rounds. The first three start "
            "from what was loaded, and make the views that they need; the others read from the "
            "server too. All calls of the session have one id, and one turn of eight was left for "
            "another."
        ),
        columns=["", *(f"{size:,} entries" for size in sizes), "for twice the entries"],
    )
    growths: dict[str, float] = {}
    for name in found[sizes[0]]:
        seconds = [found[size][name].median / 1000 for size in sizes]
        growths[name] = seconds[2] / seconds[1]
        section.rows.append(
            [name, *(f"{each:.2f}" for each in seconds), f"{growths[name]:.2f} times"]
        )
    name, growth = max(growths.items(), key=lambda each: each[1])
    target = f"twice the entries take at most {_LIMIT:g} times the time, whatever is asked for"
    section.verdicts.append(Verdict(target, f"{growth:.2f}, {name}", growth <= _LIMIT))
    return section
