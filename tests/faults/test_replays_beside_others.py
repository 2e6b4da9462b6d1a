"""A replay takes nothing of other writers for its own."""

from __future__ import annotations

from typing import Any

import pytest
from support.entries import KEY, assert_summary_is_the_fold, marker, message
from support.server import failing

from beanie_session_store import BeanieSessionStore, SessionStoreError
from beanie_session_store.app.database.driver import Database


async def test_a_new_batch_after_a_replay_keeps_what_another_writer_has_too(
    database: Database,
) -> None:
    one, other = BeanieSessionStore(), BeanieSessionStore()
    first, second, third = [message()], [marker(), message()], [marker(), message()]
    await one.append(KEY, first)
    await one.append(KEY, first)
    await other.append(KEY, second)
    await one.append(KEY, third)
    assert await one.load(KEY) == first + second + third
    await assert_summary_is_the_fold(one)


async def test_a_new_batch_after_an_outdated_import_keeps_what_another_writer_has_too(
    database: Database,
) -> None:
    one, other = BeanieSessionStore(), BeanieSessionStore()
    first, second = [message()], [marker(), message(), marker()]
    third = [marker(), message(), marker(), message()]
    await one.append(KEY, first)
    await other.append(KEY, second)
    await one.append(KEY, first)
    await one.append(KEY, third)
    assert await one.load(KEY) == first + second + third
    await assert_summary_is_the_fold(one)


async def test_a_new_batch_without_uuid_after_an_outdated_import_is_stored_whole(
    database: Database,
) -> None:
    one, other = BeanieSessionStore(), BeanieSessionStore()
    first, second = [message()], [marker(), message()]
    third = [marker(), marker("unlike any other")]
    await one.append(KEY, first)
    await other.append(KEY, second)
    await one.append(KEY, first)
    await one.append(KEY, third)
    assert await one.load(KEY) == first + second + third


async def test_an_import_of_a_session_that_grew_repeats_nothing(database: Database) -> None:
    first, grown = [message(), marker(), marker()], [marker("new"), message()]
    await BeanieSessionStore().append(KEY, first)
    importer = BeanieSessionStore()
    await importer.append(KEY, first[:1])
    await importer.append(KEY, [*first[1:], *grown])
    assert await importer.load(KEY) == first + grown


async def test_another_import_at_once_repeats_nothing_that_came_since_the_last_one(
    database: Database,
) -> None:
    importer, other = BeanieSessionStore(), BeanieSessionStore()
    first, second = [marker(), message()], [marker(), message()]
    await other.append(KEY, first)
    await importer.append(KEY, first)
    await other.append(KEY, second)
    await importer.append(KEY, first + second)
    assert await importer.load(KEY) == first + second


async def test_a_new_batch_without_uuid_after_a_replay_is_stored_whole(
    database: Database,
) -> None:
    one, other = BeanieSessionStore(), BeanieSessionStore()
    first, second = [message()], [marker(), message()]
    third = [marker(), marker("unlike any other")]
    await one.append(KEY, first)
    await one.append(KEY, first)
    await other.append(KEY, second)
    await one.append(KEY, third)
    assert await one.load(KEY) == first + second + third


_NEW_BATCHES = [
    pytest.param([marker()], id="without-uuid"),
    pytest.param([marker(), marker()], id="longer-without-uuid"),
    pytest.param([marker(), message()], id="with-uuid"),
]


@pytest.mark.parametrize("new", _NEW_BATCHES)
async def test_a_new_batch_after_a_replay_keeps_what_another_writer_just_appended_too(
    database: Database, new: list[dict[str, Any]]
) -> None:
    """Nothing with a uuid of the other writer stands between."""
    one, other = BeanieSessionStore(), BeanieSessionStore()
    first, second = [message()], [marker()]
    await one.append(KEY, first)
    await one.append(KEY, first)
    await other.append(KEY, second)
    await one.append(KEY, new)
    assert await one.load(KEY) == first + second + new
    await assert_summary_is_the_fold(one)


