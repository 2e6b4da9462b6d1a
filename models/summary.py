"""Sessions as they are listed: one document per session."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar

from beanie import Document, PydanticObjectId
from pydantic import Field, field_validator
from pymongo import ASCENDING, DESCENDING, IndexModel

from .mapped import Mapped, mapped
from .owned import StoreOwned
from .retention import EXPIRY_INDEX, NOT_EXPIRED
from .totals import SessionTotals

if TYPE_CHECKING:
    from claude_agent_sdk import SessionKey

SESSION_INDEX = IndexModel(
    [("tenant", ASCENDING), ("project_key", ASCENDING), ("session_id", ASCENDING)],
    name="session",
    unique=True,
)


ACTIVITY_INDEX = IndexModel(
    [("tenant", ASCENDING), ("active_at", DESCENDING), ("_id", DESCENDING)],
    name="session_activity",
)
"""For the latest sessions of a tenant, a page at a time."""

LISTING_INDEX = IndexModel(
    [
        *SESSION_INDEX.document["key"].items(),
        ("mtime", ASCENDING),
        ("expires_at", ASCENDING),
    ],
    name="session_listing",
)
"""Holds all that ``list_sessions`` answers, so that no document is read for it."""


TOMBSTONE_INDEX = IndexModel(
    [("erased_until", ASCENDING)],
    name="transcript_tombstone",
    expireAfterSeconds=0,
    sparse=True,
)
"""For MongoDB to take the tombstones of erased sessions at their date."""


class SessionSummary(StoreOwned, Document):
    """What is known of a session without reading its entries.

    It is written in the same transaction as the entries, so ``data`` always equals the SDK's
    fold over the stored main transcript, and ``totals`` always count what is stored. Exactly one
    of ``data``, ``packed_data`` and ``data_chunks`` is set once the main transcript has an entry.
    Subclass it to use another collection, further indexes or further fields with defaults.
    ``metadata`` and the fields that you add are yours to ``set`` and ``save``; all others are
    read-only, and change only as the transcript does.
    """

    _team_fields: ClassVar[frozenset[str]] = frozenset({"metadata"})
    # Who read it before it was erased would else put back whose it was.
    _changeable: ClassVar[Mapping[str, Any]] = {"erased_until": None}
    _way: ClassVar[str] = (
        "Sessions are made by store.append() and removed by store.delete(summary.key()); titles "
        "and tags are set with the SDK's rename_session_via_store() and tag_session_via_store(), "
        "metadata with store.set_metadata() or summary.set(), holds with store.hold()."
    )

    tenant: Mapped[str] = Field(description="The tenant of the store that made the session.")
    project_key: Mapped[str] = Field(
        description="The SDK's project key, derived from the directory."
    )
    session_id: Mapped[str] = Field(description="The session, a UUID when the agent made it.")
    next_seq: Mapped[int] = Field(description="The position that the session's next entry gets.")
    mtime: Mapped[int | None] = mapped(
        default=None,
        description="Last append to the main transcript, epoch milliseconds by the server's "
        "clock, rising with every append; absent while only subagents wrote.",
    )
    data: Mapped[dict[str, Any] | None] = mapped(
        default=None, description="The SDK's fold of the main transcript, opaque."
    )
    packed_data: Mapped[bytes | None] = mapped(
        default=None, description="The fold as compressed JSON, where BSON cannot hold it."
    )
    data_chunks: Mapped[int | None] = mapped(
        default=None, description="How many EntryChunk documents hold a fold that is too large."
    )
    sealed: Mapped[bytes | None] = mapped(
        default=None,
        description="Texts, and what is in flight of the totals, encrypted; then the fold is "
        "packed and encrypted too.",
    )
    metadata: Mapped[dict[str, Any] | None] = mapped(
        default=None, description="What the store that made the session was given as metadata."
    )
    packed_metadata: Mapped[bytes | None] = mapped(
        default=None, description="The metadata as compressed JSON, where BSON cannot hold it."
    )
    title: Mapped[str | None] = mapped(
        default=None,
        description="The title that a person gave, or else the model; at most 200 characters, as "
        "are the next four.",
    )
    first_prompt: Mapped[str | None] = mapped(default=None, description="What was asked first.")
    branch: Mapped[str | None] = mapped(default=None, description="The git branch, as last seen.")
    cwd: Mapped[str | None] = mapped(default=None, description="The directory, as first seen.")
    tag: Mapped[str | None] = mapped(default=None, description="The session's tag.")
    totals: Mapped[SessionTotals] = mapped(
        default_factory=SessionTotals,
        description="What the session did so far; nothing, and not is_counted, where none are "
        "stored, for an older release wrote it.",
    )
    created_at: Mapped[datetime] = Field(
        description="When it was stored, UTC, by the server's clock."
    )
    active_at: Mapped[datetime | None] = mapped(
        default=None, description="Last append to any transcript of the session, UTC."
    )
    expires_at: Mapped[datetime | None] = mapped(
        default=None,
        description="When the session is gone for readers, UTC, and MongoDB may delete this.",
    )
    held_at: Mapped[datetime | None] = mapped(
        default=None, description="Since when a hold keeps the session from expiring, UTC."
    )
    released_at: Mapped[datetime | None] = mapped(
        default=None, description="When a hold ended last, UTC; the period began anew then."
    )
    first_seq: Mapped[int] = mapped(
        default=1,
        description="The position of its first entry. Those before it are the remains of an "
        "earlier session of the same key.",
    )
    removed: Mapped[list[dict[str, Any]]] = mapped(
        default_factory=list[dict[str, Any]],
        description='Deleted subagents whose entries are being swept: {"subpath", "before"}.',
    )
    remains: Mapped[bool] = mapped(
        default=False, description="Whether entries of an earlier session are still to be swept."
    )
    backstop: Mapped[dict[str, Any] | None] = mapped(
        default=None,
        description="How the entries are dated: none before until, new ones with to.",
    )
    moved_through: Mapped[int | None] = mapped(
        default=None, description="Up to which position the entries have the date to already."
    )
    lease: Mapped[dict[str, Any] | None] = mapped(
        default=None,
        description='Who alone may write, of those who ask for leases: {"owner", "grant", "since", '
        '"until"}; over where until has passed.',
    )

    erased_until: Mapped[datetime | None] = mapped(
        default=None,
        description="Until when nothing is stored under the key, UTC, for the session was erased "
        "and this is its tombstone; MongoDB deletes it then.",
    )
    erasure: Mapped[PydanticObjectId | None] = mapped(
        default=None, description="Which erasure a tombstone is of."
    )

    class Settings:
        """Collection and indexes, as Beanie reads them."""

        name = "claude_transcript_summaries"
        indexes = [SESSION_INDEX, ACTIVITY_INDEX, LISTING_INDEX, EXPIRY_INDEX, TOMBSTONE_INDEX]

    @field_validator("totals", mode="before")
    @classmethod
    def _none_are_empty(cls, totals: object) -> object:
        return SessionTotals() if totals is None else totals

    @staticmethod
    def alive() -> dict[str, Any]:
        """A condition for sessions that are there for the store's readers too.

        ``SessionSummary.find(SessionSummary.alive(), ...)`` leaves out those whose date has passed,
        by the server's clock, or that were deleted, while MongoDB still has their summary.
        """
        return {**NOT_EXPIRED}

    def key(self) -> SessionKey:
        """The key of the session, for the methods of the store and of the SDK."""
        return {"project_key": self.project_key, "session_id": self.session_id}
