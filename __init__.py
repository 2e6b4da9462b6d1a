"""A Claude Agent SDK session store for teams on Beanie.

store = BeanieSessionStore(tenant="acme")
async for message in query(prompt=..., options=ClaudeAgentOptions(session_store=store)): ...
"""

from .app.adopt import AdoptionProblem, AdoptionReport, adopt
from .app.adoption_sources import AdoptionSource
from .app.conversation import Tokens, ToolCall, Turn
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
    InvalidQueryError,
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
    StandaloneError,
    TransferError,
    UnknownSessionError,
    UnreachableError,
)
from .app.exports import export_transcripts
from .app.imports import import_transcripts
from .app.new_sessions import NewSession
from .app.reader import SessionListing, StreamedEntry
from .app.repair import Difference, Verification
from .app.retention import clear_retention, retention_policies, set_retention
from .app.schema import (
    SchemaStatus,
    ScriptStatus,
    downgrade_schema,
    schema_status,
    upgrade_schema,
)
from .app.search import SearchHit, disable_search, enable_search
from .app.session_pages import SessionPage
from .app.session_replay import SessionReplay
from .app.statistics import ToolStatistics, UsageStatistics
from .app.store import BeanieSessionStore
from .app.transcript import Subagent, Transcript
from .app.transfer import TransferProblem, TransferReport
from .app.verification import UnsoundSession, VerificationReport, verify_sessions
from .models import DOCUMENT_MODELS, EntryChunk, RetentionPolicy, SessionSummary, TranscriptEntry
from .models.blocks import (
    Block,
    TextBlock,
    ThinkingBlock,
    ToolResultBlock,
    ToolUseBlock,
    UnknownBlock,
)
from .models.entry_view import EntryView, UnknownEntry
from .models.messages import AssistantEntry, AttachmentEntry, UserEntry
from .models.records import CostStateEntry
from .models.system import CompactBoundaryEntry, SystemEntry
from .models.totals import SessionTotals, ToolRow, UsageRow
from .models.transcript import parse_entry, unmodelled
from .models.usage import Usage

__all__ = [
    "DOCUMENT_MODELS",
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
    "Finding",
    "InvalidEntryError",
    "InvalidKeyError",
    "InvalidMetadataError",
    "InvalidMigrationError",
    "InvalidModelError",
    "InvalidQueryError",
    "InvalidRetentionError",
    "InvalidURLError",
    "MigrationLockLostError",
    "MongodNotFoundError",
    "MongodStartError",
    "NewSession",
    "NotInitializedError",
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
    "StandaloneError",
    "StreamedEntry",
    "Subagent",
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
    "UnknownBlock",
    "UnknownEntry",
    "UnknownSessionError",
    "UnreachableError",
    "UnsoundSession",
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
    "parse_entry",
    "retention_policies",
    "schema_status",
    "set_retention",
    "unmodelled",
    "upgrade_schema",
    "verify_sessions",
]
