"""Let an index tell which responses of a session were counted.

Entries are marked as they are appended from then on. A session that was written before is marked
and counted anew with its next append, or by repair.
"""

from beanie import Document, free_fall_migration

from beanie_session_store.migrations._operations import create_index, drop_index

ENTRIES = "claude_transcript_entries"


class Anchor(Document):
    """Tells the steps below which database they work on.

    It is the log's collection, which has no indexes that Beanie could drop with
    --allow-index-dropping.
    """

    class Settings:
        name = "claude_transcript_migrations"


class Forward:
    @free_fall_migration(document_models=[Anchor])
    async def create_counted_index(self, session):
        await create_index(
            Anchor,
            ENTRIES,
            [("tenant", 1), ("project_key", 1), ("session_id", 1), ("counted", 1)],
            "transcript_counted",
            unique=True,
            partialFilterExpression={"counted": {"$exists": True}},
        )


class Backward:
    @free_fall_migration(document_models=[Anchor])
    async def drop_counted_index(self, session):
        await drop_index(Anchor, ENTRIES, "transcript_counted")
