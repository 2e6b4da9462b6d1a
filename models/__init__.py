"""What is stored: Beanie documents for transcript entries and session summaries."""

from .entry import EntryChunk, TranscriptEntry
from .retention import RetentionPolicy
from .summary import SessionSummary

DOCUMENT_MODELS = [TranscriptEntry, SessionSummary, EntryChunk, RetentionPolicy]
"""The Document classes to hand to ``init_beanie``."""

__all__ = ["DOCUMENT_MODELS", "EntryChunk", "RetentionPolicy", "SessionSummary", "TranscriptEntry"]
