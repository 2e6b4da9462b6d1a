"""``session-store serve``: the sessions in a browser, on this machine alone."""

from __future__ import annotations

import contextlib
import logging
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..exits import complain, fail
from ..root import app, run
from ..stores import store_on
from ..terminal.progress import problem_shown, progress_shown

if TYPE_CHECKING:
    from ...database.driver import Database
    from ...store import BeanieSessionStore


@app.command("serve")
def serve_command(
    context: typer.Context,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="The port on 127.0.0.1; 0 takes a free one.")
    ] = 8765,
    import_from: Annotated[
        Path | None,
        typer.Option(
            "--import",
            metavar="PATH",
            exists=True,
            help="Store what the agent wrote there first, and then what it goes on to write: "
            "such as ~/.claude/projects.",
        ),
    ] = None,
) -> None:
    """Show sessions in a browser, until interrupted.

    The first line that it prints is the address to open, with a token that nobody else has. It
    listens on 127.0.0.1 alone, and nothing that a browser asks for changes anything.

    Example: session-store --embedded ~/sessions serve --import ~/.claude/projects
    """
    try:
        import uvicorn
        from uvicorn.server import logger as server_logger

        from ...web.served import LOOPBACK, new_token, served_pages
    except ModuleNotFoundError as missing:
        fail(
            f"serve needs {missing.name}, which is not installed: "
            "pip install 'beanie-session-store[web]'"
        )
    listener = _listening(LOOPBACK, port)
    token = new_token()

    async def command(database: Database) -> None:
        import asyncio

        from ...concurrency.cancellation import cancel_and_wait

        store = await store_on(context, database)
        taken: int = listener.getsockname()[1]
        pages = served_pages(store, token, taken)
        config = uvicorn.Config(
            pages,
            access_log=False,
            log_level="error",
            lifespan="off",
            server_header=False,
            proxy_headers=False,
            # Who looks live has no last answer to wait for.
            timeout_graceful_shutdown=1,
        )
        server = uvicorn.Server(config)
        # Interrupts are ours: they end the command as any other.
        vars(server)["capture_signals"] = contextlib.nullcontext
        server_logger.addFilter(_is_no_goodbye)
        serving = asyncio.ensure_future(server.serve(sockets=[listener]))
        typer.echo(f"http://{LOOPBACK}:{taken}/?token={token}")
        work = [serving]
        if import_from is not None:
            work.append(asyncio.ensure_future(_imported(store, import_from)))
        try:
            await asyncio.wait(work, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            server.should_exit = True
            await cancel_and_wait(*work[1:])
            ended = await asyncio.gather(*work, return_exceptions=True)
        for error in ended:
            if isinstance(error, Exception):
                raise error

    with listener:
        run(context, command, until_interrupted=True)


def _is_no_goodbye(record: logging.LogRecord) -> bool:
    """Whether it is more than that a live page was let go at the end."""
    import asyncio

    kind = record.exc_info[0] if record.exc_info else None
    return kind is not asyncio.CancelledError and not record.getMessage().startswith("Cancel ")


async def _imported(store: BeanieSessionStore, path: Path) -> None:
    from ...jobs.following import follow_transcripts

    with contextlib.ExitStack() as stack:
        await follow_transcripts(
            store,
            path,
            on_progress=stack.enter_context(progress_shown("importing")),
            on_problem=problem_shown,
            on_done=stack.close,
            on_failure=lambda error: complain(f"{error} It is tried again."),
        )


def _listening(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        fail(
            f"port {port} of {host} cannot be used ({error.strerror}); nothing was started. "
            "Give another one with --port, or 0 for a free one."
        )
    listener.listen()
    listener.setblocking(False)
    return listener
