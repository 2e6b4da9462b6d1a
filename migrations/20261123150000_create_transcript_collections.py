"""Create the collections for entries, summaries and chunks, and their unique indexes."""

from beanie import Document, free_fall_migration

from beanie_session_store.migrations._operations import (
    create_collection,
    create_index,
    drop_collection_if_empty,
    drop_index,
)

ENTRIES = "claude_transcript_entries"
SUMMARIES = "claude_transcript_summaries"
CHUNKS = "claude_transcript_chunks"
ERASURES = "claude_transcript_erasures"

SESSION = [("tenant", 1), ("project_key", 1), ("session_id", 1)]


class Anchor(Document):
    """Tells the steps below which database they work on.

    It is the log's collection, which has no indexes that Beanie could drop with
    --allow-index-dropping.
    """

    class Settings:
        name = "claude_transcript_migrations"


class Forward:
    @free_fall_migration(document_models=[Anchor])
    async def create_collections_and_indexes(self, session):
        for name in (ENTRIES, SUMMARIES, CHUNKS):
            await create_collection(Anchor, name)
        await create_index(
            Anchor,
            ENTRIES,
            [*SESSION, ("subpath", 1), ("seq", 1)],
            "transcript_order",
            unique=True,
        )
        await create_index(
            Anchor,
            ENTRIES,
            [*SESSION, ("subpath", 1), ("uuid", 1)],
            "transcript_uuid",
            unique=True,
            partialFilterExpression={"uuid": {"$exists": True}},
        )
        await create_index(Anchor, SUMMARIES, SESSION, "session", unique=True)
        await create_index(
            Anchor,
            CHUNKS,
            [*SESSION, ("collection", 1), ("subpath", 1), ("seq", 1), ("part", 1)],
            "chunk_order",
            unique=True,
        )


class Backward:
    @free_fall_migration(document_models=[Anchor])
    async def drop_indexes_and_empty_collections(self, session):
        await drop_index(Anchor, CHUNKS, "chunk_order")
        await drop_index(Anchor, SUMMARIES, "session")
        await drop_index(Anchor, ENTRIES, "transcript_uuid")
        await drop_index(Anchor, ENTRIES, "transcript_order")
        # Erasures are of a later script, whose own way down shall do without the right to rename.
        for name in (ERASURES, CHUNKS, SUMMARIES, ENTRIES):
            await drop_collection_if_empty(Anchor, name)
