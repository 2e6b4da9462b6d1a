"""A Claude Agent SDK session store for teams on Beanie.

store = BeanieSessionStore(tenant="acme")
async for message in query(prompt=..., options=ClaudeAgentOptions(session_store=store)): ...
"""

from .app.adopt import AdoptionProblem, AdoptionReport, adopt
from .app.adoption_sources import AdoptionSource
from .app.driver import database_of
from .app.embedded import EmbeddedMongo
from .app.errors import (
    AccessDeniedError,
    AdoptionError,
    ClientClosedError,
    ContentionError,
    CorruptEntryError,
    DriverMismatchError,
    EventLoopError,
    InvalidEntryError,
    InvalidKeyError,
    InvalidMetadataError,
    InvalidMigrationError,
    InvalidModelError,
    InvalidRetentionError,
    InvalidURLError,
    MigrationLockLostError,
    MongodNotFoundError,
    MongodStartError,
    NotInitializedError,
    SchemaOutdatedError,
    SchemaTooNewError,
    ServerError,
    SessionChangedError,
    SessionStoreError,
    UnknownSessionError,
    UnreachableError,
)
from .app.reader import StreamedEntry
from .app.retention import clear_retention, retention_policies, set_retention
from .app.schema import (
    SchemaStatus,
    ScriptStatus,
    downgrade_schema,
    schema_status,
    upgrade_schema,
)
from .app.store import BeanieSessionStore
from .models import DOCUMENT_MODELS, EntryChunk, RetentionPolicy, SessionSummary, TranscriptEntry

__all__ = [
    "DOCUMENT_MODELS",
    "AccessDeniedError",
    "AdoptionError",
    "AdoptionProblem",
    "AdoptionReport",
    "AdoptionSource",
    "BeanieSessionStore",
    "ClientClosedError",
    "ContentionError",
    "CorruptEntryError",
    "DriverMismatchError",
    "EmbeddedMongo",
    "EntryChunk",
    "EventLoopError",
    "InvalidEntryError",
    "InvalidKeyError",
    "InvalidMetadataError",
    "InvalidMigrationError",
    "InvalidModelError",
    "InvalidRetentionError",
    "InvalidURLError",
    "MigrationLockLostError",
    "MongodNotFoundError",
    "MongodStartError",
    "NotInitializedError",
    "RetentionPolicy",
    "SchemaOutdatedError",
    "SchemaStatus",
    "SchemaTooNewError",
    "ScriptStatus",
    "ServerError",
    "SessionChangedError",
    "SessionStoreError",
    "SessionSummary",
    "StreamedEntry",
    "TranscriptEntry",
    "UnknownSessionError",
    "UnreachableError",
    "adopt",
    "clear_retention",
    "database_of",
    "downgrade_schema",
    "retention_policies",
    "schema_status",
    "set_retention",
    "upgrade_schema",
]
