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


class Anchor(Document):
    """Tells the steps below which database they work on.

    It is the log's collection, which has no indexes that Beanie could drop with
    --allow-index-dropping.
    """

    class Settings:
        name = "claude_transcript_migrations"


class Forward:
    @free_fall_migration(document_models=[Anchor])
    async def create_policies_and_expiry_indexes(self, session):
        await create_collection(Anchor, POLICIES)
        await create_index(
            Anchor, POLICIES, [("tenant", 1), ("project_key", 1)], "policy", unique=True
        )
        for name in EXPIRING:
            await create_index(
                Anchor,
                name,
                [("expires_at", 1)],
                "transcript_expiry",
                expireAfterSeconds=0,
                # Documents without a date would be in it otherwise, all under null.
                sparse=True,
            )


class Backward:
    @free_fall_migration(document_models=[Anchor])
    async def drop_expiry_indexes_and_policies(self, session):
        for name in reversed(EXPIRING):
            await drop_index(Anchor, name, "transcript_expiry")
        await drop_index(Anchor, POLICIES, "policy")
        await drop_collection_if_empty(Anchor, POLICIES)
