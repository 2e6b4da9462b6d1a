"""One import, export or copy, and how much memory the process took for it at most, in MiB."""

from __future__ import annotations

import asyncio
import resource
import sys
from pathlib import Path

from beanie_session_store import (
    BeanieSessionStore,
    copy_sessions,
    export_transcripts,
    import_transcripts,
)


async def main(step: str, url: str, database: str, path: str) -> None:
    async with BeanieSessionStore.connect(url, database=database) as store:
        if step in ("import", "import again"):
            report = await import_transcripts(store, path)
        elif step == "copy":
            report = await copy_sessions(store, BeanieSessionStore(tenant="copy"))
        else:
            form = "jsonl" if step == "archive" else step
            report = await export_transcripts(store, path, format=form, archive=step == "archive")
    assert report.done == 1
    assert not report.failed, report.problems
    print(peak())


def peak() -> float:
    """The most memory that this process had, in MiB."""
    status = Path("/proc/self/status")
    if status.exists():
        # The other figure takes over what the process had that started this one.
        line = next(each for each in status.read_text().splitlines() if each.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 / 1024


asyncio.run(main(*sys.argv[1:]))
