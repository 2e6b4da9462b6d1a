"""The Claude Agent SDK: its types without the import of it, and when it is imported.

Its package imports all of MCP, which takes several times as long as all of ours. Nothing here
needs it before entries are folded into a summary.
"""

from __future__ import annotations

import asyncio
import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from claude_agent_sdk import ClaudeAgentOptions, SessionKey, SessionStore, SessionStoreEntry
    from claude_agent_sdk.types import (
        SessionListSubkeysKey,
        SessionStoreListEntry,
        SessionSummaryEntry,
    )
else:
    # What they are at run time. The SDK asks no store for its class, only for its methods, and
    # takes a method that is not there for one that the store does not have.
    class SessionStore:
        __slots__ = ()

    ClaudeAgentOptions = Any
    SessionKey = SessionListSubkeysKey = dict[str, Any]
    SessionStoreEntry = SessionStoreListEntry = SessionSummaryEntry = dict[str, Any]

__all__ = [
    "ClaudeAgentOptions",
    "SessionKey",
    "SessionListSubkeysKey",
    "SessionStore",
    "SessionStoreEntry",
    "SessionStoreListEntry",
    "SessionSummaryEntry",
    "preload",
    "preloaded",
]

_NAME = "claude_agent_sdk"
_is_loaded = False


def preload() -> None:
    """Import the Claude Agent SDK now, which else the first append does.

    For an application that imports it nowhere itself and wants no request to wait for it: call it
    at start. :meth:`BeanieSessionStore.connect` and :func:`upgrade_schema` do. From any thread,
    and as often as you like.
    """
    global _is_loaded
    importlib.import_module(_NAME)
    _is_loaded = True


async def preloaded() -> bool:
    """The same beside the event loop, which goes on meanwhile; whether nothing was left to do."""
    if _is_loaded:
        return True
    await asyncio.to_thread(preload)
    return False
