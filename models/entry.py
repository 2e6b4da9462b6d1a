"""Transcript entries as they are stored: one document per entry."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar

from beanie import Document
from pydantic import Field
from pymongo import ASCENDING, IndexModel

from .mapped import Mapped, mapped
from .owned import StoreOwned
from .packing import unpack
from .plain import plain
from .retention import EXPIRY_INDEX
from .views.parsing import EntryView, parse_entry

if TYPE_CHECKING:
    from claude_agent_sdk import SessionKey

MAX_SEQ = 2**63 - 1
"""No position that BSON holds is behind this."""

ORDER_INDEX = IndexModel(
    [
        ("tenant", ASCENDING),
        ("project_key", ASCENDING),
        ("session_id", ASCENDING),
        ("subpath", ASCENDING),
        ("seq", ASCENDING),
    ],
    name="transcript_order",
    unique=True,
)

UUID_INDEX = IndexModel(
    [
        ("tenant", ASCENDING),
        ("project_key", ASCENDING),
        ("session_id", ASCENDING),
        ("subpath", ASCENDING),
        ("uuid", ASCENDING),
    ],
    name="transcript_uuid",
    unique=True,
    partialFilterExpression={"uuid": {"$exists": True}},
)

COUNTED_INDEX = IndexModel(
    [
        ("tenant", ASCENDING),
        ("project_key", ASCENDING),
        ("session_id", ASCENDING),
        ("counted", ASCENDING),
    ],
    name="transcript_counted",
    unique=True,
    partialFilterExpression={"counted": {"$exists": True}},
)
"""Refuses to count a response, or a failed call, that was counted before."""

CHUNK_INDEX = IndexModel(
    [
        ("tenant", ASCENDING),
        ("project_key", ASCENDING),
        ("session_id", ASCENDING),
        ("collection", ASCENDING),
        ("subpath", ASCENDING),
        ("seq", ASCENDING),
        ("part", ASCENDING),
    ],
    name="chunk_order",
    unique=True,
)


class TranscriptEntry(StoreOwned, Document):
    """One line of an agent's transcript.

    Exactly one of ``entry``, ``packed`` and ``chunks`` is set. Subclass it to use another
    collection, further indexes or further fields with defaults::

        class AcmeEntry(TranscriptEntry):
            region: str = "eu"

            class Settings(TranscriptEntry.Settings):
                name = "acme_transcript_entries"

    The fields that you add are yours to ``set`` and ``save``; all others are read-only.
    """

    _team_fields: ClassVar[frozenset[str]] = frozenset()
    _way: ClassVar[str] = (
        "Entries are made by store.append() and removed with their transcript, by "
        "store.delete(entry.key())."
    )

    tenant: Mapped[str] = Field(description="The tenant of the store that wrote the entry.")
    project_key: Mapped[str] = Field(
        description="The SDK's project key, derived from the directory."
    )
    session_id: Mapped[str] = Field(description="The session, a UUID when the agent made it.")
    subpath: Mapped[str] = mapped(
        default="",
        description='"" in the main transcript, else such as "subagents/agent-a1".',
    )
    seq: Mapped[int] = Field(
        description="Position, from 1. One counter per session orders main and subagent entries."
    )
    uuid: Mapped[str | None] = mapped(
        default=None,
        description="The entry's own uuid, or its digest where a uuid cannot be an index key. "
        "Where another entry has the same uuid: digests of uuid and content.",
    )
    entry: Mapped[dict[str, Any] | None] = mapped(
        default=None, description="The entry as the agent wrote it, as a native document."
    )
    packed: Mapped[bytes | None] = mapped(
        default=None,
        description="The entry as compressed JSON, where BSON cannot hold it; or encrypted.",
    )
    chunks: Mapped[int | None] = mapped(
        default=None,
        description="How many EntryChunk documents hold the packed entry, where it is too large.",
    )
    counted: Mapped[bytes | list[bytes] | None] = mapped(
        default=None,
        description="Digests of the response that it belongs to, or of the calls that failed with "
        "it, so that what is written again is not counted again.",
    )
    response: Mapped[int | None] = mapped(
        default=None,
        description="The position of the entry that began its response, where that is another.",
    )
    created_at: Mapped[datetime] = Field(
        description="When it was stored, UTC, by the server's clock."
    )
    expires_at: Mapped[datetime | None] = mapped(
        default=None,
        description="When MongoDB may delete it, UTC: later than its session's summary.",
    )

    class Settings:
        """Collection and indexes, as Beanie reads them."""

        name = "claude_transcript_entries"
        indexes = [ORDER_INDEX, UUID_INDEX, COUNTED_INDEX, EXPIRY_INDEX]

    @property
    def content(self) -> dict[str, Any]:
        """The entry as the agent wrote it, whichever way it is stored.

        Raises:
            ValueError: it is split over chunks, or encrypted, which ``BeanieSessionStore.load``
                and ``stream`` put together and decrypt; or the stored bytes are damaged.
        """
        if self.entry is not None:
            return plain(self.entry)
        if self.packed is not None:
            return unpack(self.packed)
        raise ValueError(
            f"entry {self.seq} of session {self.session_id} is split over {self.chunks} chunks; "
            "read it with the store's load() or stream()"
        )

    def key(self) -> SessionKey:
        """The key of the transcript, for the methods of the store and of the SDK."""
        key: SessionKey = {"project_key": self.project_key, "session_id": self.session_id}
        if self.subpath:
            key["subpath"] = self.subpath
        return key

    @property
    def parsed(self) -> EntryView:
        """The typed view of the entry; raises as :attr:`content` does."""
        return parse_entry(self.content)


class EntryChunk(StoreOwned, Document):
    """A slice of a packed value too large for one document.

    The value is an entry (``seq`` is that entry's) or, with ``seq`` 0, the session's summary.
    """

    _team_fields: ClassVar[frozenset[str]] = frozenset()
    _way: ClassVar[str] = (
        "Chunks are made by store.append() and removed with their transcript, by store.delete()."
    )

    tenant: Mapped[str] = Field(description="As in the entry.")
    project_key: Mapped[str] = Field(description="As in the entry.")
    session_id: Mapped[str] = Field(description="As in the entry.")
    collection: Mapped[str] = Field(
        description="The collection of the document that owns the slice."
    )
    subpath: Mapped[str] = mapped(default="", description="As in the entry.")
    seq: Mapped[int] = Field(description="The entry's position, or 0 for the session's summary.")
    part: Mapped[int] = Field(description="Position of the slice, from 0.")
    data: Mapped[bytes] = Field(description="The slice.")
    expires_at: Mapped[datetime | None] = mapped(
        default=None,
        description="When MongoDB may delete it, UTC: later than its session's summary.",
    )

    class Settings:
        """Collection and indexes, as Beanie reads them."""

        name = "claude_transcript_chunks"
        indexes = [CHUNK_INDEX, EXPIRY_INDEX]
