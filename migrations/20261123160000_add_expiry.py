"""Let sessions expire: policies, and TTL indexes on the date in each document.

Nothing expires by this alone: documents get a date only where a policy says so.
"""

from beanie import Document, free_fall_migration
from beanie_session_store.migrations._operations import (
    create_collection,
    create_index,
    drop_collection_if_empty,
    drop_index,
)

POLICIES = "claude_retention_policies"
EXPIRING = (
    "claude_transcript_entries",
    "claude_transcript_summaries",
    "claude_transcript_chunks",
)


class Policies(Document):
    """Tells the steps below which database they work on."""

    class Settings:
        name = POLICIES


class Forward:
    @free_fall_migration(document_models=[Policies])
    async def create_policies_and_expiry_indexes(self, session):
        await create_collection(Policies, POLICIES)
        await create_index(
            Policies, POLICIES, [("tenant", 1), ("project_key", 1)], "policy", unique=True
        )
        for name in EXPIRING:
            await create_index(
                Policies, name, [("expires_at", 1)], "transcript_expiry", expireAfterSeconds=0
            )


class Backward:
    @free_fall_migration(document_models=[Policies])
    async def drop_expiry_indexes_and_policies(self, session):
        for name in reversed(EXPIRING):
            await drop_index(Policies, name, "transcript_expiry")
        await drop_index(Policies, POLICIES, "policy")
        await drop_collection_if_empty(Policies, POLICIES)
