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
    from .app.adoption.adopt import adopt
    from .app.adoption.report import AdoptionProblem, AdoptionReport
    from .app.adoption.sources import AdoptionSource
    from .app.audit.chain import AuditCheck, AuditFault, audit_records, verify_audit
    from .app.audit.records import AuditRecord
    from .app.budgets.budget import Budget, OnPassed, Spending
    from .app.concurrency.cancellation import settled
    from .app.database.driver import database_of
    from .app.embedded.mongo import EmbeddedMongo
    from .app.errors import (
        AccessDeniedError,
        AdoptionError,
        AmbiguousSessionError,
        AuditUnavailableError,
        ClientClosedError,
        ContentionError,
        CorruptEntryError,
        DamagedSealError,
        DriverMismatchError,
        EncryptionError,
        EventLoopError,
        FeedLostError,
        FeedOverrunError,
        InvalidActorError,
        InvalidBudgetError,
        InvalidEntryError,
        InvalidKeyError,
        InvalidKeyFileError,
        InvalidLeaseError,
        InvalidMetadataError,
        InvalidMigrationError,
        InvalidModelError,
        InvalidOptionsError,
        InvalidPriceError,
        InvalidQueryError,
        InvalidReceiptError,
        InvalidRetentionError,
        InvalidURLError,
        KeyDestroyedError,
        KeyServiceError,
        LeaseLostError,
        MigrationLockLostError,
        MongodNotFoundError,
        MongodStartError,
        NoKeysError,
        NotInitializedError,
        ObserverError,
        PlainContentsError,
        SchemaOutdatedError,
        SchemaTooNewError,
        SealedQueryError,
        ServerError,
        SessionBusyError,
        SessionChangedError,
        SessionErasedError,
        SessionStoreError,
        SlowQueryError,
        StandaloneError,
        StoreOwnedError,
        TransferError,
        UnfitCollectionError,
        UnknownSessionError,
        UnreachableError,
        UnsoundSessionError,
        WrongKeyError,
    )
    from .app.every import EVERY, Every
    from .app.feed.changes import SessionChange
    from .app.feed.feed import Feed
    from .app.health.doctor import diagnose
    from .app.health.endpoints import HealthChecks
    from .app.health.findings import Diagnosis, Finding
    from .app.health.readiness import Readiness
    from .app.jobs.copies import copy_sessions
    from .app.jobs.exports import export_transcripts
    from .app.jobs.imports import import_transcripts
    from .app.jobs.report import TransferProblem, TransferReport
    from .app.jobs.sealing import SealingReport, seal_sessions
    from .app.jobs.verification import UnsoundSession, VerificationReport, verify_sessions
    from .app.leases.lease import Lease, OnLost
    from .app.leases.leased_store import LeasedStore
    from .app.pricing.estimates import Estimate
    from .app.pricing.price_table import PriceTable
    from .app.pricing.token_price import TokenPrice
    from .app.queries.search import SearchHit, disable_search, enable_search
    from .app.queries.statistics import ToolStatistics, UsageStatistics
    from .app.queries.summary_pages import SessionPage
    from .app.reading.listings import SessionListing
    from .app.reading.stream import StreamedEntry
    from .app.retention.erasure_check import ErasureCheck, ErasureRemnant
    from .app.retention.policies import clear_retention, retention_policies, set_retention
    from .app.retention.receipts import ErasureReceipt
    from .app.retention.removal import Removal
    from .app.schema.versions import (
        SchemaStatus,
        ScriptStatus,
        downgrade_schema,
        schema_status,
        upgrade_schema,
    )
    from .app.sdk import preload
    from .app.store import BeanieSessionStore
    from .app.transcript_key import session_key
    from .app.transcripts.conversation import Subagent, ToolCall, Turn
    from .app.transcripts.tokens import Tokens
    from .app.transcripts.transcript import Transcript
    from .app.writing.housekeeping import Sweeping, sweep_sessions
    from .app.writing.new_sessions import NewSession
    from .app.writing.observers import CommittedAppend, OnCommitted
    from .app.writing.repair import Difference, Verification
    from .app.writing.session_replay import SessionReplay
    from .models import (
        DOCUMENT_MODELS,
        EntryChunk,
        RetentionPolicy,
        SessionSummary,
        TranscriptEntry,
    )
    from .models.encryption_key import EncryptionKey
    from .models.mapped import Mapped, mapped
    from .models.totals import SessionTotals, ToolRow, UsageRow
    from .models.views.base import EntryView, UnknownEntry
    from .models.views.blocks import (
        Block,
        TextBlock,
        ThinkingBlock,
        ToolResultBlock,
        ToolUseBlock,
        UnknownBlock,
    )
    from .models.views.messages import AssistantEntry, AttachmentEntry, UserEntry
    from .models.views.parsing import parse_entry, unmodelled
    from .models.views.records import CostStateEntry
    from .models.views.system import CompactBoundaryEntry, SystemEntry
    from .models.views.usage import Usage

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
    "AuditCheck",
    "AuditFault",
    "AuditRecord",
    "AuditUnavailableError",
    "BeanieSessionStore",
    "Block",
    "Budget",
    "ClientClosedError",
    "CommittedAppend",
    "CompactBoundaryEntry",
    "ContentionError",
    "CorruptEntryError",
    "CostStateEntry",
    "DamagedSealError",
    "Diagnosis",
    "Difference",
    "DriverMismatchError",
    "EmbeddedMongo",
    "EncryptionError",
    "EncryptionKey",
    "EntryChunk",
    "EntryView",
    "ErasureCheck",
    "ErasureReceipt",
    "ErasureRemnant",
    "Estimate",
    "EventLoopError",
    "Every",
    "Feed",
    "FeedLostError",
    "FeedOverrunError",
    "Finding",
    "HealthChecks",
    "InvalidActorError",
    "InvalidBudgetError",
    "InvalidEntryError",
    "InvalidKeyError",
    "InvalidKeyFileError",
    "InvalidLeaseError",
    "InvalidMetadataError",
    "InvalidMigrationError",
    "InvalidModelError",
    "InvalidOptionsError",
    "InvalidPriceError",
    "InvalidQueryError",
    "InvalidReceiptError",
    "InvalidRetentionError",
    "InvalidURLError",
    "KeyDestroyedError",
    "KeyServiceError",
    "Lease",
    "LeaseLostError",
    "LeasedStore",
    "Mapped",
    "MigrationLockLostError",
    "MongodNotFoundError",
    "MongodStartError",
    "NewSession",
    "NoKeysError",
    "NotInitializedError",
    "ObserverError",
    "OnCommitted",
    "OnLost",
    "OnPassed",
    "PlainContentsError",
    "PriceTable",
    "Readiness",
    "Removal",
    "RetentionPolicy",
    "SchemaOutdatedError",
    "SchemaStatus",
    "SchemaTooNewError",
    "ScriptStatus",
    "SealedQueryError",
    "SealingReport",
    "SearchHit",
    "ServerError",
    "SessionBusyError",
    "SessionChange",
    "SessionChangedError",
    "SessionErasedError",
    "SessionListing",
    "SessionPage",
    "SessionReplay",
    "SessionStoreError",
    "SessionSummary",
    "SessionTotals",
    "SlowQueryError",
    "Spending",
    "StandaloneError",
    "StoreOwnedError",
    "StreamedEntry",
    "Subagent",
    "Sweeping",
    "SystemEntry",
    "TextBlock",
    "ThinkingBlock",
    "TokenPrice",
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
    "WrongKeyError",
    "adopt",
    "audit_records",
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
    "seal_sessions",
    "session_key",
    "set_retention",
    "settled",
    "sweep_sessions",
    "unmodelled",
    "upgrade_schema",
    "verify_audit",
    "verify_sessions",
]

