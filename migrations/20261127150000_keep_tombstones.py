"""Remember which sessions were erased, so that nobody brings them back.

Tombstones are kept without this too, but then only an append or another erasure takes them away
when their time is over.
"""

from beanie import Document, free_fall_migration

from beanie_session_store.migrations._operations import create_index, drop_index

SUMMARIES = "claude_transcript_summaries"
ERASURES = "claude_transcript_erasures"


class Anchor(Document):
    """Tells the steps below which database they work on.

    It is the log's collection, which has no indexes that Beanie could drop with
    --allow-index-dropping.
    """

    class Settings:
        name = "claude_transcript_migrations"


class Forward:
    @free_fall_migration(document_models=[Anchor])
    async def create_tombstone_indexes(self, session):
        await create_index(
            Anchor,
            SUMMARIES,
            [("erased_until", 1)],
            "transcript_tombstone",
            expireAfterSeconds=0,
            # Sessions that live would be in it otherwise, all under null.
            sparse=True,
        )
        await create_index(
            Anchor, ERASURES, [("expires_at", 1)], "erasure_expiry", expireAfterSeconds=0
        )


class Backward:
    @free_fall_migration(document_models=[Anchor])
    async def drop_tombstone_indexes(self, session):
        await drop_index(Anchor, SUMMARIES, "transcript_tombstone")
        await drop_index(Anchor, ERASURES, "erasure_expiry")
