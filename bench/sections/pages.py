"""A long session in a browser: the first window, a jump, find, beside reading all of it."""

from __future__ import annotations

import itertools
import resource
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from statistics import median

import httpx
from claude_agent_sdk import SessionKey
from starlette.requests import Request

from beanie_session_store.app.web import session_view
from beanie_session_store.web import Access, session_pages

from ..entries import Entry
from ..measures import Samples, elapsed, interleaved
from ..peers.ours import Ours
from ..plan import Plan
from ..results import Section, Verdict, spread
from ..servers import running

_BATCH = 500
_LIMIT_MS = 300
_LIMIT_BYTES = 500_000
_LIMIT_MIB = 150
_ENTRY_BYTES = 30_000_000
_PROSE = "The job that timed out is never closed when its `second` try finds it done.\n"
_OUTPUT = "10:07:41 worker-2 | charge 96110-1 key 07de settled after a timeout of 5.0 s\n"


async def run(plan: Plan) -> Section:
    """Measure answers of the pages, whole, by the clock of the server's process."""
    size = plan.pick(quick=4_000, default=70_000)
    rounds = plan.pick(quick=3, default=15)
    key: SessionKey = {"project_key": "bench", "session_id": "long"}
    other: SessionKey = {"project_key": "bench", "session_id": "large"}
    place = "/s/bench/long"
    sizes: dict[str, int] = {}
    processor: dict[str, list[float]] = {}
    with running() as servers:
        ours = await Ours.open(servers.mongodb, "pages")
        plan.say(f"pages: a session of {size:,} entries")
        stored = await _fill(ours, key, size)
        large = "x" * 79 + "\n"
        await ours.append(other, [*itertools.islice(_conversation(), 12), _result(large)])

        async def access(request: Request) -> Access:
            return Access(ours.store)

        pages = session_pages(access)
        transport = httpx.ASGITransport(pages)
        async with httpx.AsyncClient(transport=transport, base_url="http://bench") as client:

            def get(
                name: str, path: str, *, is_cold: bool = False
            ) -> Callable[[], Awaitable[float]]:
                async def work() -> None:
                    answer = await client.get(path)
                    assert answer.status_code == 200, answer.text
                    sizes[name] = len(answer.content)

                async def turn() -> float:
                    if is_cold:
                        session_view.OUTLINES.forget()
                    begin = time.process_time()
                    took = await elapsed(work)
                    processor.setdefault(name, []).append(1000 * (time.process_time() - begin))
                    if is_cold:
                        # What is begun behind it is not to be in another's way.
                        await client.get(f"{place}?turns=1")
                    return took

                return turn

            await client.get("/s/bench/large?from=1")
            before = _resident()
            works = {
                "first window": get("first window", f"{place}?from=1"),
                "first window, by a process that never read the session": get(
                    "first window, by a process that never read the session",
                    f"{place}?from=1",
                    is_cold=True,
                ),
                "jump to the middle": get("jump to the middle", f"{place}?at={size // 2}"),
                "the last window": get("the last window", f"{place}?to={size}"),
                "the entry of 30 MB in its place": get(
                    "the entry of 30 MB in its place", "/s/bench/large?from=1"
                ),
                "a page of that entry": get("a page of that entry", "/s/bench/large/e/13"),
            }
            await client.get(f"{place}?turns=1")
            found = await interleaved(works, rounds, warm_up=1)
            grown = _resident() - before
            finds = {
                "find what stands once": get(
                    "find what stands once", f"{place}?find=step-{size // 26 * 2}-end&hit=1"
                )
            }
            found |= await interleaved(finds, plan.pick(1, 3), warm_up=0)
        whole = {"reading the whole transcript": lambda: elapsed(lambda: ours.store.load(key))}
        found |= await interleaved(whole, plan.pick(1, 3), warm_up=0)
        await ours.close()
    return _section(size, stored, found, sizes, processor, grown)


async def _fill(ours: Ours, key: SessionKey, size: int) -> int:
    stored = 0
    entries = itertools.islice(_conversation(), size)
    while batch := list(itertools.islice(entries, _BATCH)):
        stored += sum(len(str(entry)) for entry in batch)
        await ours.append(key, batch)
    return stored


