"""List the sessions of a project from an index alone."""

from beanie import Document, free_fall_migration

from beanie_session_store.migrations._operations import create_index, drop_index

SUMMARIES = "claude_transcript_summaries"


class Anchor(Document):
    """Tells the steps below which database they work on.

    It is the log's collection, which has no indexes that Beanie could drop with
    --allow-index-dropping.
    """

    class Settings:
        name = "claude_transcript_migrations"


class Forward:
    @free_fall_migration(document_models=[Anchor])
    async def create_listing_index(self, session):
        await create_index(
            Anchor,
            SUMMARIES,
            [
                ("tenant", 1),
                ("project_key", 1),
                ("session_id", 1),
                ("mtime", 1),
                ("expires_at", 1),
            ],
            "session_listing",
        )


class Backward:
    @free_fall_migration(document_models=[Anchor])
    async def drop_listing_index(self, session):
        await drop_index(Anchor, SUMMARIES, "session_listing")
