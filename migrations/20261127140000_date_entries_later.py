"""Date the entries of sessions with a date later than these, in batches.

So an append need not do it before it can move the date of a session that the release before wrote.
"""

from beanie import Document, free_fall_migration

from beanie_session_store.migrations._operations import date_entries_later

ENTRIES = "claude_transcript_entries"
SUMMARIES = "claude_transcript_summaries"
CHUNKS = "claude_transcript_chunks"


class Anchor(Document):
    """Tells the steps below which database they work on.

    It is the log's collection, which has no indexes that Beanie could drop with
    --allow-index-dropping.
    """

    class Settings:
        name = "claude_transcript_migrations"


class Forward:
    @free_fall_migration(document_models=[Anchor])
    async def date_entries_later(self, session):
        await date_entries_later(Anchor, SUMMARIES, (ENTRIES, CHUNKS))


class Backward:
    @free_fall_migration(document_models=[Anchor])
    async def leave_the_dates(self, session):
        """Sessions expire as before, and MongoDB takes their entries a little later."""
