"""The team's own documents."""

from __future__ import annotations

from datetime import datetime, timezone
from secrets import token_urlsafe

from beanie import Document, PydanticObjectId
from pydantic import Field
from pymongo import ASCENDING, IndexModel


class Customer(Document):
    """Who pays; each is a tenant of the session store."""

    name: str
    pages_key: str = Field(default_factory=token_urlsafe)
    """Opens the pages of the customer's sessions."""

    class Settings:
        name = "customers"


class Conversation(Document):
    """What a customer sees in the sidebar: one agent session, under a name."""

    customer: PydanticObjectId
    name: str
    session_id: str
    started_at: datetime = Field(default_factory=lambda: datetime.now(timezone.utc))

    class Settings:
        name = "conversations"
        indexes = [IndexModel([("customer", ASCENDING), ("session_id", ASCENDING)], unique=True)]
