"""A watch as server-sent events, the kind that ``EventSource`` of a browser reads."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator

from beanie_session_store import SessionChangedError, StreamedEntry

ALIVE_SECONDS = 15.0


async def events(watched: AsyncGenerator[StreamedEntry, None]) -> AsyncIterator[str]:
    """An event for every entry, with its ``seq`` as id; ``gone`` once the session is deleted.

    Now and then a comment, by which either side notices that the other is not there any more.
    """
    coming = asyncio.ensure_future(anext(watched))
    try:
        while True:
            await asyncio.wait([coming], timeout=ALIVE_SECONDS)
            if not coming.done():
                yield ": alive\n\n"
                continue
            entry = coming.result()
            yield f"id: {entry.seq}\ndata: {json.dumps(entry)}\n\n"
            coming = asyncio.ensure_future(anext(watched))
    except SessionChangedError:
        yield "event: gone\ndata: gone\n\n"
    finally:
        # In a task of its own the watch can close what it has open, whoever cancels this one.
        coming.cancel()
