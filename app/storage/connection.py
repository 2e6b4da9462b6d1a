"""The database that a store's Document classes are bound to, checked once before use."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from beanie import Document
from beanie.odm.utils.encoder import Encoder

from ...models import EntryChunk, RetentionPolicy, SessionSummary, TranscriptEntry
from ...models.hooks import warn_of_hooks
from ..database.bound_models import bind_unbound
from ..database.collection_names import collection_name, policy_collection_name
from ..database.documents import Documents
from ..database.driver import (
    AnyDatabase,
    Client,
    Collection,
    as_pymongo,
    collection_of,
    with_store_rules,
)
from ..database.failures import reported
from ..database.server import Server, server_of
from ..encryption.encryption import Encryption
from ..encryption.keyring import Keyring
from ..errors import InvalidModelError
from ..schema.indexes import has_counted_index
from ..schema.versions import require_usable_schema
from ..text import shown
from ..transcript_key import TranscriptKey
from .expiry import Retention, RetentionCache, retention_cache_of
from .stored_summaries import summary_of

logger = logging.getLogger("beanie_session_store.storage")


@dataclass(frozen=True, slots=True)
class StoreModels:
    """The Document classes of one store.

    Raises:
        InvalidModelError: a class is no subclass of the one it stands for, or adds a field
            without a default, which the store could not fill.
    """

    entries: type[TranscriptEntry]
    summaries: type[SessionSummary]

    def __post_init__(self) -> None:
        added_defaults("entries", self.entries, TranscriptEntry)
        added_defaults("summaries", self.summaries, SessionSummary)
        warn_of_hooks(self.entries)
        warn_of_hooks(self.summaries)


@dataclass(frozen=True, slots=True)
class StoreDocuments:
    """The documents of one store, to be queried with Beanie's words.

    What is hot, or none of Beanie's, is a command to their ``collection``, and says why.
    """

    entries: Documents[TranscriptEntry]
    summaries: Documents[SessionSummary]
    chunks: Documents[EntryChunk]
    policies: Documents[RetentionPolicy]


def documents_of(
    models: StoreModels,
    entries: Collection,
    summaries: Collection,
    chunks: Collection,
    policies: Collection,
) -> StoreDocuments:
    """The documents of some classes in some collections."""
    return StoreDocuments(
        Documents(models.entries, entries),
        Documents(models.summaries, summaries, partial(summary_of, models.summaries)),
        Documents(EntryChunk, chunks),
        Documents(RetentionPolicy, policies),
    )


@dataclass(frozen=True, slots=True)
class Connection(StoreDocuments):
    """A store's documents, by its read and write rules, and what their server can do."""

    client: Client
    server: Server
    retentions: RetentionCache
    has_marks: bool
    """Whether entries are marked, so that what is written again is not counted again; so they are
    once the migration that adds the index has run."""
    entry_defaults: Callable[[], dict[str, Any]]
    summary_defaults: Callable[[], dict[str, Any]]
    keyring: Keyring | None = None
    """The keys that contents are sealed with; ``None`` where all is stored plain."""

    def taking_plain(self) -> Connection:
        """The same, also where only what is sealed is taken: for who seals the rest."""
        keyring = self.keyring
        return self if keyring is None else replace(self, keyring=keyring.taking_plain())

    async def retention_of(self, key: TranscriptKey) -> Retention:
        """What holds for a session, as far as was known within ``CACHE_SECONDS``."""
        return await self.retentions.get(self.policies, key.tenant, key.project_key)


class Binding:
    """Follows the database that ``init_beanie`` gives to the Document classes."""

    def __init__(self, models: StoreModels, encryption: Encryption | None = None) -> None:
        self.models = models
        self._encryption = encryption
        self._connection: Connection | None = None
        self._raw: tuple[Collection, Collection, Collection] | None = None

    async def connection(self) -> tuple[Connection, bool]:
        """The connection, and whether it is another one than at the last call.

        Raises:
            NotInitializedError: ``init_beanie`` was not called with the models.
            SchemaOutdatedError: an index that the guarantees rest on is missing.
            UnfitCollectionError: a collection is of a kind that no store can use.
            SchemaTooNewError: a newer release migrated the database.
        """
        models = self.models
        raw = (
            collection_of(models.entries),
            collection_of(models.summaries),
            collection_of(EntryChunk),
        )
        known = self._connection
        if known is not None and self._raw is not None and all(map(_same, raw, self._raw)):
            return known, False
        connection = await connect_models(models, raw, self._encryption)
        before = self._connection
        if (
            before
            and before.entries.collection.database.name
            != connection.entries.collection.database.name
        ):
            logger.warning(
                "init_beanie has given %s to database %s; a store that began on %s goes on there.",
                models.entries.__name__,
                connection.entries.collection.database.name,
                before.entries.collection.database.name,
            )
        self._raw = raw
        self._connection = connection
        return connection, True


