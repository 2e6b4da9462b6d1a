"""A Claude Agent SDK session store for teams on Beanie.

store = BeanieSessionStore(tenant="acme")
async for message in query(prompt=..., options=ClaudeAgentOptions(session_store=store)): ...
"""

from .app.embedded import EmbeddedMongo
from .app.errors import (
    AccessDeniedError,
    ClientClosedError,
    ContentionError,
    CorruptEntryError,
    EventLoopError,
    InvalidEntryError,
    InvalidKeyError,
    InvalidMetadataError,
    InvalidModelError,
    InvalidURLError,
    MongodNotFoundError,
    MongodStartError,
    NotInitializedError,
    SchemaOutdatedError,
    SchemaTooNewError,
    ServerError,
    SessionChangedError,
    SessionStoreError,
    UnreachableError,
)
from .app.reader import StreamedEntry
from .app.schema import upgrade_schema
from .app.store import BeanieSessionStore
from .models import DOCUMENT_MODELS, EntryChunk, SessionSummary, TranscriptEntry

__all__ = [
    "DOCUMENT_MODELS",
    "AccessDeniedError",
    "BeanieSessionStore",
    "ClientClosedError",
    "ContentionError",
    "CorruptEntryError",
    "EmbeddedMongo",
    "EntryChunk",
    "EventLoopError",
    "InvalidEntryError",
    "InvalidKeyError",
    "InvalidMetadataError",
    "InvalidModelError",
    "InvalidURLError",
    "MongodNotFoundError",
    "MongodStartError",
    "NotInitializedError",
    "SchemaOutdatedError",
    "SchemaTooNewError",
    "ServerError",
    "SessionChangedError",
    "SessionStoreError",
    "SessionSummary",
    "StreamedEntry",
    "TranscriptEntry",
    "UnreachableError",
    "upgrade_schema",
]
