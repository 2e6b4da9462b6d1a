"""The databases of one test process on a server, each for one test at a time."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Coroutine, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from beanie import Document, View
from pymongo import MongoClient
from pymongo.errors import OperationFailure

from ..app.database.driver import Database, close_client, open_client
from ..app.schema.versions import upgrade_schema
from ..app.text import shown
from ..models import DOCUMENT_MODELS, SessionSummary, TranscriptEntry

Documents = Sequence["type[Document] | type[View] | str"]
"""What ``init_beanie`` takes as ``document_models``."""

Isolation = Literal["tenant", "database"]
"""What a test has to itself; see the fixture ``session_store_isolation``."""

# Which migrations ran on a database, ours and a team's: true of it however empty it is.
_LOGS = frozenset({"claude_transcript_migrations", "migrations_log"})
_Model = TypeVar("_Model", bound=Document)


@dataclass(frozen=True)
class StoreClasses:
    """The Document classes of a team, the store's among them."""

    documents: tuple[Any, ...]
    """For ``init_beanie``: those given, and those of the store's that none of them stands for."""
    entries: type[TranscriptEntry]
    summaries: type[SessionSummary]

    @classmethod
    def of(cls, given: object) -> StoreClasses:
        """Find the store's classes among those given.

        Raises:
            TypeError: it is no sequence of classes.
            ValueError: two of them could be the store's entries, or its summaries.
        """
        if not isinstance(given, Sequence) or isinstance(given, str):
            raise TypeError(
                "session_store_documents must return the classes for init_beanie in a list, such "
                f"as [Customer, *DOCUMENT_MODELS], not {shown(given)}"
            )
        documents: list[Any] = list(given)  # pyright: ignore[reportUnknownArgumentType]
        for model in DOCUMENT_MODELS:
            if not any(isinstance(each, type) and issubclass(each, model) for each in documents):
                documents.append(model)
        return cls(
            tuple(documents),
            _only(documents, TranscriptEntry, "entries"),
            _only(documents, SessionSummary, "summaries"),
        )


def _only(documents: list[Any], kind: type[_Model], what: str) -> type[_Model]:
    """The class that is of a kind, whose bases may be among the documents too."""
    found: list[type[_Model]] = [
        each for each in documents if isinstance(each, type) and issubclass(each, kind)
    ]
    last = [
        each
        for each in found
        if not any(other is not each and issubclass(other, each) for other in found)
    ]
    if len(last) > 1:
        names = " and ".join(each.__name__ for each in last)
        raise ValueError(
            f"session_store_documents has {names}, and a store has one class for {what}. Override "
            "session_store_documents with those of one store where a test needs one of them, or "
            "session_store itself."
        )
    return last[0]


class WorkerDatabases:
    """What a test process makes on a server, and removes from it at its end."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._client: MongoClient[dict[str, Any]] = MongoClient(url)
        self._shared: dict[tuple[type[TranscriptEntry], type[SessionSummary]], str] = {}

    @contextmanager
    def shared(self, classes: StoreClasses) -> Generator[str]:
        """The database of this process for a store of these classes; it is emptied afterwards."""
        kinds = (classes.entries, classes.summaries)
        if kinds not in self._shared:
            name = _new_name()
            self._migrate(name, classes)
            self._shared[kinds] = name
        try:
            yield self._shared[kinds]
        finally:
            self._empty(self._shared[kinds])

    @contextmanager
    def fresh(self, classes: StoreClasses) -> Generator[str]:
        """A new database; it is dropped afterwards."""
        name = _new_name()
        try:
            self._migrate(name, classes)
            yield name
        finally:
            self._client.drop_database(name)

    def close(self) -> None:
        """Remove what is left."""
        with self._client:
            for name in self._shared.values():
                self._client.drop_database(name)

    def _migrate(self, name: str, classes: StoreClasses) -> None:
        async def migrate() -> None:
            client = open_client(self._url)
            try:
                database: Database = client[name]
                await upgrade_schema(database, entries=classes.entries, summaries=classes.summaries)
            finally:
                await close_client(client)

        _run(migrate)

    def _empty(self, name: str) -> None:
        database = self._client[name]
        for collection in database.list_collections():
            if collection["name"] in _LOGS or collection["name"].startswith("system."):
                continue
            try:
                # Much faster than to make it anew, with its indexes.
                database[collection["name"]].delete_many({})
            except OperationFailure:
                # A view, or a kind of collection that cannot be emptied.
                database[collection["name"]].drop()


def _new_name() -> str:
    return f"session_store_test_{uuid.uuid4().hex[:16]}"


def _run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a coroutine to its end, whatever event loop the thread of the tests has."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: asyncio.run(work())).result()
