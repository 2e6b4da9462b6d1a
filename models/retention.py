"""How long sessions are kept: one document per tenant and project, or for all of them."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from beanie import Document
from pydantic import Field
from pymongo import ASCENDING, IndexModel

from ..app.every import EVERY
from .owned import StoreOwned

POLICY_INDEX = IndexModel(
    [("tenant", ASCENDING), ("project_key", ASCENDING)], name="policy", unique=True
)

EXPIRY_INDEX = IndexModel(
    [("expires_at", ASCENDING)], name="transcript_expiry", expireAfterSeconds=0, sparse=True
)
"""Sparse, so that it costs nothing where no policy gives dates.

Never changes: ``init_beanie`` fails at start-up where a declared TTL index differs from the
stored one. What changes is the date in the documents."""


class RetentionPolicy(StoreOwned, Document):
    """How long an idle session is kept.

    Of several that fit a session the most specific one holds: its tenant and project, its
    tenant, its project, everything.
    """

    _team_fields: ClassVar[frozenset[str]] = frozenset()
    _way: ClassVar[str] = (
        "Policies are set by set_retention() and removed by clear_retention(), which also give "
        "stored sessions their dates."
    )

    tenant: str = Field(default=EVERY.value, description='A tenant, or "*" for every other one.')
    project_key: str = Field(
        default=EVERY.value, description='A project key, or "*" for every other one.'
    )
    keep_seconds: int | None = Field(
        description="Seconds a session is kept after its last append; null keeps it for ever."
    )
    updated_at: datetime = Field(description="When the policy was set, UTC.")

    class Settings:
        """Collection and indexes, as Beanie reads them."""

        name = "claude_retention_policies"
        indexes = [POLICY_INDEX]
