"""How long sessions are kept: one document per tenant and project, or for all of them."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any, ClassVar

from beanie import Document
from pydantic import Field
from pymongo import ASCENDING, IndexModel

from ..app.every import EVERY
from .mapped import Mapped, mapped
from .owned import StoreOwned

FOR_EVER = datetime(9999, 1, 1, tzinfo=timezone.utc)

SERVER_NOW: dict[str, Any] = {"$toDate": {"$toLong": "$$NOW"}}
"""The server's clock as a date. It equals ``$$NOW``, which not every engine compares with dates."""

NOT_EXPIRED: dict[str, Any] = {
    "$expr": {"$gt": [{"$ifNull": ["$expires_at", FOR_EVER]}, SERVER_NOW]}
}
"""A query for summaries whose date has not passed, by the server's clock.

Entries are no more to be asked: they are dated later than their session lives.
"""

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

    tenant: Mapped[str] = mapped(
        default=EVERY.value, description='A tenant, or "*" for every other one.'
    )
    project_key: Mapped[str] = mapped(
        default=EVERY.value, description='A project key, or "*" for every other one.'
    )
    keep_seconds: Mapped[int | None] = Field(
        description="Seconds a session is kept after its last append; null keeps it for ever."
    )
    updated_at: Mapped[datetime] = Field(description="When the policy was set, UTC.")

    class Settings:
        """Collection and indexes, as Beanie reads them."""

        name = "claude_retention_policies"
        indexes = [POLICY_INDEX]
