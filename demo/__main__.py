"""``python -m demo``: begin a session on one host, resume it on another, check that it is so."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

SETUP_FAILED = 2


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument(
        "--live",
        action="store_true",
        help="use the real API, with ANTHROPIC_API_KEY (a few requests, which cost money)",
    )
    arguments = parser.parse_args()
    api_key = os.environ.get("ANTHROPIC_API_KEY") if arguments.live else None
    if arguments.live and not api_key:
        return _setup_failed("--live needs ANTHROPIC_API_KEY in the environment.")
    try:
        import rich  # noqa: F401

        import beanie_session_store  # noqa: F401
    except ImportError as error:
        return _setup_failed(
            f"The demo needs {error.name}, which is not installed. "
            "Install the demo extra: pip install -e '.[demo]'"
        )
    return _play(api_key)


def _play(api_key: str | None) -> int:
    from rich.console import Console
    from rich.markup import escape

    from beanie_session_store import SessionStoreError

    from .agent import AgentRunError, Target
    from .checks import checks
    from .report import show
    from .story import tell

    console = Console(highlight=False)
    with ExitStack() as stack:
        status = stack.enter_context(console.status("Starting MongoDB"))
        try:
            server, url = stack.enter_context(_mongodb())
            database = stack.enter_context(_own_database(url))
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="session-demo-"))
            target = Target(url, database)
            directory = Path(folder).resolve()
            story = tell(directory, target, api_key=api_key, progress=status.update)
            found = checks(story)
        except (SessionStoreError, AgentRunError) as error:
            status.stop()
            console.print("[bold red]FAILED[/]", escape(str(error)))
            return 1
        status.stop()
        show(console, story, found, server)
    failed = [check.claim for check in found if not check.holds]
    if failed:
        console.print(f"\n[bold red]FAILED[/] It is not so that {'; '.join(failed)}.")
        return 1
    console.print(
        "\n[bold green]PASSED[/] Host B went on where host A stopped, from MongoDB alone."
    )
    console.print("Look at such sessions in a browser: [bold]make look[/]")
    return 0


@contextmanager
def _mongodb() -> Iterator[tuple[str, str]]:
    """A server's description and URL: the user's own, or one for the length of the demo."""
    from beanie_session_store import EmbeddedMongo

    if url := os.environ.get("SESSION_STORE_MONGODB_URL"):
        yield "MongoDB at SESSION_STORE_MONGODB_URL", url
        return
    with EmbeddedMongo() as mongo:
        yield "MongoDB replica set, started for this demo", mongo.url


@contextmanager
def _own_database(url: str) -> Iterator[str]:
    from pymongo import MongoClient
    from pymongo.errors import PyMongoError

    name = f"session_store_demo_{uuid.uuid4().hex[:8]}"
    try:
        yield name
    finally:
        try:
            with MongoClient(url) as client:
                client.drop_database(name)
        except PyMongoError:
            print(f"The demo's database {name} could not be dropped.", file=sys.stderr)


def _setup_failed(reason: str) -> int:
    print(f"FAILED {reason}", file=sys.stderr)
    return SETUP_FAILED


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except KeyboardInterrupt:
        raise SystemExit(130) from None
