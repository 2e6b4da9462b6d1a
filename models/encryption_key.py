"""Keys that contents are sealed with, wrapped: one document for each tenant and subject."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from beanie import Document
from pydantic import Field
from pymongo import ASCENDING, IndexModel

from .mapped import Mapped, mapped
from .owned import StoreOwned

SUBJECT_INDEX = IndexModel(
    [("tenant", ASCENDING), ("subject", ASCENDING)],
    name="key_subject",
    unique=True,
    partialFilterExpression={"subject": {"$exists": True}},
)
"""One key that is in use for each; of destroyed ones nothing tells whose they were."""


class EncryptionKey(StoreOwned, Document):
    """A data key, which its key service alone can unwrap.

    It may be in another database, or in another cluster, than what it is for: else every backup
    holds the keys of its own data.
    """

    _team_fields: ClassVar[frozenset[str]] = frozenset()
    _way: ClassVar[str] = (
        "Keys are made by the store that first needs one, and destroyed with destroy_key()."
    )

    tenant: Mapped[str] = Field(description="Whose it is.")
    subject: Mapped[str | None] = mapped(
        default=None,
        description='The value that its sessions have in the subject\'s field of metadata; "" for '
        "those without one. Absent once it is destroyed.",
    )
    wrapped: Mapped[bytes | None] = mapped(
        default=None, description="The key as its key service wrapped it; absent once destroyed."
    )
    wrapped_by: Mapped[str | None] = mapped(
        default=None, description="The name of the wrapping key, as the key service calls it."
    )
    created_at: Mapped[datetime] = Field(description="When it was made, UTC.")
    wrapped_at: Mapped[datetime | None] = mapped(
        default=None, description="When it was last wrapped, UTC."
    )
    destroyed_at: Mapped[datetime | None] = mapped(
        default=None, description="When it was destroyed, UTC: nobody can read its contents since."
    )

    class Settings:
        """Collection and indexes, as Beanie reads them."""

        name = "claude_encryption_keys"
        indexes = [SUBJECT_INDEX]