class DatabaseBinding:
    """Stays with one database, whatever ``init_beanie`` does."""

    def __init__(
        self, models: StoreModels, database: AnyDatabase, encryption: Encryption | None = None
    ) -> None:
        self.models = models
        self._encryption = encryption
        self._database = as_pymongo(database)
        self._connection: Connection | None = None

    async def connection(self) -> tuple[Connection, bool]:
        """As :meth:`Binding.connection`."""
        if self._connection is not None:
            return self._connection, False
        models = (self.models.entries, self.models.summaries, EntryChunk)
        entries, summaries, chunks = (self._database[collection_name(model)] for model in models)
        raw = (entries, summaries, chunks)
        connection = await connect_models(self.models, raw, self._encryption)
        with reported(connection.client, "initialise Beanie"):
            await bind_unbound(self._database, self.models.summaries)
        self._connection = connection
        return connection, True


# Stores are cheap to make, one per request say; what was found of a database is kept for all.
_checked: WeakKeyDictionary[Client, dict[tuple[str, ...], bool]] = WeakKeyDictionary()
"""Whether entries are marked, by the names of the collections that were checked."""


async def connect_models(
    models: StoreModels,
    raw: tuple[Collection, Collection, Collection],
    encryption: Encryption | None = None,
) -> Connection:
    """Check a database once per client, and bind the collections of one store to it."""
    client = raw[0].database.client
    if any(collection.database.client is not client for collection in raw):
        raise InvalidModelError(
            "The store's Document classes were initialised with different clients, and no "
            "transaction spans two; nothing was read or written. Pass them all to one init_beanie."
        )
    _require_one_pair(raw[0], raw[1])
    entries, summaries, chunks = map(with_store_rules, raw)
    with reported(client, "connect to the session store's database"):
        server = await server_of(client)
        names = (entries.database.name, entries.name, summaries.name, chunks.name)
        checked = _checked.setdefault(client, {})
        if names not in checked:
            await require_usable_schema(entries, summaries, chunks)
            checked[names] = await has_counted_index(entries)
    policies = with_store_rules(entries.database)[policy_collection_name()]
    bound = documents_of(models, entries, summaries, chunks, policies)
    return Connection(
        client=client,
        server=server,
        entries=bound.entries,
        summaries=bound.summaries,
        chunks=bound.chunks,
        policies=bound.policies,
        retentions=retention_cache_of(client),
        has_marks=checked[names],
        entry_defaults=added_defaults("entries", models.entries, TranscriptEntry),
        summary_defaults=added_defaults("summaries", models.summaries, SessionSummary),
        keyring=None if encryption is None else encryption.keyring(raw[0].database),
    )


# Which entry collection the sessions of a summary collection have their entries in.
_pairs: WeakKeyDictionary[Client, dict[tuple[str, str], str]] = WeakKeyDictionary()


def _require_one_pair(entries: Collection, summaries: Collection) -> None:
    pairs = _pairs.setdefault(entries.database.client, {})
    other = pairs.setdefault((summaries.database.name, summaries.name), entries.name)
    if other != entries.name:
        raise InvalidModelError(
            f"{summaries.name} already stands for the entries in {other}, so it cannot stand for "
            f"those in {entries.name}; nothing was read or written. Give each entries=... class "
            "a summaries=... class of its own."
        )


def added_defaults(
    role: str, model: type[Document], base: type[Document]
) -> Callable[[], dict[str, Any]]:
    """A function that makes the fields which a team's subclass adds, at their defaults."""
    if not (isinstance(model, type) and issubclass(model, base)):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidModelError(
            f"{role} must be {base.__name__} or a subclass of it, not {shown(model, 80)}."
        )
    added = {
        field.alias or name: field
        for name, field in model.model_fields.items()
        if name not in base.model_fields
    }
    required = sorted(
        name
        for name, field in added.items()
        if field.is_required() or field.default_factory_takes_validated_data
    )
    if required:
        raise InvalidModelError(
            f"{model.__name__} adds fields without a default ({', '.join(required)}) that needs "
            "nothing else, so the store cannot fill them. Give them plain defaults."
        )

    settings = getattr(model, "Settings", None)
    encoder = Encoder(custom_encoders=getattr(settings, "bson_encoders", {}), to_db=True)
    keeps_nulls = getattr(settings, "keep_nulls", True)

    def defaults() -> dict[str, Any]:
        values = {
            name: field.get_default(call_default_factory=True) for name, field in added.items()
        }
        fields = {
            name: encoder.encode(value)
            for name, value in values.items()
            if keeps_nulls or value is not None
        }
        # Beanie finds the documents of a class in an inheritance tree by this field.
        class_id: str | None = getattr(model, "_class_id", None)
        if class_id is not None:
            fields[model.get_settings().class_id] = class_id
        return fields

    return defaults if added or getattr(model, "_class_id", None) is not None else dict


def _same(one: Collection, other: Collection) -> bool:
    """Whether it is one collection of one client, though ``init_beanie`` was called again."""
    return one is other or (
        one.full_name == other.full_name and one.database.client is other.database.client
    )