def _conversation() -> Iterator[Entry]:
    """Turns of 26 entries: a prompt, twelve calls with their answers, and what the model says."""
    parent = None
    for turn in itertools.count():
        said: list[tuple[str, object]] = [("user", f"Go on with step {turn}. {_PROSE}")]
        for number in range(12):
            call = f"toolu-{turn}-{number}"
            given = {"command": f"make step-{turn}-{number}", "description": "Go on"}
            block = {"type": "tool_use", "id": call, "name": "Bash", "input": given}
            said.append(("assistant", [block]))
            output = f"{_OUTPUT * 55}step-{turn}-end"
            answer = {"type": "tool_result", "tool_use_id": call, "content": output}
            said.append(("user", [answer]))
        text = (
            f"**Step {turn}** is done.\n\n- {_PROSE}- {_PROSE}\n```python\nx = 1\n```\n{_PROSE * 9}"
        )
        said.append(("assistant", [{"type": "text", "text": text}]))
        for place, (kind, content) in enumerate(said):
            message: dict[str, object] = {"role": kind, "content": content}
            if kind == "assistant":
                usage = {"input_tokens": 5, "output_tokens": 90, "cache_read_input_tokens": 50_000}
                model = "claude-opus-4-5"
                message |= {"id": f"msg-{turn}-{place}", "model": model, "usage": usage}
            name = f"{turn}-{place}"
            yield {
                "type": kind,
                "uuid": name,
                "parentUuid": parent,
                "timestamp": "2026-01-01T00:00:00.000Z",
                "message": message,
            }
            parent = name


def _result(line: str) -> Entry:
    """An entry of 30 MB, which is the output of a tool."""
    answer = {
        "type": "tool_result",
        "tool_use_id": "toolu-0-5",
        "content": line * (_ENTRY_BYTES // 80),
    }
    return {"type": "user", "uuid": "large", "message": {"role": "user", "content": [answer]}}


def _resident() -> float:
    """Memory that this process has now, in MiB; where that is not told, the most that it had."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(each for each in status.read_text().splitlines() if each.startswith("VmRSS"))
        return int(line.split()[1]) / 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (1024 * 1024 if sys.platform == "darwin" else 1024)


def _section(
    size: int,
    stored: int,
    found: dict[str, Samples],
    sizes: dict[str, int],
    processor: dict[str, list[float]],
    grown: float,
) -> Section:
    section = Section(
        title="Pages",
        note=(
            f"Milliseconds until an answer is whole, in the process of the server, of a session of "
            f"{size:,} entries and {stored / 1e6:,.0f} MB, and of one with an entry of 30 MB: "
            "median (p10 to p90), one replica set member. Client and server of the pages share "
            "the process. What was read of the session meanwhile, its outline, is kept: "
            f"{grown:,.0f} MiB more than before."
        ),
        columns=["", "ms", "processor ms", "kB"],
    )
    for name, samples in found.items():
        kilobytes = f"{sizes[name] / 1000:,.0f}" if name in sizes else ""
        cpu = f"{median(processor[name]):,.0f}" if name in processor else ""
        section.rows.append([name, spread(samples), cpu, kilobytes])
    windows = [
        name
        for name in found
        if "find" not in name and "whole" not in name and "page of" not in name
    ]
    slowest = max(windows, key=lambda name: found[name].median)
    largest = max(windows, key=lambda name: sizes[name])
    measured = found[slowest].median
    section.verdicts += [
        Verdict(
            f"each window within {_LIMIT_MS} ms",
            f"{measured:.0f} ms, {slowest}",
            measured <= _LIMIT_MS,
        ),
        Verdict(
            f"each window within {_LIMIT_BYTES // 1000} kB",
            f"{sizes[largest] / 1000:.0f} kB, {largest}",
            sizes[largest] <= _LIMIT_BYTES,
        ),
        Verdict(
            f"the process takes less than {_LIMIT_MIB} MiB more",
            f"{grown:.0f} MiB",
            grown < _LIMIT_MIB,
        ),
    ]
    return section