_HOMES = {
    ".app.adoption.adopt": "adopt",
    ".app.adoption.report": "AdoptionProblem AdoptionReport",
    ".app.adoption.sources": "AdoptionSource",
    ".app.audit.chain": "AuditCheck AuditFault audit_records verify_audit",
    ".app.audit.records": "AuditRecord",
    ".app.budgets.budget": "Budget OnPassed Spending",
    ".app.concurrency.cancellation": "settled",
    ".app.database.driver": "database_of",
    ".app.embedded.mongo": "EmbeddedMongo",
    ".app.errors": (
        "AccessDeniedError AdoptionError AmbiguousSessionError AuditUnavailableError "
        "ClientClosedError ContentionError CorruptEntryError DamagedSealError "
        "DriverMismatchError EncryptionError EventLoopError FeedLostError FeedOverrunError "
        "InvalidActorError InvalidBudgetError InvalidEntryError InvalidKeyError "
        "InvalidKeyFileError InvalidLeaseError InvalidMetadataError InvalidMigrationError "
        "InvalidModelError InvalidOptionsError InvalidPriceError InvalidQueryError "
        "InvalidReceiptError InvalidRetentionError InvalidURLError KeyDestroyedError "
        "KeyServiceError LeaseLostError MigrationLockLostError MongodNotFoundError "
        "MongodStartError NoKeysError NotInitializedError ObserverError PlainContentsError "
        "SchemaOutdatedError SchemaTooNewError SealedQueryError ServerError SessionBusyError "
        "SessionChangedError SessionErasedError SessionStoreError SlowQueryError "
        "StandaloneError StoreOwnedError TransferError UnfitCollectionError "
        "UnknownSessionError UnreachableError UnsoundSessionError WrongKeyError"
    ),
    ".app.every": "EVERY Every",
    ".app.feed.changes": "SessionChange",
    ".app.feed.feed": "Feed",
    ".app.health.doctor": "diagnose",
    ".app.health.endpoints": "HealthChecks",
    ".app.health.findings": "Diagnosis Finding",
    ".app.health.readiness": "Readiness",
    ".app.jobs.copies": "copy_sessions",
    ".app.jobs.exports": "export_transcripts",
    ".app.jobs.imports": "import_transcripts",
    ".app.jobs.report": "TransferProblem TransferReport",
    ".app.jobs.sealing": "SealingReport seal_sessions",
    ".app.jobs.verification": "UnsoundSession VerificationReport verify_sessions",
    ".app.leases.lease": "Lease OnLost",
    ".app.leases.leased_store": "LeasedStore",
    ".app.pricing.estimates": "Estimate",
    ".app.pricing.price_table": "PriceTable",
    ".app.pricing.token_price": "TokenPrice",
    ".app.queries.search": "SearchHit disable_search enable_search",
    ".app.queries.statistics": "ToolStatistics UsageStatistics",
    ".app.queries.summary_pages": "SessionPage",
    ".app.reading.listings": "SessionListing",
    ".app.reading.stream": "StreamedEntry",
    ".app.retention.erasure_check": "ErasureCheck ErasureRemnant",
    ".app.retention.policies": "clear_retention retention_policies set_retention",
    ".app.retention.receipts": "ErasureReceipt",
    ".app.retention.removal": "Removal",
    ".app.schema.versions": (
        "SchemaStatus ScriptStatus downgrade_schema schema_status upgrade_schema"
    ),
    ".app.sdk": "preload",
    ".app.store": "BeanieSessionStore",
    ".app.transcript_key": "session_key",
    ".app.transcripts.conversation": "Subagent ToolCall Turn",
    ".app.transcripts.tokens": "Tokens",
    ".app.transcripts.transcript": "Transcript",
    ".app.writing.housekeeping": "Sweeping sweep_sessions",
    ".app.writing.new_sessions": "NewSession",
    ".app.writing.observers": "CommittedAppend OnCommitted",
    ".app.writing.repair": "Difference Verification",
    ".app.writing.session_replay": "SessionReplay",
    ".models": "DOCUMENT_MODELS EntryChunk RetentionPolicy SessionSummary TranscriptEntry",
    ".models.encryption_key": "EncryptionKey",
    ".models.mapped": "Mapped mapped",
    ".models.totals": "SessionTotals ToolRow UsageRow",
    ".models.views.base": "EntryView UnknownEntry",
    ".models.views.blocks": (
        "Block TextBlock ThinkingBlock ToolResultBlock ToolUseBlock UnknownBlock"
    ),
    ".models.views.messages": "AssistantEntry AttachmentEntry UserEntry",
    ".models.views.parsing": "parse_entry unmodelled",
    ".models.views.records": "CostStateEntry",
    ".models.views.system": "CompactBoundaryEntry SystemEntry",
    ".models.views.usage": "Usage",
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
