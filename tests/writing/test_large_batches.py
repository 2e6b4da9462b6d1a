"""How much one batch may hold, on a server with the cache that docs/limits.md has figures for."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.database import prepared
from support.entries import KEY, marker, message
from support.server import connected

from beanie_session_store import BeanieSessionStore, EmbeddedMongo, ServerError
from beanie_session_store.app.database.driver import Database
from beanie_session_store.models.entry import TranscriptEntry

pytestmark = [pytest.mark.soak, pytest.mark.timeout(600)]

Make = Callable[[int], list[dict[str, Any]]]


@pytest.fixture
def own_url() -> Iterator[str]:
    """A server of the test's own, whose cache nothing else has filled."""
    with EmbeddedMongo() as mongo:
        yield mongo.url


def small(number: int) -> list[dict[str, Any]]:
    return [message("x") if index % 2 else marker() for index in range(number)]


def megabytes(number: int) -> list[dict[str, Any]]:
    return [message(random.Random(index).randbytes(500_000).hex()) for index in range(number)]


async def stored(database: Database) -> int:
    return await database[TranscriptEntry.get_collection_name()].count_documents({})


@pytest.mark.parametrize(("made", "number"), [(small, 75_000), (megabytes, 64)])
async def test_what_fits_is_stored_whole(own_url: str, made: Make, number: int) -> None:
    batch = made(number)
    async with connected(own_url) as client:
        database = await prepared(client["large"])
        await BeanieSessionStore().append(KEY, batch)
        assert await stored(database) == len(batch)


@pytest.mark.parametrize(("made", "number"), [(small, 150_000), (megabytes, 256)])
async def test_what_does_not_fit_is_refused_whole_and_can_be_split(
    own_url: str, made: Make, number: int
) -> None:
    batch = made(number)
    async with connected(own_url) as client:
        database = await prepared(client["large"])
        store = BeanieSessionStore()
        with pytest.raises(ServerError, match="does not fit the cache") as caught:
            await store.append(KEY, batch)
        assert "nothing was changed. Split the batch" in str(caught.value)
        assert await stored(database) == 0
        assert await store.load(KEY) is None
        # As large as the error says; twice as much need not fit while the cache is full.
        part = len(batch) // 8
        for at in range(0, len(batch), part):
            await store.append(KEY, batch[at : at + part])
        assert await stored(database) == len(batch)