@pytest.mark.parametrize("new", _NEW_BATCHES)
@pytest.mark.parametrize("retries", [1, 3])
async def test_a_new_batch_after_a_retry_keeps_what_another_writer_appended_before_that(
    database: Database, new: list[dict[str, Any]], retries: int
) -> None:
    one, other = BeanieSessionStore(), BeanieSessionStore()
    first, second = [message()], [marker()]
    await one.append(KEY, first)
    await other.append(KEY, second)
    for _ in range(retries):
        await one.append(KEY, first)
    await one.append(KEY, new)
    assert await one.load(KEY) == first + second + new
    await assert_summary_is_the_fold(one)


@pytest.mark.parametrize("new", _NEW_BATCHES)
@pytest.mark.parametrize("cut", [1, 2])
async def test_a_new_batch_after_an_import_in_parts_keeps_what_another_writer_has_too(
    database: Database, new: list[dict[str, Any]], cut: int
) -> None:
    one, other = BeanieSessionStore(), BeanieSessionStore()
    first, second = [message(), marker("own"), message()], [marker()]
    await other.append(KEY, first)
    await one.append(KEY, first[:cut])
    await other.append(KEY, second)
    await one.append(KEY, first[cut:])
    await one.append(KEY, new)
    assert await one.load(KEY) == first + second + new
    await assert_summary_is_the_fold(one)


async def test_an_import_in_parts_repeats_nothing_that_another_store_had_before(
    database: Database,
) -> None:
    """The other direction: what stood behind the part that came again counts as a repetition."""
    transcript = [message(), marker("one"), marker("two"), message(), marker(), marker()]
    for entry in transcript:
        await BeanieSessionStore().append(KEY, [entry])
    importer = BeanieSessionStore()
    for entry in transcript:
        await importer.append(KEY, [entry])
    assert await importer.load(KEY) == transcript


async def test_a_session_that_was_made_anew_is_not_bounded_by_the_one_before(
    database: Database,
) -> None:
    one, other = BeanieSessionStore(), BeanieSessionStore()
    await one.append(KEY, [message() for _ in range(20)])
    await other.delete(KEY)
    first, second, third = [message()], [marker()], [marker(), message()]
    await other.append(KEY, first)
    await one.append(KEY, first)
    await other.append(KEY, second)
    await one.append(KEY, third)
    assert await one.load(KEY) == first + second + third


@pytest.mark.parametrize("is_stored", [True, False])
async def test_a_retry_is_stored_once_though_another_batch_came_between(
    store: BeanieSessionStore,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    is_stored: bool,
) -> None:
    first, second, between = [message()], [marker("only")], [message()]
    await store.append(KEY, first)
    error = {"writeConcernError": {"code": 64, "errmsg": "waiting for replication timed out"}}
    if not is_stored:
        error = {"errorCode": 50, "closeConnection": False}
    with monkeypatch.context() as patch:
        patch.setattr("beanie_session_store.app.database.attempts._SECONDS", 0.2)
        labels = ["UnknownTransactionCommitResult"]
        async with failing(
            database, "commitTransaction", {"times": 1000}, errorLabels=labels, **error
        ):
            with pytest.raises(SessionStoreError, match="not known"):
                await store.append(KEY, second)
    await store.append(KEY, between)
    await store.append(KEY, second)
    expected = first + second + between if is_stored else first + between + second
    assert await store.load(KEY) == expected


async def test_a_batch_in_doubt_is_still_in_doubt_after_a_try_that_failed(
    store: BeanieSessionStore, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = [message()], [marker("only"), marker("only")]
    await store.append(KEY, first)
    error = {"writeConcernError": {"code": 64, "errmsg": "waiting for replication timed out"}}
    monkeypatch.setattr("beanie_session_store.app.database.attempts._SECONDS", 0.2)
    labels = ["UnknownTransactionCommitResult"]
    async with failing(database, "commitTransaction", {"times": 1000}, errorLabels=labels, **error):
        with pytest.raises(SessionStoreError, match="not known"):
            await store.append(KEY, second)
    async with failing(database, "update", {"times": 1000}, errorCode=8000):
        with pytest.raises(SessionStoreError):
            await store.append(KEY, second)
    await store.append(KEY, second)
    assert await store.load(KEY) == first + second
