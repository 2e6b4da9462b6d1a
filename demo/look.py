"""``python -m demo.look``: sessions to look at in a browser, until interrupted.

A server of its own, the recorded sessions of a made-up shop, and one that the real agent writes
while one looks. The first line that is printed is the address.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from beanie_session_store import BeanieSessionStore, EmbeddedMongo, import_transcripts
from beanie_session_store.app.web.served import LOOPBACK, new_token, served_pages

from .agent import AgentRunError, Target
from .recorded import write_sessions
from .story import tell

_DATABASE = "look"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m demo.look", description=__doc__)
    parser.add_argument("--port", type=int, default=8765, help="0 takes a free one")
    parser.add_argument("--without-agent", action="store_true", help="recorded sessions alone")
    parser.add_argument("--only-agent", nargs=2, metavar=("URL", "DIR"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only_agent:
        return _run_agent(*arguments.only_agent)
    try:
        listener = socket.create_server((LOOPBACK, arguments.port))
    except OSError:
        listener = socket.create_server((LOOPBACK, 0))
    with (
        contextlib.suppress(KeyboardInterrupt),
        listener,
        EmbeddedMongo() as mongo,
        tempfile.TemporaryDirectory(prefix="session-look-") as folder,
        contextlib.ExitStack() as stack,
    ):
        place = Path(folder).resolve()

        def begin() -> None:
            if not arguments.without_agent:
                stack.enter_context(_agent(mongo.url, place))

        asyncio.run(_show(mongo.url, listener, place, begin))
    return 0


async def _show(
    url: str, listener: socket.socket, folder: Path, begin: Callable[[], object]
) -> None:
    token, port = new_token(), listener.getsockname()[1]
    async with BeanieSessionStore.connect(url, database=_DATABASE) as store:
        write_sessions(folder / "projects")
        await import_transcripts(store, folder / "projects")
        print(f"http://{LOOPBACK}:{port}/?token={token}", flush=True)
        begin()
        config = uvicorn.Config(
            served_pages(store, token, port),
            log_level="critical",
            lifespan="off",
            timeout_graceful_shutdown=1,
        )
        await uvicorn.Server(config).serve(sockets=[listener])


@contextmanager
def _agent(url: str, folder: Path) -> Iterator[None]:
    """The agent in processes of its own, which are gone at exit."""
    command = [sys.executable, "-m", "demo.look", "--only-agent", url, str(folder)]
    process = subprocess.Popen(command, start_new_session=True)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _run_agent(url: str, folder: str) -> int:
    """The demo's story: a session begun on one host, and taken up on another."""
    place = Path(folder, "agent")
    place.mkdir()
    try:
        tell(place, Target(url, _DATABASE), api_key=None, progress=lambda _: None)
    except AgentRunError as error:
        print(f"The agent did not run: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
