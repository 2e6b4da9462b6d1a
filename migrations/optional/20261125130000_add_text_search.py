"""Search prompts and answers by their words.

The index costs every append the words of what is said, so it is made only where it is wanted.
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
    async def create_text_index(self, session):
        await create_index(
            Anchor,
            ENTRIES,
            [
                ("tenant", 1),
                ("entry.message.content", "text"),
                ("entry.message.content.text", "text"),
            ],
            "transcript_text",
            # Words as they are: transcripts are in any language, and in code.
            default_language="none",
            # By default MongoDB reads the field "language" of any part of an entry, and refuses
            # the entry where it does not know the language.
            language_override="session_store_language",
            partialFilterExpression={"entry.message.content": {"$exists": True}},
        )


class Backward:
    @free_fall_migration(document_models=[Anchor])
    async def drop_text_index(self, session):
        await drop_index(Anchor, ENTRIES, "transcript_text")
