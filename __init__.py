"""A Claude Agent SDK session store for teams on Beanie.

store = BeanieSessionStore(tenant="acme")
async for message in query(prompt=..., options=ClaudeAgentOptions(session_store=store)): ...
"""

from importlib import import_module
from threading import RLock
from typing import TYPE_CHECKING

# For those who read the types. Whoever runs it imports each name when it is first asked for, from
# where `_HOMES` says, so that nobody waits for what they do not use.
if TYPE_CHECKING:
    from .app.adopt import adopt
    from .app.adoption_report import AdoptionProblem, AdoptionReport
    from .app.adoption_sources import AdoptionSource
    from .app.completion import settled
    from .app.conversation import Subagent, ToolCall, Turn
    from .app.copies import copy_sessions
    from .app.diagnosis import Diagnosis, Finding
    from .app.doctor import diagnose
    from .app.driver import database_of
    from .app.embedded import EmbeddedMongo
    from .app.errors import (
        AccessDeniedError,
        AdoptionError,
        AmbiguousSessionError,
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
        InvalidOptionsError,
        InvalidQueryError,
        InvalidRetentionError,
        InvalidURLError,
        MigrationLockLostError,
        MongodNotFoundError,
        MongodStartError,
        NotInitializedError,
        ObserverError,
        SchemaOutdatedError,
        SchemaTooNewError,
        ServerError,
        SessionChangedError,
        SessionStoreError,
        SlowQueryError,
        StandaloneError,
        StoreOwnedError,
        TransferError,
        UnfitCollectionError,
        UnknownSessionError,
        UnreachableError,
        UnsoundSessionError,
    )
    from .app.every import EVERY, Every
    from .app.exports import export_transcripts
    from .app.housekeeping import Sweeping, sweep_sessions
    from .app.imports import import_transcripts
    from .app.key import session_key
    from .app.listings import SessionListing
    from .app.new_sessions import NewSession
    from .app.observing import CommittedAppend, OnCommitted
    from .app.removal import Removal
    from .app.repair import Difference, Verification
    from .app.retention import clear_retention, retention_policies, set_retention
    from .app.schema import (
        SchemaStatus,
        ScriptStatus,
        downgrade_schema,
        schema_status,
        upgrade_schema,
    )
    from .app.sdk import preload
    from .app.search import SearchHit, disable_search, enable_search
    from .app.session_pages import SessionPage
    from .app.session_replay import SessionReplay
    from .app.statistics import ToolStatistics, UsageStatistics
    from .app.store import BeanieSessionStore
    from .app.stream import StreamedEntry
    from .app.tokens import Tokens
    from .app.transcript import Transcript
    from .app.transfer import TransferProblem, TransferReport
    from .app.verification import UnsoundSession, VerificationReport, verify_sessions
    from .models import (
        DOCUMENT_MODELS,
        EntryChunk,
        RetentionPolicy,
        SessionSummary,
        TranscriptEntry,
    )
    from .models.blocks import (
        Block,
        TextBlock,
        ThinkingBlock,
        ToolResultBlock,
        ToolUseBlock,
        UnknownBlock,
    )
    from .models.entry_view import EntryView, UnknownEntry
    from .models.mapped import Mapped, mapped
    from .models.messages import AssistantEntry, AttachmentEntry, UserEntry
    from .models.records import CostStateEntry
    from .models.system import CompactBoundaryEntry, SystemEntry
    from .models.totals import SessionTotals, ToolRow, UsageRow
    from .models.transcript import parse_entry, unmodelled
    from .models.usage import Usage

