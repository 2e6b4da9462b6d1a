"""Say of usage that wrote nothing to the cache that it wrote nothing for an hour.

What did write to it is told apart when its session is counted anew: with its next append, or by
repair. Until then it reads as not known.
"""

from beanie import Document, free_fall_migration

from beanie_session_store.migrations._operations import fill_rows

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
    async def fill_cache_writes(self, session):
        nothing_written = {"cache_creation": 0, "cache_creation_1h": {"$exists": False}}
        await fill_rows(
            Anchor, SUMMARIES, "totals.usage", nothing_written, {"cache_creation_1h": 0}
        )


class Backward:
    @free_fall_migration(document_models=[Anchor])
    async def leave_cache_writes(self, session):
        """Older releases pass over the field, and leave it out of what they write."""
