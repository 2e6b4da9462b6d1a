"""docs/cli.md shows what the commands print today."""

from __future__ import annotations

import asyncio
import re

from support.command import MAIN
from support.processes import PREPARED

from beanie_session_store.demo.captures import DOCUMENT, captured

# The versions of whoever ran it, the room on their disk and the pace of their machine.
_OF_THE_MACHINE = re.compile(r"\$ session-store doctor\n.*?(?=\n\$ |```)", re.DOTALL)


async def test_the_documentation_shows_what_is_printed() -> None:
    written = DOCUMENT.read_text()
    today = await asyncio.to_thread(captured, written, [PREPARED, "-c", MAIN])
    shown, found = (_lines(text) for text in (written, today))
    assert shown == found, "run `make captures`"
    assert sum(line.startswith("$ session-store") for line in shown) > 15


def _lines(text: str) -> list[str]:
    # What comes by two ways, stdout and stderr, may come in another order.
    return sorted(_OF_THE_MACHINE.sub("", text).splitlines())
