"""A thousand look at fifty sessions: one change stream, and each entry once for each of them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support.conversation import Conversation
from support.server import connected
from support.watches import open_watches

from beanie_session_store import BeanieSessionStore, EmbeddedMongo, upgrade_schema

VIEWERS, SESSIONS, ROUNDS = 1_000, 50, 8

# The process that is measured: nothing but the pages.
SERVER = """
import asyncio, json, resource, sys
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount
from beanie_session_store import BeanieSessionStore
from beanie_session_store.web import Access, session_pages

async def main(url):
    async with BeanieSessionStore.connect(url, database="viewed") as store:
        async def access(_):
            return Access(store)
        app = Starlette(routes=[Mount("/", session_pages(access))])
        config = uvicorn.Config(
            app, port=0, log_level="critical", lifespan="off", timeout_graceful_shutdown=1
        )
        server = uvicorn.Server(config)
        serving = asyncio.ensure_future(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        print(server.servers[0].sockets[0].getsockname()[1], flush=True)
        await serving

asyncio.run(main(sys.argv[1]))
"""


@dataclass
class LiveViewer:
    """A browser that stays connected, and comes back where it was."""

    port: int
    session: str
    seen: list[int] = field(default_factory=list)
    connections: int = 0
    is_live: asyncio.Event = field(default_factory=asyncio.Event)

    async def look(self) -> None:
        while True:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await self._connection()
            await asyncio.sleep(0.5)

    async def _connection(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.connections += 1
        back = f"Last-Event-ID: {self.seen[-1]}\r\n" if self.seen else ""
        path = f"/s/-srv/{self.session}/live?after=1"
        writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{back}\r\n".encode())
        try:
            while line := await reader.readline():
                if line.startswith(b"id: "):
                    self.seen.append(int(line[4:]))
                elif line.startswith(b"event: live"):
                    self.is_live.set()
        finally:
            writer.close()


def memory_and_cpu(pid: int) -> tuple[float, float]:
    """MiB that a process has, and seconds of CPU that it took."""
    status = Path(f"/proc/{pid}/status").read_text()
    resident = int(
        next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]
    )
    ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return resident / 1024, (int(ticks[11]) + int(ticks[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.soak
async def test_a_thousand_viewers_see_each_entry_once_and_in_order_over_a_step_down() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, hard), hard))
    async with EmbeddedMongo(members=3) as mongo, connected(mongo.url) as client:
        database = client["viewed"]
        await upgrade_schema(database)
        async with BeanieSessionStore.connect(mongo.url, database="viewed") as store:
            keys = [{"project_key": "-srv", "session_id": f"s{n}"} for n in range(SESSIONS)]
            talks = [Conversation(f"c{n}") for n in range(SESSIONS)]
            for key, talk in zip(keys, talks, strict=True):
                talk.prompt("begin")
                await store.append(key, talk.entries)
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", SERVER, mongo.url), stdout=asyncio.subprocess.PIPE
            )
            assert process.stdout is not None
            port = int(await process.stdout.readline())
            viewers = [LiveViewer(port, f"s{n % SESSIONS}") for n in range(VIEWERS)]
            before = memory_and_cpu(process.pid)
            looking = []
            for at in range(0, VIEWERS, 50):
                some = viewers[at : at + 50]
                looking += [asyncio.create_task(viewer.look()) for viewer in some]
                for viewer in some:
                    await asyncio.wait_for(viewer.is_live.wait(), 120)
            idle = memory_and_cpu(process.pid)
            streams = await open_watches(database)
            began = time.monotonic()
            for number in range(ROUNDS):
                if number == ROUNDS // 2:
                    await client.admin.command(
                        "replSetStepDown", 5, secondaryCatchUpPeriodSecs=5, force=True
                    )
                await asyncio.gather(
                    *(said(store, key, talk, number) for key, talk in zip(keys, talks, strict=True))
                )
            last = 1 + ROUNDS
            deadline = time.monotonic() + 300
            while any(not viewer.seen or viewer.seen[-1] < last for viewer in viewers):
                assert time.monotonic() < deadline, sorted({len(each.seen) for each in viewers})
                await asyncio.sleep(0.1)
            seconds = time.monotonic() - began
            end = memory_and_cpu(process.pid)
            for task in looking:
                task.cancel()
            await asyncio.gather(*looking, return_exceptions=True)
            process.terminate()
            await process.wait()
    assert streams == 1
    assert [viewer.seen for viewer in viewers] == [list(range(2, last + 1))] * VIEWERS
    found = {
        "viewers": VIEWERS,
        "MiB before": round(before[0]),
        "MiB with all connected": round(idle[0]),
        "MiB at the end": round(end[0]),
        "CPU s to connect": round(idle[1] - before[1], 1),
        "CPU s for the entries": round(end[1] - idle[1], 1),
        "entries": SESSIONS * ROUNDS,
        "events sent": VIEWERS * ROUNDS,
        "seconds": round(seconds, 1),
        "connections": sum(viewer.connections for viewer in viewers),
    }
    print(json.dumps(found))
    assert end[0] - before[0] < 150


async def said(store: BeanieSessionStore, key: dict[str, str], talk: Conversation, n: int) -> None:
    entry = talk.text(f"answer {n}")
    for left in (2, 1, 0):
        try:
            await store.append(key, [entry])
            return
        except Exception:
            if not left:
                raise
