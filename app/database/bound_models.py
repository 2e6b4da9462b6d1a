"""Document classes and the one collection that Beanie lets each of them have in a process.

What an application gave to a class with ``init_beanie`` is never taken away here while it can be
used, for all of the application's own queries would go elsewhere without a word.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from beanie import Document
from beanie.odm.utils.init import Initializer

from .collection_names import collection_name
from .driver import Database, collection_of, is_bound, is_of_the_past

# Beanie changes classes while it waits for the server, so one at a time, in whatever thread.
_changing = threading.Lock()
_lent: dict[type[Document], list[Database]] = {}
"""The databases for which classes are lent, the one that each answers from first."""


def _begin_anew() -> None:
    """In a fork: whoever was changing classes is not here, nor is the client of what was lent."""
    global _changing
    _changing = threading.Lock()
    _lent.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)


@asynccontextmanager
async def lent(
    database: Database, models: Sequence[type[Document]], *, create_indexes: bool
) -> AsyncGenerator[None]:
    """Let Document classes answer from a database, those that nobody gave another one.

    With several at once, in one thread or many, the first one has the classes; when it is over, the
    next one gets them, and after the last they have no collection, as before the first.
    ``create_indexes`` makes the indexes that all of them declare.
    """
    async with _change():
        try:
            for model in models:
                if not _is_taken(model):
                    await _bind(database, model)
                    _lent[model] = [database, *_lent.get(model, ())]
                elif _is_lent(model):
                    _lent[model].append(database)
                if create_indexes:
                    await _create_indexes(database, model)
        except BaseException:
            _take_back(database, models)
            raise
    try:
        yield
    finally:
        async with _change():
            _take_back(database, models)


async def bind_unbound(database: Database, model: type[Document]) -> None:
    """Give a collection to a Document class if it has none: without one, Beanie makes no document.

    For a class of which no more is needed than that, for it then stays with this database.
    """
    async with _change():
        if not _is_taken(model):
            await _bind(database, model)


@asynccontextmanager
async def _change() -> AsyncGenerator[None]:
    # Not in this thread, whose other tasks may be the ones to wait for.
    acquiring = asyncio.ensure_future(asyncio.to_thread(_changing.acquire))
    try:
        await asyncio.shield(acquiring)
    except asyncio.CancelledError:
        acquiring.add_done_callback(lambda done: done.cancelled() or _changing.release())
        raise
    try:
        yield
    finally:
        _changing.release()


async def _bind(database: Database, model: type[Document]) -> None:
    beanie: Any = Initializer(database=database, document_models=[model], skip_indexes=True)
    # Else it would give them this database too.
    beanie.inited_classes += [
        base for base in model.__mro__[1:] if issubclass(base, Document) and _is_taken(base)
    ]
    await beanie


async def _create_indexes(database: Database, model: type[Document]) -> None:
    """What ``init_beanie`` would create, whatever database the class answers from."""
    collection = database[collection_name(model)]
    elsewhere = type(
        model.__name__,
        (),
        {
            "get_pymongo_collection": staticmethod(lambda: collection),
            "get_motor_collection": staticmethod(lambda: collection),
            "get_settings": model.get_settings,
            "model_fields": model.model_fields,
            "mro": model.mro,
        },
    )
    beanie: Any = Initializer(database=database, document_models=[model])
    beanie.inited_classes += [base for base in model.__mro__ if issubclass(base, Document)]
    await beanie.init_indexes(elsewhere)


def _is_taken(model: type[Document]) -> bool:
    return is_bound(model) and not is_of_the_past(collection_of(model).database.client)


def _is_lent(model: type[Document]) -> bool:
    return bool(_lent.get(model)) and collection_of(model).database is _lent[model][0]


def _take_back(database: Database, models: Sequence[type[Document]]) -> None:
    for model in models:
        waiting = _lent.get(model, [])
        places = [place for place, each in enumerate(waiting) if each is database]
        if not places:
            continue
        has_it = is_bound(model) and _is_lent(model) and places[0] == 0
        del waiting[places[0]]
        if not waiting:
            del _lent[model]
        # An application that called init_beanie meanwhile keeps what it gave.
        if has_it and waiting:
            _give(model, waiting[0])
        elif has_it:
            model._document_settings = None  # pyright: ignore[reportPrivateUsage]


def _give(model: type[Document], database: Database) -> None:
    bound: Any = model
    bound.set_database(database)
    bound.set_collection(database[collection_name(model)])
