"""What is examined: a database, with the collections of one pair of Document classes."""

from __future__ import annotations

from dataclasses import dataclass

from beanie import Document

from ...models import EntryChunk, RetentionPolicy
from ..database.collection_names import collection_name
from ..database.driver import (
    AnyDatabase,
    Client,
    Collection,
    Database,
    as_pymongo,
    with_store_rules,
)
from ..storage.connection import StoreDocuments, StoreModels, documents_of


@dataclass(frozen=True, slots=True)
class Target:
    """A database under examination."""

    client: Client
    database: Database
    """With the store's read and write rules."""
    models: StoreModels

    @classmethod
    def of(cls, database: AnyDatabase, models: StoreModels) -> Target:
        """The target of a database as a caller has it."""
        return cls(database.client, with_store_rules(as_pymongo(database)), models)

    @property
    def documents(self) -> StoreDocuments:
        """What is in the collections of these classes."""
        return documents_of(self.models, *map(self.collection, self.classes))

    @property
    def classes(self) -> tuple[type[Document], ...]:
        """The Document classes, from the one most relied on."""
        return self.models.entries, self.models.summaries, EntryChunk, RetentionPolicy

    def collection(self, model: type[Document]) -> Collection:
        """The collection of a Document class."""
        return self.database[collection_name(model)]
