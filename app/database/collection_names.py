"""The names of collections."""

from __future__ import annotations

from beanie import Document

from ...models.retention import RetentionPolicy

ADOPTION_RECORDS = "claude_transcript_adoptions"
"""How far each session was adopted. It outlives the session: a deleted one stays deleted."""

ERASURES = "claude_transcript_erasures"
"""What erasures have come to, for as long as the tombstones of their sessions stand."""

AUDIT = "claude_transcript_audit"
"""What was done by whom, where a store keeps an audit; nothing is ever taken from it."""

PASSED_BUDGETS = "claude_passed_budgets"
"""Of which budgets somebody was told that they are passed, until the period ends."""


def collection_name(model: type[Document]) -> str:
    """The collection of a Document class, initialised or not."""
    settings = getattr(model, "Settings", None)
    return getattr(settings, "name", None) or model.__name__


def policy_collection_name() -> str:
    """The collection of the policies; it is one per database, whatever a team's classes."""
    return RetentionPolicy.Settings.name