__all__ = [
    "DOCUMENT_MODELS",
    "EVERY",
    "AccessDeniedError",
    "AdoptionError",
    "AdoptionProblem",
    "AdoptionReport",
    "AdoptionSource",
    "AmbiguousSessionError",
    "AssistantEntry",
    "AttachmentEntry",
    "BeanieSessionStore",
    "Block",
    "ClientClosedError",
    "CommittedAppend",
    "CompactBoundaryEntry",
    "ContentionError",
    "CorruptEntryError",
    "CostStateEntry",
    "Diagnosis",
    "Difference",
    "DriverMismatchError",
    "EmbeddedMongo",
    "EntryChunk",
    "EntryView",
    "EventLoopError",
    "Every",
    "Finding",
    "InvalidEntryError",
    "InvalidKeyError",
    "InvalidMetadataError",
    "InvalidMigrationError",
    "InvalidModelError",
    "InvalidOptionsError",
    "InvalidQueryError",
    "InvalidRetentionError",
    "InvalidURLError",
    "Mapped",
    "MigrationLockLostError",
    "MongodNotFoundError",
    "MongodStartError",
    "NewSession",
    "NotInitializedError",
    "ObserverError",
    "OnCommitted",
    "Removal",
    "RetentionPolicy",
    "SchemaOutdatedError",
    "SchemaStatus",
    "SchemaTooNewError",
    "ScriptStatus",
    "SearchHit",
    "ServerError",
    "SessionChangedError",
    "SessionListing",
    "SessionPage",
    "SessionReplay",
    "SessionStoreError",
    "SessionSummary",
    "SessionTotals",
    "SlowQueryError",
    "StandaloneError",
    "StoreOwnedError",
    "StreamedEntry",
    "Subagent",
    "Sweeping",
    "SystemEntry",
    "TextBlock",
    "ThinkingBlock",
    "Tokens",
    "ToolCall",
    "ToolResultBlock",
    "ToolRow",
    "ToolStatistics",
    "ToolUseBlock",
    "Transcript",
    "TranscriptEntry",
    "TransferError",
    "TransferProblem",
    "TransferReport",
    "Turn",
    "UnfitCollectionError",
    "UnknownBlock",
    "UnknownEntry",
    "UnknownSessionError",
    "UnreachableError",
    "UnsoundSession",
    "UnsoundSessionError",
    "Usage",
    "UsageRow",
    "UsageStatistics",
    "UserEntry",
    "Verification",
    "VerificationReport",
    "adopt",
    "clear_retention",
    "copy_sessions",
    "database_of",
    "diagnose",
    "disable_search",
    "downgrade_schema",
    "enable_search",
    "export_transcripts",
    "import_transcripts",
    "mapped",
    "parse_entry",
    "preload",
    "retention_policies",
    "schema_status",
    "session_key",
    "set_retention",
    "settled",
    "sweep_sessions",
    "unmodelled",
    "upgrade_schema",
    "verify_sessions",
]

_HOMES = {
    ".app.adopt": "adopt",
    ".app.adoption_report": "AdoptionProblem AdoptionReport",
    ".app.adoption_sources": "AdoptionSource",
    ".app.completion": "settled",
    ".app.conversation": "Subagent ToolCall Turn",
    ".app.copies": "copy_sessions",
    ".app.diagnosis": "Diagnosis Finding",
    ".app.doctor": "diagnose",
    ".app.driver": "database_of",
    ".app.embedded": "EmbeddedMongo",
    ".app.errors": (
        "AccessDeniedError AdoptionError AmbiguousSessionError ClientClosedError "
        "ContentionError CorruptEntryError DriverMismatchError EventLoopError "
        "InvalidEntryError InvalidKeyError InvalidMetadataError InvalidMigrationError "
        "InvalidModelError InvalidOptionsError InvalidQueryError "
        "InvalidRetentionError InvalidURLError MigrationLockLostError "
        "MongodNotFoundError MongodStartError NotInitializedError ObserverError "
        "SchemaOutdatedError SchemaTooNewError ServerError SessionChangedError SessionStoreError "
        "SlowQueryError StandaloneError StoreOwnedError TransferError "
        "UnfitCollectionError UnknownSessionError UnreachableError UnsoundSessionError"
    ),
    ".app.every": "EVERY Every",
    ".app.exports": "export_transcripts",
    ".app.housekeeping": "Sweeping sweep_sessions",
    ".app.imports": "import_transcripts",
    ".app.key": "session_key",
    ".app.listings": "SessionListing",
    ".app.new_sessions": "NewSession",
    ".app.observing": "CommittedAppend OnCommitted",
    ".app.removal": "Removal",
    ".app.repair": "Difference Verification",
    ".app.retention": "clear_retention retention_policies set_retention",
    ".app.schema": "SchemaStatus ScriptStatus downgrade_schema schema_status upgrade_schema",
    ".app.sdk": "preload",
    ".app.search": "SearchHit disable_search enable_search",
    ".app.session_pages": "SessionPage",
    ".app.session_replay": "SessionReplay",
    ".app.statistics": "ToolStatistics UsageStatistics",
    ".app.store": "BeanieSessionStore",
    ".app.stream": "StreamedEntry",
    ".app.tokens": "Tokens",
    ".app.transcript": "Transcript",
    ".app.transfer": "TransferProblem TransferReport",
    ".app.verification": "UnsoundSession VerificationReport verify_sessions",
    ".models": "DOCUMENT_MODELS EntryChunk RetentionPolicy SessionSummary TranscriptEntry",
    ".models.blocks": "Block TextBlock ThinkingBlock ToolResultBlock ToolUseBlock UnknownBlock",
    ".models.entry_view": "EntryView UnknownEntry",
    ".models.mapped": "Mapped mapped",
    ".models.messages": "AssistantEntry AttachmentEntry UserEntry",
    ".models.records": "CostStateEntry",
    ".models.system": "CompactBoundaryEntry SystemEntry",
    ".models.totals": "SessionTotals ToolRow UsageRow",
    ".models.transcript": "parse_entry unmodelled",
    ".models.usage": "Usage",
}
# Two threads that begin with different modules would each wait for what the other has begun.
_loading = RLock()
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}

# Hidden from type checkers, which would take it for a promise that any name is there.
if not TYPE_CHECKING:

    def __getattr__(name):
        if name not in _HOME_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        with _loading:
            value = globals()[name] = getattr(import_module(_HOME_OF[name], __name__), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
